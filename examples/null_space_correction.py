"""Fill in what a measurement does not see, and change nothing of what it does: range-null-space correction.

Any picture x̂ = A⁺y + (I − A⁺A) z explains the data y as well as the pseudo-inverse does, A x̂ = y, whatever z is. So z
may come from anywhere: here it is a smoothed picture, in Wang, Yu and Zhang, "Zero-shot image restoration using
denoising diffusion null-space model" (ICLR 2023), each step of a diffusion model. They take A⁺ for blurs of special
form; here it is that of any convolution: a random 21×21 kernel, and a camera with pixels four times as wide.

Needs nothing but the package:  python examples/null_space_correction.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import convpinv

SIZE = 96
STEPS = 30


def picture(size: int) -> Tensor:
    """Shaded discs on a ramp: edges, flat parts and slopes, values from 0 to 1."""
    rows, columns = torch.meshgrid(*[torch.linspace(0, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    scene = 0.2 + 0.3 * rows
    for row, column, radius, value in ((0.3, 0.3, 0.2, 0.9), (0.65, 0.6, 0.25, 0.1), (0.25, 0.75, 0.12, 0.6)):
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        scene = torch.where(inside, value + 0.1 * columns, scene)
    return scene[None]


def smoothed(image: Tensor) -> Tensor:
    """Stand-in for a denoiser: the mean of 3×3 pixels."""
    return F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="reflect"), 3, stride=1)[0]


def psnr(image: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, full scale 1."""
    return float(-10 * (image - truth).square().mean().log10())


def correct(P: convpinv.PinvOperator, y: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Repeat: smooth, then put back what was measured. Returns x̂ and the last z."""
    seen = P(y)
    result = guess = seen
    for _ in range(steps):
        guess = smoothed(result)
        result = seen + P.project_null(guess)
    return result, guess


def main() -> None:
    """Measure, correct, and print what the correction kept of the data and of the proposals."""
    kernel = torch.randn(1, 1, 21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cameras = {
        # No output reads beyond the picture, so there are fewer of them than pixels: the rest is the null space.
        "random 21×21 kernel, valid": convpinv.Conv2dOperator(kernel / kernel.norm(), SIZE),
        "downsampling by 4": convpinv.Conv2dOperator(torch.full((1, 1, 4, 4), 1 / 16).double(), SIZE, stride=4),
    }
    truth = picture(SIZE)
    for name, A in cameras.items():
        P = A.pinv(tol=1e-13)
        y = A(truth)
        result, guess = correct(P, y, STEPS)
        misfit = float((A(result) - y).norm() / y.norm())
        # What of the result is not seen comes from z, all of it; what is seen owes z nothing.
        foreign = float(P.project_null(result - guess).norm() / guess.norm())
        print(f"{name}: {A.in_shape} → {A.out_shape}")
        without = float((A(guess) - y).norm() / y.norm())
        print(f"    data            ‖A x̂ − y‖ / ‖y‖ = {misfit:.0e}; of z alone {without:.0e}")
        print(f"    null space      ‖(I − A⁺A)(x̂ − z)‖ / ‖z‖ = {foreign:.0e}")
        print(f"    pseudo-inverse  {psnr(P(y), truth):.1f} dB; corrected {psnr(result, truth):.1f} dB")


if __name__ == "__main__":
    main()
