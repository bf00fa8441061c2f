"""Claim: the norm of a circular layer costs a fraction of its singular values, and those half of the published code.

64 → 64 channels, 3×3, 64×64, double precision. The reference is the code that Sedghi, Gupta and Long published with
"The singular values of convolutional layers" (ICLR 2019): ``numpy.fft.fft2`` of the kernel to the size of the picture,
``numpy.linalg.svd(..., compute_uv=False)`` of the matrix of every frequency. Agreement is relative to σ₁.
"""

from __future__ import annotations

import numpy as np
import torch

from convpinv import Conv2dOperator
from harness import at_least, compared, interleaved, median_ratio, options, write

PUBLISHED = "NumPy code of Sedghi, Gupta and Long"
LAYERS = ((64, 64, 3, 64), (16, 16, 5, 64), (3, 64, 7, 64))  # Cin, Cout, taps, size


def published(kernel: np.ndarray, size: int) -> np.ndarray:
    """Their function, for a kernel (taps, taps, Cin, Cout)."""
    transforms = np.fft.fft2(kernel, (size, size), axes=[0, 1])
    return np.linalg.svd(transforms, compute_uv=False)


def main() -> None:
    given = options(__doc__)
    rows, bounds = [], []
    for inputs, outputs, taps, size in LAYERS if not given.quick else ((3, 4, 3, 16),):
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
                PUBLISHED: lambda k=kernel, n=size: published(k, n),
                "svdvals": operator.svdvals,
                "norm": operator.norm,
            },
            runs=given.runs(7),
            warmup=1,
        )
        case = f"{inputs} → {outputs} channels, {taps} x {taps}, {size}²"
        facts = {"svdvals": {"error": error}, "norm": {"error": norm_error}}
        rows += compared(case, seconds, PUBLISHED, facts, side=size, dtype="float64")
        faster = 1 / median_ratio(seconds, "svdvals", PUBLISHED)
        bounds.append(at_least(f"svdvals, times faster than the published code, {case}", faster, 1))
    write(
        "singular_values",
        "The norm of a circular layer costs a fraction of its singular values, and those less than the published code.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
