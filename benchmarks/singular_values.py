"""Claim: the norm of a circular layer costs a fraction of its singular values, and those half of the published code.

64 → 64 channels, 3×3, 64×64, double precision. The reference is the code that Sedghi, Gupta and Long published with
"The singular values of convolutional layers" (ICLR 2019): ``numpy.fft.fft2`` of the kernel to the size of the picture,
``numpy.linalg.svd(..., compute_uv=False)`` of the matrix of every frequency. Agreement is relative to σ₁.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch

from convpinv import Conv2dOperator
from harness import interleaved, median_ratio, write

LAYERS = ((64, 64, 3, 64), (16, 16, 5, 64), (3, 64, 7, 64))  # Cin, Cout, taps, size


def published(kernel: np.ndarray, size: int) -> np.ndarray:
    """Their function, for a kernel (taps, taps, Cin, Cout)."""
    transforms = np.fft.fft2(kernel, (size, size), axes=[0, 1])
    return np.linalg.svd(transforms, compute_uv=False)


def main() -> None:
    torch.set_num_threads(2)
    rows = []
    for inputs, outputs, taps, size in LAYERS:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(outputs, inputs, taps, taps, generator=generator, dtype=torch.float64)
        weight = weight / (inputs * taps**2) ** 0.5
        operator = Conv2dOperator(weight, size, padding="same", padding_mode="circular")
        kernel = np.ascontiguousarray(weight.permute(2, 3, 1, 0).numpy())
        expected = np.sort(published(kernel, size).ravel())[::-1]
        values = operator.svdvals().numpy()
        error = float(np.abs(values - expected).max() / expected[0])
        norm_error = abs(operator.norm() / expected[0] - 1)
        seconds = interleaved(
            {
                "published": lambda k=kernel, n=size: published(k, n),
                "svdvals": operator.svdvals,
                "norm": operator.norm,
            },
            runs=7,
            warmup=1,
        )
        ratios = {name: 1 / median_ratio(seconds, name, "published") for name in ("svdvals", "norm")}
        reference = statistics.median(seconds["published"])
        print(
            f"{inputs} → {outputs} channels, {taps}×{taps}, {size}²: published {reference:.2f} s; svdvals "
            f"{ratios['svdvals']:.1f} times faster, error {error:.0e}; norm {ratios['norm']:.1f} times faster, "
            f"error {norm_error:.0e}"
        )
        rows.append(
            {
                "layer": (inputs, outputs, taps, size),
                "published_s": reference,
                "svdvals_speedup": ratios["svdvals"],
                "svdvals_error": error,
                "norm_speedup": ratios["norm"],
                "norm_error": norm_error,
            }
        )
    write("singular_values", rows)


if __name__ == "__main__":
    main()
