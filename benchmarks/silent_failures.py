"""Claim: where an answer of ours is wrong the caller is told; how often peers say nothing stands beside it.

Pictures of 16 × 16, double precision, data ``y = A x`` without noise: the exact answer ``A⁺y`` is that of the dense
matrix, made of torch's own layer. An answer further than 1 % from it is wrong, and silent where nothing was said: no
error, no warning, no flag of failure. Peers are called with their defaults and, where they have several solvers, with
each.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import peers
from convpinv import Conv2dOperator, psf
from harness import Row, at_most, measured, missing, options, show, write

SIDE = 16
WRONG = 1e-2
MODES = {"valid": "zeros", "circular": "circular", "reflect": "reflect", "replicate": "replicate"}
Answer = tuple[Tensor, str]
Contender = Callable[[Tensor, Tensor, str, Tensor], Answer]


def kernels() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "random 3 x 3": torch.randn(3, 3, generator=generator, dtype=torch.float64),
        "random 4 x 4": torch.randn(4, 4, generator=generator, dtype=torch.float64),
        "random 1 x 4": torch.randn(1, 4, generator=generator, dtype=torch.float64),
        "gaussian, σ = 0.7": psf.gaussian(0.7).double(),
        "line of 7 pixels": psf.motion(7, 30).double(),
    }


def padding_of(kernel: Tensor, boundary: str) -> tuple[int, int, int, int]:
    """Left, right, top, bottom, of a picture whose blur has its size; the larger half comes last, as for torch."""
    if boundary == "valid":
        return (0, 0, 0, 0)
    rows, columns = (size - 1 for size in kernel.shape)
    return (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)


def matrix_of(kernel: Tensor, boundary: str) -> Tensor:
    """The dense matrix, column by column through torch's own padding and convolution."""
    pixels = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    mode = "constant" if boundary == "valid" else MODES[boundary]
    padded = F.pad(pixels, padding_of(kernel, boundary), mode=mode)
    return F.conv2d(padded, kernel[None, None]).flatten(1).mT


def ours(solver: str) -> Contender:
    def run(y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor) -> Answer:
        padding = 0 if boundary == "valid" else "same"
        operator = Conv2dOperator(kernel[None, None], SIDE, padding=padding, padding_mode=MODES[boundary])
        solution = operator.pinv(solver=solver).solve(y)
        return solution.value, "success" if solution.status.is_success else "failure"

    return run


class OtherOperatorError(Exception):
    """The peer's operator is another one: another convention, or none for this boundary."""


def deepinv_solver(solver: str) -> Contender:
    """``Blur.A_dagger`` on the same matrix: its kernel shifted to where it takes the centre of an even one."""

    def run(y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor) -> Answer:
        physics = peers.deepinv().physics.Blur(filter=peers.deepinv_kernel(kernel), padding=boundary)
        probe = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        expected = (matrix @ probe.flatten()).reshape(y.shape)
        if not torch.allclose(physics.A(probe), expected):
            # Another centre is another convention, not a failure: its own data are inverted.
            raise OtherOperatorError
        return physics.A_dagger(y, solver=solver), "nothing"

    return run


def pylops_division(y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor) -> Answer:
    """``operator / y``, which is how their documentation inverts."""
    if boundary != "valid":
        raise OtherOperatorError
    operator = peers.pylops_operator(kernel, (SIDE, SIDE))
    return torch.from_numpy(np.asarray(operator / y.numpy().ravel())), "nothing"


def scipy_lsmr(y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor) -> Answer:
    """LSMR with its default tolerances; istop 1 and 2 are its words for success."""
    found = importlib.import_module("scipy.sparse.linalg").lsmr(matrix.numpy(), y.numpy().ravel())
    return torch.from_numpy(found[0]), "success" if found[1] in (0, 1, 2, 4, 5) else "failure"


def deepinv_fft_in_double(y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor) -> Answer:
    """``BlurFFT`` brought to double precision as every module of torch is."""
    if boundary != "circular":
        raise OtherOperatorError
    physics = peers.deepinv().physics.BlurFFT(img_size=(1, SIDE, SIDE), filter=peers.deepinv_kernel(kernel).float())
    probe = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    if not torch.allclose(physics.A(probe).flatten(), matrix.float() @ probe.flatten(), atol=1e-4):
        raise OtherOperatorError
    return physics.to(torch.float64).A_dagger(y), "nothing"


CONTENDERS: dict[str, tuple[str, Contender]] = {
    "convpinv auto": ("convpinv", ours("auto")),
    "convpinv krylov": ("convpinv", ours("krylov")),
    **{
        f"deepinv Blur.A_dagger, {solver}": ("deepinv", deepinv_solver(solver))
        for solver in ("CG", "lsqr", "minres", "BiCGStab")
    },
    "deepinv BlurFFT.to(float64).A_dagger": ("deepinv", deepinv_fft_in_double),
    "PyLops operator / y": ("pylops", pylops_division),
    "SciPy LSMR, default tolerances": ("scipy", scipy_lsmr),
}


def outcome(run: Contender, y: Tensor, kernel: Tensor, boundary: str, matrix: Tensor, exact: Tensor) -> Row | None:
    """What one contender gave in one case; None where its operator is another one."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value, reported = run(y, kernel, boundary, matrix)
        except OtherOperatorError:
            return None
        except Exception as error:
            return {"figures": {"raised": type(error).__name__}, "reported": "failure", "silent_failures": 0}
    if any(issubclass(warning.category, (UserWarning, RuntimeWarning)) for warning in said):
        reported = "failure"
    error = float((value.flatten() - exact).norm() / exact.norm())
    wrong = not error <= WRONG
    finite = {"error": error} if np.isfinite(error) else {"figures": {"finite": False}}
    return {**finite, "reported": reported, "silent_failures": int(wrong and reported != "failure")}


def main() -> None:
    given = options(__doc__)
    rows: list[Row] = []
    for name, kernel in kernels().items() if not given.quick else [next(iter(kernels().items()))]:
        for boundary in MODES if not given.quick else ("valid",):
            case = f"{name}, {boundary}"
            matrix = matrix_of(kernel, boundary)
            x = torch.rand(SIDE**2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
            size = (1, 1, SIDE - kernel.shape[0] + 1, SIDE - kernel.shape[1] + 1) if boundary == "valid" else None
            y = (matrix @ x).reshape(size or (1, 1, SIDE, SIDE))
            exact = torch.linalg.pinv(matrix) @ y.flatten()
            for contender, (package, run) in CONTENDERS.items():
                if not peers.installed(package):
                    rows.append(missing(case, contender, package))
                    continue
                found = outcome(run, y, kernel, boundary, matrix, exact)
                if found is not None:
                    rows.append(measured(case, contender, side=SIDE, dtype="float64", **found))
                    show(rows[-1])
    bounds = [
        at_most(
            f"silent failures of {contender}",
            sum(row.get("silent_failures", 0) for row in rows if row["contender"] == contender),
            0,
        )
        for contender in ("convpinv auto", "convpinv krylov")
    ]
    for contender in CONTENDERS:
        mine = [row for row in rows if row["contender"] == contender and row["status"] == "measured"]
        print(f"{contender}: {sum(row['silent_failures'] for row in mine)} silent failures of {len(mine)}")
    write(
        "silent_failures",
        "Where an answer of ours is wrong the caller is told; how often peers say nothing stands beside it.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
