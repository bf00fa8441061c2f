"""Claim: the automatic choice of a solver takes hardly longer than the quickest solver would.

Damped problems drawn at random from all borders that the discrete Fourier transform does not diagonalise, sides from 12
to 256, one to four channels, as many or not at both ends, strides 1 and 2, random kernels, a Gaussian and a line,
damping from 1e-6 to 0.2 of σ₁, both precisions. Every solver that serves is timed, preparing and applying apart (the
shortest of up to five), and what one application and what a hundred take in all is compared with what was chosen for as
many. A choice that brings no answer counts as if the limit of 12 s an application had been waited for; a case in which
nothing brings one has no row.

The rows hold what forecasts are fitted to (``convpinv/linalg/solvers``): seconds, iterations, and what was foretold.
"""

from __future__ import annotations

import itertools
import math
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator, psf
from convpinv.linalg.solvers.choose import SOLVERS
from harness import SUMMARY, Row, at_most, measured, options, show, write

CASES = 80
APPLICATIONS = (1, 100)
MOST_SECONDS = 12.0
BORDERS: dict[str, dict[str, Any]] = {
    "valid": {},
    "full": {},
    "zeros": {"padding_mode": "zeros"},
    "reflect": {"padding_mode": "reflect"},
    "replicate": {"padding_mode": "replicate"},
}
SIDES = (12, 16, 24, 32, 64, 128, 256)
KERNELS = ("random 3x3", "random 5x5", "Gaussian 9x9", "line 15")
DAMPS = (1e-6, 1e-3, 1e-2, 5e-2, 0.2)
CHANNELS = ((1, 1), (2, 2), (4, 4), (1, 2), (3, 1))
# Matrices and border matrices that would take minutes are not waited for.
MOST_UNKNOWNS = 2048
MOST_FORECAST = 8.0


class TooLateError(Exception):
    """The time is over."""


@contextmanager
def at_most_seconds(seconds: float) -> Iterator[None]:
    """Break off what takes longer, at the next step of Python."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TooLateError

    previous = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def weight_of(kernel: str, inputs: int, outputs: int) -> Tensor:
    """Kernels of norm 1 at random, blurs of sum 1."""
    if kernel.startswith("random"):
        side = int(kernel[-1])
        weight = torch.randn(outputs, inputs, side, side, generator=torch.Generator().manual_seed(side))
        return weight / weight.norm()
    blur = psf.gaussian(1.5, size=9) if kernel.startswith("Gaussian") else psf.motion(15, 30.0)
    return blur.float()[None, None]


def problems(count: int) -> Iterator[tuple[str, Conv2dOperator, float]]:
    """Name, operator and damping."""
    every = list(itertools.product(BORDERS, SIDES, CHANNELS, (1, 2), KERNELS, DAMPS, (torch.float32, torch.float64)))
    random.Random(0).shuffle(every)
    found = 0
    for border, side, channels, stride, kernel, damp, dtype in every:
        weight = weight_of(kernel, *channels).to(dtype)
        reach = weight.shape[-2] - 1, weight.shape[-1] - 1
        if (channels != (1, 1) and not kernel.startswith("random")) or side <= max(reach):
            continue
        padding = {"valid": (0, 0), "full": reach}.get(border, (reach[0] // 2, reach[1] // 2))
        operator = Conv2dOperator(weight, side, stride=stride, padding=padding, **BORDERS[border])
        largest = float(torch.fft.rfft2(weight, s=(64, 64)).abs().square().sum((0, 1)).max().sqrt())
        precision = str(dtype).removeprefix("torch.")
        sizes = f"{side}², {channels[0]} → {channels[1]}, stride {stride}"
        name = f"{kernel}, {border}, {sizes}, damp {damp:g}·σ₁, {precision}"
        yield name, operator, damp * largest
        found += 1
        if found == count:
            return


def seconds_of(operator: Conv2dOperator, damp: float, solver: str, y: Tensor) -> tuple[float, float, Any] | None:
    """Seconds to prepare and to apply, and how it went; None where no answer came."""
    prepared, applied = [], []
    try:
        with at_most_seconds(MOST_SECONDS):
            while True:
                start = time.perf_counter()
                inverse = operator.pinv(damp=damp, solver=solver)
                middle = time.perf_counter()
                solution = inverse.solve(y)
                prepared.append(middle - start)
                applied.append(time.perf_counter() - middle)
                if len(prepared) == 4 or sum(prepared) > 0.6:
                    break
            while len(applied) < 5 and sum(applied) < 1.0:
                start = time.perf_counter()
                inverse.solve(y)
                applied.append(time.perf_counter() - start)
    except TooLateError:
        return None
    return (min(prepared), min(applied), solution) if solution.status.is_success else None


def rows_of(name: str, operator: Conv2dOperator, damp: float) -> tuple[list[Row], dict[int, float]]:
    """A row for each solver that serves, and for each number of applications how much longer the chosen one takes."""
    problem = operator.plan(damp=damp).problem
    y = operator(torch.randn(operator.in_shape, generator=torch.Generator().manual_seed(1)).to(operator.dtype))
    chosen = {count: operator.plan(damp=damp, applications=count).solver.name for count in APPLICATIONS}
    found: dict[str, tuple[float, float, Any]] = {}
    failed: set[str] = set()
    rows: list[Row] = []
    for solver in SOLVERS:
        if solver.refuses(problem) is not None:
            continue
        forecast = solver.forecast(problem)
        if forecast is None or forecast.prepare > MOST_FORECAST:
            continue
        if solver.name == "dense" and max(map(math.prod, (operator.in_shape, operator.out_shape))) > MOST_UNKNOWNS:
            continue
        measurement = seconds_of(operator, damp, solver.name, y)
        if measurement is None:
            failed.add(solver.name)
            continue
        found[solver.name] = measurement
        prepare, apply, solution = measurement
        figures = {"apply_seconds": apply, "forecast_prepare": forecast.prepare, "forecast_apply": forecast.apply}
        rows.append(
            measured(
                name,
                f"convpinv {solver.name}",
                [prepare],
                iterations=solution.iterations,
                figures={**figures, **{f"chosen_for_{count}": float(chosen[count] == solver.name) for count in chosen}},
            )
        )
    longer = {}
    for count, solver in chosen.items():
        totals = {who: prepare + count * apply for who, (prepare, apply, _) in found.items()}
        if totals and solver in (*found, *failed):  # no answer counts as if the time had been waited for
            longer[count] = totals.get(solver, count * MOST_SECONDS) / min(totals.values())
    return rows, longer


def main() -> None:
    given = options(__doc__)
    rows: list[Row] = []
    longer: dict[int, list[float]] = {count: [] for count in APPLICATIONS}
    for name, operator, damp in problems(3 if given.quick else CASES):
        mine, ratios = rows_of(name, operator, damp)
        rows.extend(mine)
        for count, ratio in ratios.items():
            longer[count].append(ratio)
        print(name, {count: f"{ratio:.2f}" for count, ratio in ratios.items()}, flush=True)
    bounds = []
    for count, ratios in longer.items():
        words = f"{count} applications" if count > 1 else "one application"
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        tenth = sorted(ratios)[int(0.9 * len(ratios))]
        figures = {"geometric_mean": mean, "nine_of_ten": tenth, "worst": max(ratios), "problems": len(ratios)}
        rows.append(measured(SUMMARY, f"chosen for {words}, times the quickest", figures=figures))
        show(rows[-1])
        bounds.append(at_most(f"times the quickest, geometric mean, {words}", mean, 1.5))
        bounds.append(at_most(f"times the quickest, in nine cases of ten, {words}", tenth, 4.0))
    sentence = "The automatic choice of a solver takes hardly longer than the quickest solver would."
    write("automatic_choice", sentence, rows, given, bounds)


if __name__ == "__main__":
    main()
