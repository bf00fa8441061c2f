"""Claim: hard boundaries are solved directly, to rounding, in a fraction of what LSMR takes to get as far.

Random 5×5 kernels at 128² and a 15-pixel line at 256², *same* padding, damp² = 1e-4 and 1e-8 for an operator of norm 1.
LSMR is SciPy's, on the same operator's application and adjoint, for at most 1500 iterations. Residuals are those of the
normal equations. The direct solver's time for one picture includes preparing; for a batch of 64 it is that of
everything divided by 64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

from convpinv import Conv2dOperator, psf
from harness import at_least, measured, options, show, timed, write

BATCH = 64
MOST_ITERATIONS = 1500


def cases() -> list[tuple[str, Tensor, int, str]]:
    """Name, weight, size and boundary."""
    random = torch.randn(1, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    line = psf.motion(15, 30.0).double()
    margin = [(15 - size) // 2 for size in line.shape]
    line = torch.nn.functional.pad(line, (margin[1], margin[1], margin[0], margin[0]))[None, None]
    found = [("random 5x5", random, 128, mode) for mode in ("zeros", "reflect", "replicate")]
    return [*found, ("line 15x15", line, 256, "reflect")]


def by_lsmr(operator: Conv2dOperator, y: Tensor, damp: float, most: int) -> tuple[Tensor, int]:
    """Solution and iterations, as far as rounding lets it go."""

    def lift(apply: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda vector: apply(torch.from_numpy(np.ascontiguousarray(vector)).reshape(shape)).numpy().ravel()

    size = y.numel()

    class Lifted(LinearOperator):
        """The operator on vectors."""

        def __init__(self) -> None:
            super().__init__(np.dtype(np.float64), (size, size))

        def _matvec(self, x: np.ndarray) -> np.ndarray:
            return lift(operator, operator.in_shape)(x)

        def _rmatvec(self, x: np.ndarray) -> np.ndarray:
            return lift(operator.H, operator.out_shape)(x)

    matrix = Lifted()
    found = lsmr(matrix, y.numpy().ravel(), damp=damp, atol=1e-14, btol=1e-14, conlim=0, maxiter=most)
    return torch.from_numpy(found[0]).reshape(operator.in_shape), found[2]


def main() -> None:
    given = options(__doc__)
    batch, most = (2, 20) if given.quick else (BATCH, MOST_ITERATIONS)
    rows, bounds = [], []
    for name, weight, size, mode in cases() if not given.quick else [(*cases()[0][:2], 24, "zeros")]:
        padding = weight.shape[-1] // 2
        norm = Conv2dOperator(weight, size, padding=padding, padding_mode=mode).norm()
        operator = Conv2dOperator(weight / norm, size, padding=padding, padding_mode=mode)
        generator = torch.Generator().manual_seed(1)
        y = torch.randn(batch, *operator.out_shape, dtype=torch.float64, generator=generator)
        operator.pinv(damp=0.1)(y[0])  # the first use of a size of FFT sets it up
        for damp_squared in (1e-4, 1e-8):
            damp = damp_squared**0.5

            def residual(x: Tensor, data: Tensor, a: Conv2dOperator = operator, d: float = damp_squared) -> float:
                return float((a.H(data - a(x)) - d * x).norm() / a.H(data).norm())

            one_s, one = timed(lambda a=operator, d=damp, data=y[0]: a.pinv(damp=d)(data))
            all_s, _ = timed(lambda a=operator, d=damp, data=y: a.pinv(damp=d)(data))
            lsmr_s, (iterated, iterations) = timed(lambda a=operator, d=damp, data=y[0]: by_lsmr(a, data, d, most))
            case = f"{name}, {mode}, {size}², damp² = {damp_squared:g}"
            solver = operator.plan(damp=damp).solver.name
            found = {
                f"convpinv {solver}, with preparation": ([one_s], {"residual": residual(one, y[0])}),
                f"convpinv {solver}, a picture of {batch}": ([all_s / batch], {}),
                "SciPy LSMR": ([lsmr_s], {"residual": residual(iterated, y[0]), "iterations": iterations}),
            }
            for who, (seconds, facts) in found.items():
                ratio = seconds[0] / lsmr_s
                common = {"side": size, "dtype": "float64", "ratio": ratio, "reference": "SciPy LSMR"}
                rows.append(measured(case, who, seconds, **common, **facts))
                show(rows[-1])
            bounds.append(at_least(f"times faster than LSMR, {case}", lsmr_s / one_s, 8))
    write(
        "hard_boundaries",
        "Hard boundaries are solved directly, to rounding, in a fraction of what LSMR takes to get as far.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
