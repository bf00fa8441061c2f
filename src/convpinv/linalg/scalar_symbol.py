"""One channel in, one out: the inverse symbol in real arithmetic, made from the taps where that beats an FFT.

Each frequency holds one number K, so that the inverse is ``conj(K) / (|K|² + damp²)``; only ``conj(K)`` is ever made.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convpinv.linalg.geometry import Geometry
from convpinv.linalg.polyphase import coarse_kernel
from convpinv.linalg.spectrum import (
    CHOLESKY_DAMP,
    MODERATE,
    Regularization,
    largest_of_kernels,
    products_are_exact,
    transform,
    waves,
)

# From this many frequencies a product with the taps is cheaper than an FFT of the placed kernel, up to LONGEST_COLUMN
# rows of taps. Measured with two threads, 9 and 25 rows: 0.9 of the FFT's time at 128², 0.3 to 0.6 at 1024².
FEWEST_FREQUENCIES, LONGEST_COLUMN = 2**13, 32
# Frequencies that are looked at together on the CPU: 1 MB, so that the passes over them meet in the cache.
BLOCK = 2**17


def serves(geometry: Geometry) -> bool:
    """Whether each group has one channel on either side, and no phases."""
    return geometry.stride == (1, 1) and geometry.in_channels == geometry.out_channels == geometry.groups


def inverse_symbol(weight: Tensor, geometry: Geometry, grid: tuple[int, int], regularization: Regularization) -> Tensor:
    """Pseudo-inverse of each number of the symbol: (G, F_h, F_w), half of the frequencies where the kernel is real.

    Reads no value back from an accelerator.
    """
    taps = weight[:, 0]
    if taps.is_complex():
        taps = taps.conj().resolve_conj()
    damp, atol = regularization.damp, regularization.atol
    scale = _scale(taps, damp, geometry.kernels)
    if scale is not None:
        taps, damp, atol = taps / scale, damp / scale, atol / scale
    inverse, squares = _conjugate_symbol(taps, geometry, grid)
    bound = _squared_threshold(squares, regularization, damp, atol, geometry.kernels)
    for part, magnitudes in zip(_blocks(inverse), _blocks(squares), strict=True):
        part.mul_(_reciprocal(magnitudes, bound, damp * damp))
    return inverse if scale is None else inverse.div_(scale)


def _may_look(tensor: Tensor) -> bool:
    """Whether reading a number back neither stalls the stream of an accelerator nor breaks a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _scale(taps: Tensor, damp: float, kernels: int) -> Tensor | None:
    """Magnitude by which taps and damping come to at most 1, or None where their squares are numbers anyway."""
    largest = largest_of_kernels(taps.abs(), kernels)
    if _may_look(taps):
        low, high = (largest.item(),) * 2 if kernels == 1 else (largest.min().item(), largest.max().item())
        if low >= 1.0 / MODERATE and max(high, damp) <= MODERATE:
            return None
    return largest.clamp(min=max(damp, torch.finfo(taps.dtype).tiny))


def _squared_threshold(
    squares: Tensor, regularization: Regularization, damp: float | Tensor, atol: float | Tensor, kernels: int
) -> float | Tensor:
    """Square of what counts as zero, where ``squares`` are those of all singular values.

    None does by default where the damping is strong, as in :func:`spectrum.invert_matrices`: cutting had left a
    Gaussian of 2 pixels, damped by 0.1, 1e-4 off at random pixels in single precision, where rounding leaves 1e-6.
    """
    largest = largest_of_kernels(squares, kernels)
    is_default = regularization.is_default_cut and regularization.damp > 0.0
    if kernels == 1 and isinstance(atol, float) and isinstance(damp, float) and _may_look(squares):
        highest = largest.item()
        if is_default and damp**2 >= CHOLESKY_DAMP**2 * highest:
            return 0.0
        value = max(regularization.rtol * math.sqrt(highest), atol)
        return min(value * value, torch.finfo(squares.dtype).max)
    bound = torch.clamp(regularization.rtol * largest.sqrt(), min=atol).square()
    return bound.masked_fill(CHOLESKY_DAMP**2 * largest <= damp**2, 0.0) if is_default else bound


def _reciprocal(squares: Tensor, bound: float | Tensor, squared_damp: float | Tensor) -> Tensor:
    """``1 / (|K|² + damp²)`` above the bound, 0 at and below it."""
    if isinstance(bound, float):
        # One pass; torch.where takes twenty times as long.
        kept = torch.nn.functional.threshold(squares, bound, math.inf)
        return kept.add_(squared_damp).reciprocal_()
    return (squares + squared_damp).reciprocal_().masked_fill_(squares <= bound, 0.0)


def _conjugate_symbol(taps: Tensor, geometry: Geometry, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``conj(K)`` and ``|K|²`` of taps (G, kH, kW) that are conjugate already."""
    frequencies = grid[0] * (grid[1] // 2 + 1)
    few = frequencies >= FEWEST_FREQUENCIES and taps.shape[1] <= LONGEST_COLUMN
    if few and not taps.is_complex() and products_are_exact(taps):
        return _from_taps(taps, geometry, grid)
    conjugate = transform(_placed(taps, geometry, grid))
    # The product and its real part take a sixth of the time of abs().square().
    parts = [(part * part.conj()).real for part in _blocks(conjugate)]
    return conjugate, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _from_taps(taps: Tensor, geometry: Geometry, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Transform along columns, then along rows, each a product with the cosines and sines of the taps' places."""
    height, width = grid[0], grid[1] // 2 + 1
    cosines, sines = waves(geometry.columns, grid[1], width, taps)
    columns = torch.cat([cosines, -sines]).T
    # (G, kH, 2·F_w), cosines first, to (G, 2·kH, F_w): real parts of all rows of taps above the imaginary ones.
    half = (taps @ columns).unflatten(-1, (2, width)).transpose(1, 2).flatten(1, 2)
    cosines, sines = waves(geometry.rows, height, height, taps)
    # [cos, sin] · [re; im] is the real part, [−sin, cos] · [re; im] the imaginary one.
    left, right = torch.cat([cosines, sines], 1), torch.cat([-sines, cosines], 1)
    rows = max(1, BLOCK // (len(taps) * width))
    if rows >= height or not _may_look(taps):
        real, imaginary = left @ half, right @ half
        return torch.complex(real, imaginary), real.square().addcmul_(imaginary, imaginary)
    conjugate = taps.new_empty((len(taps), height, width), dtype=taps.dtype.to_complex())
    squares = taps.new_empty(conjugate.shape)
    for start in range(0, height, rows):
        place = slice(start, start + rows)
        real, imaginary = left[place] @ half, right[place] @ half
        torch.complex(real, imaginary, out=conjugate[:, place])
        torch.mul(real, real, out=squares[:, place])
        squares[:, place].addcmul_(imaginary, imaginary)
    return conjugate, squares


def _placed(taps: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    """Lay the taps on the periodic grid where ``x[i + q]`` is read for them: at q itself, for they are conjugate."""
    if any(axis.reach >= points for axis, points in zip(geometry.axes, grid, strict=True)):
        # Some taps meet: coarse_kernel adds them up, at −q.
        turned = coarse_kernel(taps[:, None], geometry, grid)[:, 0, 0]
        return turned.flip((-2, -1)).roll((1, 1), (-2, -1))
    rows, columns = geometry.axes
    if max(rows.dilation, columns.dilation) > 1:
        spread = taps.new_zeros(len(taps), rows.reach + 1, columns.reach + 1)
        spread[:, :: rows.dilation, :: columns.dilation] = taps
        taps = spread
    # Two calls: laying up to four pieces where they wrap took 30 µs.
    padded = torch.constant_pad_nd(taps, (0, grid[1] - taps.shape[2], 0, grid[0] - taps.shape[1]))
    return padded.roll((-rows.before, -columns.before), (1, 2))


def _blocks(spectrum: Tensor) -> tuple[Tensor, ...]:
    rows = _rows_of_block(spectrum)
    return (spectrum,) if rows == spectrum.shape[1] else spectrum.split(rows, dim=1)


def _rows_of_block(spectrum: Tensor) -> int:
    """Rows of frequencies that are looked at together: all of them on an accelerator, which has no cache to keep to."""
    if not _may_look(spectrum):
        return spectrum.shape[1]
    return min(spectrum.shape[1], max(1, BLOCK // (spectrum.shape[0] * spectrum.shape[2])))
