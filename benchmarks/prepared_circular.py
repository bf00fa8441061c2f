"""Claim: a circular pseudo-inverse, prepared once, costs little more than the two FFTs it is made of.

Interleaved medians of 20 runs against ``irfft2(rfft2(x))`` of the same float32 tensor, with the relative error of
the result beside the time.
"""

from __future__ import annotations

import statistics

import torch

from convpinv import Conv2dOperator
from harness import interleaved, median_ratio, write

SHAPES = ((16, 3, 256, 256), (1, 3, 1024, 1024))


def main() -> None:
    torch.set_num_threads(2)
    rows = []
    for shape in SHAPES:
        size = shape[-2:]
        x = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
        # A blur that can be undone in single precision: condition number near 5.
        kernel = torch.tensor([[0.2, 0.6, 0.2]])
        kernel = (kernel.mT @ kernel)[None, None]
        operator = Conv2dOperator(kernel, size, padding="same", padding_mode="circular")
        pinv = operator.pinv()
        y = operator(x)
        error = float((pinv(y) - x).norm() / x.norm())
        seconds = interleaved(
            {
                "round trip": lambda y=y, s=size: torch.fft.irfft2(torch.fft.rfft2(y), s=s),
                "pinv": lambda p=pinv, y=y: p(y),
            }
        )
        ratio = median_ratio(seconds, "pinv", "round trip")
        milliseconds = 1e3 * statistics.median(seconds["round trip"])
        print(f"{shape}: {ratio:.2f} round trips of {milliseconds:.1f} ms; relative error {error:.1e}")
        rows.append({"shape": shape, "ratio": ratio, "round_trip_ms": milliseconds, "relative_error": error})
    write("prepared_circular", rows)


if __name__ == "__main__":
    main()
