"""Claim: a picture of prime sides costs hardly more than one of the next fast size.

A Gaussian of 2 pixels, circular, float32, ``damp = 0.1``: the prepared inverse of the automatic choice at a prime
side and at the next side that the FFT likes, the same by one FFT of the whole picture (``solver="fourier"``), and the
round trip ``irfft2(rfft2(x))`` at both. Interleaved medians; beside them the relative error, to the damped inverse in
double precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator, psf
from convpinv.linalg import fast_size
from harness import interleaved, median_ratio, write

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
    torch.set_num_threads(2)
    rows = []
    for prime in SIDES:
        calls: dict[str, Any] = {}
        errors, solvers = {}, {}
        for side in (prime, fast_size(prime)):
            y = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
            exact = operator(side, torch.float64).pinv(damp=DAMP, solver="fourier")(y.double())
            for name, solver in (("ours", "auto"), ("whole", "fourier")):
                pinv = operator(side, torch.float32).pinv(damp=DAMP, solver=solver)
                calls[f"{name} {side}"] = lambda p=pinv, y=y: p(y)
                errors[f"{name} {side}"] = float((pinv(y) - exact).norm() / exact.norm())
                solvers[f"{name} {side}"] = pinv.plan.solver.name
            calls[f"round trip {side}"] = lambda y=y: round_trip(y)
        seconds = interleaved(calls, runs=9, warmup=2)
        fast = fast_size(prime)
        row = {
            "prime": prime,
            "fast": fast,
            "solver": solvers[f"ours {prime}"],
            "ours_prime_to_fast": median_ratio(seconds, f"ours {prime}", f"ours {fast}"),
            "whole_prime_to_fast": median_ratio(seconds, f"whole {prime}", f"whole {fast}"),
            "ours_in_round_trips": median_ratio(seconds, f"ours {prime}", f"round trip {prime}"),
            "ours_in_fast_round_trips": median_ratio(seconds, f"ours {prime}", f"round trip {fast}"),
            "relative_error": errors[f"ours {prime}"],
            "relative_error_whole": errors[f"whole {prime}"],
        }
        print(", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
        rows.append(row)
    write("awkward_sizes", rows)


if __name__ == "__main__":
    main()
