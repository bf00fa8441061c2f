"""Claim: time grows as the picture does: the prepared pseudo-inverse and ``deblur`` with its default prior.

Log-log slope of the median time against the number of pixels, by least squares over sizes from 256². A circular 3 × 3
kernel for the pseudo-inverse, with the FFT round trip beside it, whose own slope is that of the machine's caches; a
line of 25 pixels and 1 % of noise for ``deblur``. float32, one picture, one channel.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch

import convpinv
from convpinv import Conv2dOperator
from deblur_speed import blurred
from harness import Row, at_most, compared, interleaved, options, timed, write

ROUND_TRIP, APPLY, DEBLUR = "FFT round trip", "convpinv, prepared circular", "convpinv deblur, prior tv"
LIMIT = 1.1


def slope(rows: Sequence[Row], contender: str) -> float:
    """Slope of log time against log pixels."""
    found = [row for row in rows if row["contender"] == contender]
    pixels = [2 * math.log(row["side"]) for row in found]
    seconds = [math.log(row["seconds"]["median"]) for row in found]
    return statistics.linear_regression(pixels, seconds).slope


def main() -> None:
    given = options(__doc__)
    rows: list[Row] = []
    line = torch.tensor([[0.2, 0.6, 0.2]])
    kernel = (line.mT @ line)[None, None]
    for side in (64, 128) if given.quick else (256, 512, 1024, 2048, 4096, 8192):
        x = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
        pinv = Conv2dOperator(kernel, side, padding="same", padding_mode="circular").pinv()
        seconds = interleaved(
            {
                ROUND_TRIP: lambda x=x, s=side: torch.fft.irfft2(torch.fft.rfft2(x), s=(s, s)),
                APPLY: lambda p=pinv, x=x: p(x),
            },
            runs=given.runs(51 if side <= 1024 else 7),
            warmup=3 if side <= 1024 else 1,
        )
        rows += compared(f"{side}²", seconds, ROUND_TRIP, side=side, dtype="float32")
    for side in (64, 96) if given.quick else (256, 512, 1024, 2048, 4096):
        y, psf, _ = blurred(side)
        y, psf = y.astype(np.float32), psf.astype(np.float32)
        runs = given.runs(5 if side <= 1024 else 1)
        if side <= 1024:
            convpinv.deblur(y, psf)
        found = [timed(lambda y=y, psf=psf: convpinv.deblur(y, psf))[0] for _ in range(runs)]
        rows += compared(f"{side}²", {DEBLUR: found}, DEBLUR, side=side, dtype="float32")
    largest = max(row["side"] for row in rows if row["contender"] == DEBLUR)
    write(
        "growth",
        "Time grows as the picture does: the prepared pseudo-inverse and deblur with its default prior.",
        rows,
        given,
        [
            at_most(f"slope of {ROUND_TRIP} itself, for comparison", slope(rows, ROUND_TRIP), LIMIT),
            at_most(f"slope of {APPLY}", slope(rows, APPLY), LIMIT),
            at_most(f"slope of {DEBLUR}, up to {largest}²", slope(rows, DEBLUR), LIMIT),
        ],
    )


if __name__ == "__main__":
    main()
