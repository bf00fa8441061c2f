"""Claim: a circular pseudo-inverse for one picture and a new kernel costs little more than the two FFTs of the picture.

``conv_pinv2d`` from the kernel to the picture, nothing prepared, beside deepinv's ``BlurFFT`` built and its
``A_dagger`` applied, and beside the recipe that people write themselves with complex FFTs. One channel, float32.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

import peers
from convpinv import Conv2dOperator, conv_pinv2d
from harness import at_least, at_most, compared, interleaved, median_ratio, missing, options, write

SIDES = (64, 256, 1024, 4096)
QUICK_SIDES = (32, 64)
# At 64² the FFTs take 50 microseconds, and what Python costs is bounded in microseconds instead.
SMALL = 64
OVERHEAD_LIMIT = 150.0


def main() -> None:
    given = options(__doc__)
    rows, bounds = [], []
    line = torch.tensor([[0.2, 0.6, 0.2]])
    kernel = line.mT @ line
    for side in QUICK_SIDES if given.quick else SIDES:
        size = (side, side)
        case = f"(1, 1, {side}, {side}) float32"
        x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
        y = Conv2dOperator(kernel[None, None], size, padding="same", padding_mode="circular")(x)
        calls: dict[str, Any] = {
            "convpinv": lambda y=y, s=size: conv_pinv2d(
                y, kernel[None, None], s, padding="same", padding_mode="circular"
            ),
            "ten lines, complex FFT": lambda y=y: peers.complex_recipe(y, kernel),
        }
        theirs = "deepinv BlurFFT built, A_dagger"
        if peers.installed("deepinv"):
            blur, filter_ = peers.deepinv().physics.BlurFFT, peers.deepinv_kernel(kernel)
            calls[theirs] = lambda b=blur, f=filter_, y=y, s=size: b(img_size=(1, *s), filter=f).A_dagger(y)
        else:
            rows.append(missing(case, theirs, "deepinv"))
        errors = {name: float((call() - x).norm() / x.norm()) for name, call in calls.items()}
        calls = {"FFT round trip": lambda y=y, s=size: torch.fft.irfft2(torch.fft.rfft2(y), s=s), **calls}
        # Small pictures are over at once, and their medians need more runs to stand still.
        seconds = interleaved(calls, runs=given.runs(201 if side <= 256 else 21 if side < 4096 else 9))
        facts = {name: {"error": value} for name, value in errors.items()}
        rows += compared(case, seconds, "FFT round trip", facts, side=side, dtype="float32")
        if side <= SMALL:
            overhead = 1e6 * (statistics.median(seconds["convpinv"]) - statistics.median(seconds["FFT round trip"]))
            bounds.append(
                at_most(f"microseconds beyond the round trip (of which Python), {case}", overhead, OVERHEAD_LIMIT)
            )
            continue
        bounds.append(
            at_most(f"one-shot in round trips, {case}", median_ratio(seconds, "convpinv", "FFT round trip"), 1.6)
        )
        faster = 1 / median_ratio(seconds, "convpinv", theirs) if theirs in seconds else None
        bounds.append(at_least(f"times faster than deepinv built and applied, {case}", faster, 2.5))
        faster = 1 / median_ratio(seconds, "convpinv", "ten lines, complex FFT")
        bounds.append(at_least(f"times faster than the ten lines, {case}", faster, 1.5))
    write(
        "one_shot_circular",
        "A circular pseudo-inverse for a new kernel costs little more than the two FFTs of the picture.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
