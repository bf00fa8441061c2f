"""Claim: a *valid* motion blur is undone several times faster than by the iterations of other libraries.

Kernels of 25 × 25 (a line at 30 degrees, a camera shake), damp² = 1e-3 for a kernel of sum 1, noise of 1 %. Everyone
goes to one accuracy, ``‖Aᴴ(y − A x) − damp² x‖ ≤ 1e-6 ‖Aᴴ y‖``, computed here in double precision whatever the
contender computed in: a peer's iterations are counted up until it is there, ours are given the loosest tolerance that
gets there. A peer that does not get there within its time is reported as stopped, with what it reached. Ours are timed
from the kernel, preparation included, and prepared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import peers
from convpinv import Conv2dOperator, psf
from harness import (
    Options,
    Row,
    at_least,
    compared,
    interleaved,
    measured,
    missing,
    options,
    show,
    timed,
    write,
)

TAPS = 25
DAMP_SQUARED = 1e-3
GOAL = 1e-6
DEEPINV_SOLVERS = ("CG", "lsqr", "minres", "BiCGStab")
DIRECT = "deepinv Blur CG, default convolution"
DEFAULT = "deepinv Blur, all defaults"
PYLOPS, SCIPY = "PyLops LSQR", "SciPy LSMR"
RUNS = 5
# A call of more seconds is run less often, and one of many more once: the slowest peers take minutes.
LONG, VERY_LONG = 1.5, 12.0


def line() -> Tensor:
    """25 pixels at 30 degrees, in a frame of 25 × 25."""
    drawn = psf.motion(TAPS, 30).double()
    rows, columns = ((TAPS - size) // 2 for size in drawn.shape)
    return F.pad(drawn, (columns, columns, rows, rows))


def shake() -> Tensor:
    """A smooth path of a camera, drawn with a soft pen."""
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    path = 12 + 9 * (t - 0.5) + 3 * torch.sin(5 * t), 12 + 8 * torch.sin(2.2 * t - 1.1)
    grid = torch.arange(TAPS, dtype=torch.float64)
    rows, columns = (torch.exp(-0.5 * ((grid[:, None] - place) / 0.8) ** 2) for place in path)
    drawn = rows @ columns.mT
    return drawn / drawn.sum()


def residual_of(y: Tensor, kernel: Tensor) -> Callable[[Tensor], float]:
    """The one definition: by FFTs in double precision, whole rounds of the circle of which only *valid* is kept."""
    data, taps = y.double(), kernel.shape[-1]
    size = (y.shape[-2] + taps - 1, y.shape[-1] + taps - 1)
    transfer = torch.fft.rfft2(kernel.double(), size).conj()

    def forward(x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, size)[..., : y.shape[-2], : y.shape[-1]]

    def adjoint(u: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(u, size) * transfer.conj(), size)

    right = adjoint(data).norm()

    def residual(x: Tensor) -> float:
        x = x.double()
        return float((adjoint(data - forward(x)) - DAMP_SQUARED * x).norm() / right)

    return residual


def enough_iterations(
    iterate: peers.Iterate, residual: Callable[[Tensor], float], guess: int, budget: float, is_known: bool
) -> tuple[int, float, bool]:
    """Fewest iterations to the goal, within some 6 %, the residual there, and whether the goal was met.

    A guess that is known from a smaller picture is not undercut: the counts hardly depend on the size.
    Stops where the next trial would leave the budget, in seconds, or where more iterations no longer help.
    """
    start = time.perf_counter()
    seconds, x = timed(lambda: iterate(guess))
    count, found = guess, residual(x)
    while found > GOAL:
        more = max(count + 1, int(1.12 * count))
        if time.perf_counter() - start + seconds * more / count > budget:
            return count, found, False
        seconds, x = timed(lambda more=more: iterate(more))
        previous, found, count = found, residual(x), more
        if found > 0.999 * previous and count > 4 * guess:
            return count, found, False
    while not is_known and count > 1 and time.perf_counter() - start + seconds < budget:
        fewer = min(count - 1, int(count / 1.06))
        value = residual(iterate(fewer))
        if value > GOAL:
            break
        count, found = fewer, value
    return count, found, True


def ours(operator: Conv2dOperator, y: Tensor, solver: str, residual: Callable[[Tensor], float]) -> tuple[float, Row]:
    """The loosest tolerance that reaches the goal, and what is to be said of the answer."""
    value = float("inf")
    for step in range(29):  # an eighth of a decade each: as fine as what the peers' iterations are counted to
        tolerance = 1e-4 * 10 ** (-step / 8)
        solution = operator.pinv(damp=DAMP_SQUARED**0.5, solver=solver, tol=tolerance).solve(y)
        value = residual(solution.value)
        if value <= GOAL:
            return tolerance, {"residual": value, "iterations": solution.iterations, "reported": "success"}
    raise RuntimeError(f"convpinv {solver} stays at {value:.1e}")


def contenders(y: Tensor, kernel: Tensor) -> tuple[dict[str, peers.Iterate], list[tuple[str, str]]]:
    """Peers by name, and those that are missing with their package."""
    found: dict[str, peers.Iterate] = {}
    absent: list[tuple[str, str]] = []
    theirs = [f"deepinv Blur {solver}, use_fft" for solver in DEEPINV_SOLVERS]
    if peers.installed("deepinv"):
        for name, solver in zip(theirs, DEEPINV_SOLVERS, strict=True):
            found[name] = peers.deepinv_valid(y, kernel, DAMP_SQUARED, solver, use_fft=True)
        found[DIRECT] = peers.deepinv_valid(y, kernel, DAMP_SQUARED, "CG", use_fft=False)
    else:
        absent += [(name, "deepinv") for name in (*theirs, DIRECT, DEFAULT)]
    for name, package, make in ((PYLOPS, "pylops", peers.pylops_lsqr), (SCIPY, "scipy", peers.scipy_lsmr)):
        if peers.installed(package):
            found[name] = make(y, kernel, DAMP_SQUARED)
        else:
            absent.append((name, package))
    return found, absent


def rows_of(
    case: str, kernel: Tensor, side: int, dtype: torch.dtype, given: Options, guesses: dict[str, int], budget: float
) -> list[Row]:
    """Everyone in one case; ``guesses`` are the iterations that a smaller picture took, brought up to date.

    deepinv's convolution without the FFT takes seconds to minutes; it is timed in single precision, on the line.
    """
    with_direct = dtype == torch.float32 and case.startswith("line")
    generator = torch.Generator().manual_seed(0)
    weight = kernel.to(dtype)
    operator = Conv2dOperator(weight[None, None], side + TAPS - 1)
    scene = torch.rand(1, 1, *operator.in_shape[1:], dtype=torch.float64, generator=generator)
    y = operator(scene.to(dtype))
    y = y + 0.01 * torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype)
    residual = residual_of(y, weight)
    common = {"side": side, "dtype": str(dtype).removeprefix("torch.")}
    calls: dict[str, Any] = {
        "FFT round trip": lambda: torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[-2:]),
    }
    facts: dict[str, Row] = {}
    rows: list[Row] = []
    for solver in ("auto", "krylov"):
        tolerance, found = ours(operator, y, solver, residual)

        def prepare(s: str = solver, t: float = tolerance) -> Any:
            return operator.pinv(damp=DAMP_SQUARED**0.5, solver=s, tol=t)

        pinv = prepare()
        note = {"note": f"solver {pinv.plan.solver.name}, tol {tolerance:g}"}
        calls[f"convpinv {solver}, prepared"] = lambda p=pinv: p(y)
        calls[f"convpinv {solver}, with preparation"] = lambda prepare=prepare: prepare()(y)
        facts |= {f"convpinv {solver}, {way}": found | note for way in ("prepared", "with preparation")}
    found, absent = contenders(y, weight)
    if side > 256 or not with_direct:
        found.pop(DIRECT, None)
        absent = [(name, package) for name, package in absent if name != DIRECT]
    if not with_direct:
        absent = [(name, package) for name, package in absent if name != DEFAULT]
    rows += [missing(case, name, package) for name, package in absent]
    slow: dict[str, Callable[[], Tensor]] = {}
    very_slow: dict[str, Callable[[], Tensor]] = {}
    stopped: list[str] = []
    for name, iterate in found.items():
        iterate(2)
        # Without the FFT the same iterations are taken, only dearer: they need not be counted again.
        known = guesses.get("deepinv Blur CG, use_fft" if name == DIRECT else name)
        guess = known or 60
        probe = timed(lambda iterate=iterate: iterate(4))[0] / 4
        most = max(int(budget / probe), 4)
        if guess > most:
            count, value, reached = most, residual(iterate(most)), False
        else:
            count, value, reached = enough_iterations(iterate, residual, guess, budget, known is not None)
        guesses[name] = count
        facts[name] = {"iterations": count, "residual": value}
        if not reached:
            facts[name]["note"] = f"stopped before the goal of {GOAL:g}: its time is a lower bound"
            stopped.append(name)
        # Who does not get there has no time to be known well.
        group = calls if probe * count < LONG else slow if probe * count < VERY_LONG else very_slow
        group = group if reached else very_slow
        group[name] = lambda iterate=iterate, count=count: iterate(count)
    if with_direct and peers.installed("deepinv"):
        default = peers.deepinv_default(y, weight, DAMP_SQUARED)
        seconds, x = timed(default)
        value = residual(x)
        rows.append(
            measured(
                case,
                DEFAULT,
                [seconds],
                residual=value,
                reported="nothing",
                # It asks itself for 1e-4.
                silent_failures=int(value > 1e-4),
                note="50 iterations at most, tolerance 1e-4",
                **common,
            )
        )
        show(rows[-1])
    seconds = interleaved(calls, runs=given.runs(RUNS), warmup=1, settle=not given.quick)
    for group, runs in ((slow, 2), (very_slow, 1)):
        seconds |= interleaved(group, runs=given.runs(runs), warmup=0, settle=not given.quick) if group else {}
    timings = compared(case, seconds, "FFT round trip", facts, **common)
    for row in timings:
        if row["contender"] in stopped:
            row["status"] = "stopped"
    return rows + timings


def bounds_of(rows: list[Row], case: str) -> list[Row]:
    """How many times faster ours is, from the kernel to the answer."""
    here = {row["contender"]: row for row in rows if row["case"] == case and "seconds" in row}
    mine = here["convpinv auto, with preparation"]["seconds"]["median"]

    def bound(who: str, names: list[str], limit: float) -> Row:
        timed_rows = [here[name] for name in names if name in here]
        # Who did not get there took at least as long; who did is better known.
        arrived = [row for row in timed_rows if row["status"] == "measured" and row["residual"] <= GOAL]
        medians = [row["seconds"]["median"] for row in arrived or timed_rows]
        value = (min if arrived else max)(medians) / mine if medians else None
        found = at_least(f"times faster than {who}, {case}", value, limit)
        if medians and not arrived:
            found["sentence"] += " (a lower bound: it did not get there)"
            found["holds"] = True if found["holds"] else None
        return found

    defaults = [name for name in (DIRECT, DEFAULT) if name in here]
    return [
        bound("deepinv's best solver with use_fft", [f"deepinv Blur {s}, use_fft" for s in DEEPINV_SOLVERS], 8),
        *([bound("deepinv's default solver and convolution", defaults, 20)] if defaults else []),
        bound(PYLOPS, [PYLOPS], 8),
        bound(SCIPY, [SCIPY], 8),
    ]


def main() -> None:
    given = options(__doc__)
    cases = [
        ("line", line(), 256, torch.float32),
        ("line", line(), 256, torch.float64),
        ("camera shake", shake(), 256, torch.float32),
        ("line", line(), 1024, torch.float32),
    ]
    if given.quick:
        cases = [("line", line(), 48, torch.float32)]
    rows: list[Row] = []
    bounds: list[Row] = []
    guesses: dict[str, dict[str, int]] = {}
    for name, kernel, side, dtype in cases:
        case = f"{name} 25 x 25, {side}², {str(dtype).removeprefix('torch.')}"
        budget = 1.0 if given.quick else 8.0 if side <= 256 else 25.0
        rows += rows_of(
            case,
            kernel,
            side,
            dtype,
            given,
            guesses.setdefault(name, {}),
            budget,
        )
        bounds += bounds_of(rows, case)
        # After every case: the minutes of the first are not lost where the last is cut short.
        write(
            "valid_motion",
            "A valid motion blur is undone several times faster than by the iterations of other libraries.",
            rows,
            given,
            bounds,
        )


if __name__ == "__main__":
    main()
