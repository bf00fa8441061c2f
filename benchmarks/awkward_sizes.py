"""Claim: a picture of prime sides costs hardly more than one of the next fast size.

A Gaussian of 2 pixels, circular, float32, ``damp = 0.1``: the prepared pseudo-inverse of the automatic choice at a
prime side and at the next one that the FFT likes, the same by one FFT of the whole picture (``"fourier"``), and the
round trip ``irfft2(rfft2(x))`` at both. Interleaved medians; beside them the relative error, to the damped inverse in
double precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator, psf
from convpinv.linalg import fast_size
from harness import at_most, compared, interleaved, median_ratio, options, write

SIDES = (1021, 2039, 4099)
DAMP = 0.1


def operator(side: int, dtype: torch.dtype) -> Conv2dOperator:
    """The blur."""
    kernel = psf.gaussian(2.0).to(dtype)[None, None]
    return Conv2dOperator(kernel, side, padding="same", padding_mode="circular")


def round_trip(x: Tensor) -> Tensor:
    """What every figure is measured against."""
    return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


def main() -> None:
    given = options(__doc__)
    rows, bounds = [], []
    for prime in (61,) if given.quick else SIDES:
        fast = fast_size(prime)
        calls: dict[str, Any] = {}
        facts: dict[str, dict[str, Any]] = {}
        for side in (prime, fast):
            y = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
            exact = operator(side, torch.float64).pinv(damp=DAMP, solver="fourier")(y.double())
            for name, solver in (("convpinv auto", "auto"), ("convpinv, one FFT", "fourier")):
                pinv = operator(side, torch.float32).pinv(damp=DAMP, solver=solver)
                calls[f"{name}, {side}²"] = lambda p=pinv, y=y: p(y)
                error = float((pinv(y) - exact).norm() / exact.norm())
                facts[f"{name}, {side}²"] = {"side": side, "error": error, "note": f"solver {pinv.plan.solver.name}"}
            calls[f"FFT round trip, {side}²"] = lambda y=y: round_trip(y)
            facts[f"FFT round trip, {side}²"] = {"side": side}
        seconds = interleaved(calls, runs=given.runs(9), warmup=2)
        case = f"{prime}² beside {fast}², float32"
        rows += compared(case, seconds, f"FFT round trip, {fast}²", facts, dtype="float32")
        ratio = median_ratio(seconds, f"convpinv auto, {prime}²", f"convpinv auto, {fast}²")
        bounds.append(at_most(f"a prime side in the next fast one, {case}", ratio, 1.3))
    write(
        "awkward_sizes",
        "A picture of prime sides costs hardly more than one of the next fast size.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
