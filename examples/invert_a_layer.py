"""Undo a convolution layer with zero padding: the x of y = F.conv2d(x, K, padding=1), as exact as the data allow.

K is random with 32 channels in and out, 3×3, and x is 128×128. Zero padding keeps the Fourier transform from doing it,
524288 unknowns keep a matrix from doing it, and iterations stop far away. What is left is the border: the layer is a
periodic convolution but for what happens there, and that is one dense matrix, factored once.

Needs nothing but the package:  python examples/invert_a_layer.py
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F

import convpinv


def main(channels: int = 32, size: int = 128) -> dict[str, float]:
    """Invert a random layer, print what it took, and return the numbers."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(channels, channels, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(1, channels, size, size, generator=generator, dtype=torch.float64)
    y = F.conv2d(x, weight, padding=1)

    operator = convpinv.Conv2dOperator(weight, size, padding=1)
    print("What it will cost, before it does:")
    print(operator.plan(), "\n")

    start = time.perf_counter()
    pinv = operator.pinv()
    prepared = time.perf_counter() - start
    start = time.perf_counter()
    solution = pinv.solve(y)
    applied = time.perf_counter() - start
    error = float((solution.value - x).norm() / x.norm())
    print(f"border: prepared in {prepared:.1f} s, applied in {applied:.2f} s, relative error of x {error:.0e}")

    start = time.perf_counter()
    iterated = operator.pinv(solver="krylov", max_iter=100).solve(y)
    error_iterated = float((iterated.value - x).norm() / x.norm())
    print(
        f"krylov: {iterated.iterations} iterations in {time.perf_counter() - start:.1f} s, relative error of x "
        f"{error_iterated:.0e}; it says of itself: {iterated.status.message}"
    )
    return {"error": error, "error_iterated": error_iterated, "prepared": prepared, "applied": applied}


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
