"""Claim: a circular pseudo-inverse, prepared once, costs little more than the two FFTs it is made of.

Interleaved medians against ``irfft2(rfft2(x))`` of the same float32 tensor, one kernel for all channels, with the
relative error of the result beside the time.
"""

from __future__ import annotations

from typing import Any

import torch

import peers
from convpinv import Conv2dOperator
from harness import at_most, compared, interleaved, median_ratio, missing, options, write

SHAPES = ((16, 3, 256, 256), (1, 3, 1024, 1024), (1, 1, 4096, 4096))
QUICK_SHAPES = ((2, 3, 64, 64), (1, 1, 128, 128))
LIMIT = 1.10


def main() -> None:
    given = options(__doc__)
    rows, bounds = [], []
    # A blur that can be undone in single precision: condition number near 5 along each axis.
    line = torch.tensor([[0.2, 0.6, 0.2]])
    kernel = line.mT @ line
    for shape in QUICK_SHAPES if given.quick else SHAPES:
        size = (shape[-2], shape[-1])
        case = f"{shape} float32"
        x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        operator = Conv2dOperator(kernel[None, None], size, padding="same", padding_mode="circular")
        pinv = operator.pinv()
        y = operator(x)
        error = float((pinv(y) - x).norm() / x.norm())
        calls: dict[str, Any] = {
            "FFT round trip": lambda y=y, s=size: torch.fft.irfft2(torch.fft.rfft2(y), s=s),
            "convpinv": lambda p=pinv, y=y: p(y),
        }
        errors = {"convpinv": error}
        if peers.installed("deepinv"):
            channels = (shape[1], *size)
            theirs = peers.deepinv().physics.BlurFFT(img_size=channels, filter=peers.deepinv_kernel(kernel))
            calls["deepinv BlurFFT.A_dagger"] = lambda p=theirs, y=y: p.A_dagger(y)
            errors["deepinv BlurFFT.A_dagger"] = float((theirs.A_dagger(y) - x).norm() / x.norm())
        else:
            rows.append(missing(case, "deepinv BlurFFT.A_dagger", "deepinv"))
        seconds = interleaved(calls, runs=given.runs(61 if max(shape) < 4096 else 11))
        facts = {name: {"error": value} for name, value in errors.items()}
        rows += compared(case, seconds, "FFT round trip", facts, side=shape[-1], dtype="float32")
        ratio = median_ratio(seconds, "convpinv", "FFT round trip")
        bounds.append(at_most(f"prepared apply in round trips, {case}", ratio, LIMIT))
    write(
        "prepared_circular",
        "A circular pseudo-inverse, prepared once, costs little more than the two FFTs it is made of.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
