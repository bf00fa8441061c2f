"""Claim: hard boundaries are solved directly, to rounding, in a fraction of what LSMR takes to get as far.

Random 5×5 kernels at 128² and a 15-pixel line at 256², *same* padding, damp² = 1e-4 and 1e-8 for an operator of norm 1.
LSMR is SciPy's, on the same operator's application and adjoint, for at most 1500 iterations. Residuals are those of the
normal equations. The direct solver's time for one picture includes preparing; for a batch of 64 it is that of
everything divided by 64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsmr
from torch import Tensor

from convpinv import Conv2dOperator, psf
from harness import write

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


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def by_lsmr(operator: Conv2dOperator, y: Tensor, damp: float) -> tuple[Tensor, int]:
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
    found = lsmr(matrix, y.numpy().ravel(), damp=damp, atol=1e-14, btol=1e-14, conlim=0, maxiter=MOST_ITERATIONS)
    return torch.from_numpy(found[0]).reshape(operator.in_shape), found[2]


def main() -> None:
    torch.set_num_threads(2)
    rows = []
    for name, weight, size, mode in cases():
        padding = weight.shape[-1] // 2
        norm = Conv2dOperator(weight, size, padding=padding, padding_mode=mode).norm()
        operator = Conv2dOperator(weight / norm, size, padding=padding, padding_mode=mode)
        generator = torch.Generator().manual_seed(1)
        y = torch.randn(BATCH, *operator.out_shape, dtype=torch.float64, generator=generator)
        operator.pinv(damp=0.1)(y[0])  # the first use of a size of FFT sets it up
        for damp_squared in (1e-4, 1e-8):
            damp = damp_squared**0.5

            def residual(x: Tensor, data: Tensor, a: Conv2dOperator = operator, d: float = damp_squared) -> float:
                return float((a.H(data - a(x)) - d * x).norm() / a.H(data).norm())

            one_s, one = timed(lambda a=operator, d=damp, data=y[0]: a.pinv(damp=d)(data))
            all_s, _ = timed(lambda a=operator, d=damp, data=y: a.pinv(damp=d)(data))
            lsmr_s, (iterated, iterations) = timed(lambda a=operator, d=damp, data=y[0]: by_lsmr(a, data, d))
            row = {
                "case": f"{name}, {mode}, {size}²",
                "damp_squared": damp_squared,
                "solver": operator.plan(damp=damp).solver.name,
                "residual": residual(one, y[0]),
                "seconds": one_s,
                "seconds_a_picture_of_64": all_s / BATCH,
                "lsmr_residual": residual(iterated, y[0]),
                "lsmr_iterations": iterations,
                "lsmr_seconds": lsmr_s,
                "speedup": lsmr_s / one_s,
                "speedup_a_picture_of_64": lsmr_s / (all_s / BATCH),
            }
            print(
                f"{row['case']}, damp² = {damp_squared:g}: {one_s:.2f} s to {row['residual']:.0e}; "
                f"LSMR {iterations} iterations, {lsmr_s:.1f} s to {row['lsmr_residual']:.0e}; "
                f"{row['speedup']:.0f} times faster, {row['speedup_a_picture_of_64']:.0f} times in a batch of 64",
                flush=True,
            )
            rows.append(row)
    write("hard_boundaries", rows)


if __name__ == "__main__":
    main()
