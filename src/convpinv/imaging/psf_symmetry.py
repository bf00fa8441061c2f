"""About which point a PSF is symmetric: the only centre that an array can tell by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# The share of a PSF's energy that may differ from its mirror image. Measured camera shakes: 0.23 and more about their
# best point; lenses and the air: rounding, and the noise, which is reckoned with.
LARGEST_ASYMMETRY = 0.03
# Noise may explain no more than this share of the energy: what it drowns has no symmetry to be found.
LARGEST_NOISE_SHARE = 0.25
LEAST_FOR_NOISE = 9
# What is rougher than this share of the peak is no noise but light that reaches the border.
LARGEST_NOISE = 0.05
# The median of the magnitude of a standard normal variable.
NORMAL_MEDIAN = 0.6744897501960817


@dataclass(frozen=True)
class Symmetry:
    """The point (row, column) about which a PSF is most nearly its own mirror image, and how far it is from being so.

    ``asymmetry`` is ``‖k − k̃‖² / (2 ‖k‖²)`` with ``k̃`` the mirror image, what the noise explains taken off. Rows and
    columns are multiples of one half.
    """

    row: float
    column: float
    asymmetry: float

    @property
    def holds(self) -> bool:
        """Whether the PSF is symmetric about that point."""
        return self.asymmetry <= LARGEST_ASYMMETRY


def linear_symmetry(plane: Tensor, noise: float = 0.0) -> Symmetry:
    """Find the point of symmetry of a PSF (h, w) with nothing outside its array.

    ``Σ_p k[p] k[s − p]`` is largest where ``s`` is twice the point; two FFTs.
    """
    height, width = plane.shape
    size = (2 * height, 2 * width)
    spectrum = torch.fft.rfft2(plane, size)
    products = torch.fft.irfft2(spectrum * spectrum, size)[: 2 * height - 1, : 2 * width - 1]
    return _best(plane, products, noise)


def circular_symmetry(plane: Tensor, noise: float = 0.0) -> Symmetry:
    """Find the point of symmetry of a PSF (h, w) whose array is bent to a torus, as FFT code keeps PSFs.

    A torus has two such points along each axis, half its size apart: the one that the light is nearer to is meant.
    """
    height, width = plane.shape
    spectrum = torch.fft.rfft2(plane)
    products = torch.fft.irfft2(spectrum * spectrum, (height, width))
    found = _best(plane, products, noise)
    row = _nearer(plane.sum(1), found.row)
    column = _nearer(plane.sum(0), found.column)
    return Symmetry(row, column, found.asymmetry)


def border_noise(plane: Tensor) -> float:
    """Return the noise of a PSF along the border of its array: what is rough there, for light is smooth."""
    if min(plane.shape) < LEAST_FOR_NOISE:
        return 0.0
    sides = (plane[0], plane[-1], plane[:, 0], plane[:, -1])
    rough = torch.cat([side[:-2] - 2 * side[1:-1] + side[2:] for side in sides])
    noise = float(rough.abs().median()) / (NORMAL_MEDIAN * math.sqrt(6))
    return noise if noise < LARGEST_NOISE * float(plane.abs().max()) else 0.0


def _best(plane: Tensor, products: Tensor, noise: float) -> Symmetry:
    index = int(products.argmax())
    row, column = index // products.shape[1], index % products.shape[1]
    # A PSF's energy holds that of its noise, the product of a PSF and its mirror image does not.
    energy = float(plane.square().sum())
    energy -= min(plane.numel() * noise**2, LARGEST_NOISE_SHARE * energy)
    asymmetry = 1.0 - float(products[row, column]) / energy
    return Symmetry(row / 2, column / 2, max(asymmetry, 0.0))


def _nearer(profile: Tensor, point: float) -> float:
    size = len(profile)
    turns = 2 * math.pi * torch.arange(size, dtype=torch.float64) / size
    mean = math.atan2(float((profile * turns.sin()).sum()), float((profile * turns.cos()).sum())) * size / (2 * math.pi)
    candidates = (point % size, (point + size / 2) % size)
    return min(candidates, key=lambda at: abs((at - mean + size / 2) % size - size / 2))
