"""One channel in, one out: the inverse symbol in real arithmetic, made from the taps where that beats an FFT.

Each frequency holds one number K, so that the inverse is ``conj(K) / (|K|² + damp²)``; only ``conj(K)`` is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import coarse_kernel
from convpinv.linalg.spectrum import (
    CHOLESKY_DAMP,
    MODERATE,
    MOST_REMEMBERED,
    Regularization,
    largest_of_kernels,
    may_remember,
    out_of_modes,
    products_are_exact,
    transform,
    waves,
)

# Up to this many taps are read back as Python numbers, in one microsecond; torch's own maximum and sums take ten.
FEW_TAPS = 64
# From this many frequencies a product with the taps is cheaper than an FFT of the placed kernel, up to LONGEST_COLUMN
# rows of taps. Measured with two threads, 9 and 25 rows: 0.9 of the FFT's time at 128², 0.3 to 0.6 at 1024².
FEWEST_FREQUENCIES, LONGEST_COLUMN = 2**9, 32
# Entries of the larger table that a kind of calls may hold: 64 kinds of them, 16 MB in single precision.
LARGEST_HELD = 2**15
# More than any |K|² at a moderate scale, and within every dtype.
LARGEST_BOUND = torch.finfo(torch.float32).max
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
    known = _Magnitudes.of(taps) if geometry.kernels == 1 and _may_look(taps) else None
    scale = _scale(taps, known, regularization.damp, geometry.kernels)
    cut = _Cut(regularization, regularization.damp, regularization.atol, geometry.kernels)
    if scale is not None:
        taps, known = taps / scale, None
        cut = _Cut(regularization, cut.damp / scale, cut.atol / scale, geometry.kernels)
    if _are_few(taps, grid):
        inverse = _from_taps(taps, geometry, grid, cut, cut.bound_beforehand(known))
    else:
        inverse = _from_transform(taps, geometry, grid, cut)
    return inverse if scale is None else inverse.div_(scale)


def _may_look(tensor: Tensor) -> bool:
    """Whether reading a number back neither stalls the stream of an accelerator nor breaks a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


@dataclass(frozen=True)
class FewTaps:
    """The way from few taps of one real channel to the inverse applied, but for their values: for calls in a loop.

    ``along_rows`` (2, F_h, 2·kH) and ``along_columns`` (kW, 2·F_w) are :func:`_tables`.
    """

    along_rows: Tensor
    along_columns: Tensor
    grid: tuple[int, int]
    taps: tuple[int, int]
    cut: _Cut
    is_one_block: bool

    @staticmethod
    def of(like: Tensor, geometry: Geometry, grid: tuple[int, int], regularization: Regularization) -> FewTaps | None:
        """Make the tables for weights like this one; None where another way serves, or the tables are large."""
        taps = like[:, 0]
        is_one = serves(geometry) and taps.shape[0] == 1
        if not (is_one and _may_look(taps) and _are_few(taps, grid) and _entries(geometry, grid) <= LARGEST_HELD):
            return None
        along_rows, along_columns = _tables(taps, geometry, grid)
        cut = _Cut(regularization, regularization.damp, regularization.atol, 1)
        is_one_block = _rows_of_block(taps, grid[0], grid[1] // 2 + 1) == grid[0]
        return FewTaps(along_rows, along_columns, grid, (taps.shape[1], taps.shape[2]), cut, is_one_block)

    def solve(self, weight: Tensor, planes: Tensor) -> Tensor | None:
        """Apply the pseudo-inverse to planes (..., H, W), or return None where the numbers have to be brought to scale.

        The inverse symbol is not laid down: each block is used while it lies in the cache.
        """
        taps = weight.reshape(self.taps)
        known = _Magnitudes.of(taps)
        if not known.is_moderate(self.cut.regularization.damp) or not products_are_exact(taps):
            return None
        bound = self.cut.bound_beforehand(known)
        spectrum = torch.fft.rfft2(planes)
        if self.is_one_block:  # written out: the general way asks for what is known here, one small operation each
            half = torch.mm(taps, self.along_columns).view(2 * self.taps[0], -1)
            real, imaginary = torch.mm(self.along_rows.flatten(0, 1), half).chunk(2)
            spectrum.mul_(_inverse(real, imaginary, real.square().addcmul_(imaginary, imaginary), self.cut, bound))
        else:
            for place, part in _blocks(taps[None], self.along_rows, self.along_columns, self.cut, bound):
                spectrum[..., place, :].mul_(part)
        return torch.fft.irfft2(spectrum, s=self.grid).contiguous()  # the FFT keeps the order of permuted axes


class _Magnitudes(NamedTuple):
    """What the taps of one kernel, (kH, kW) or (G, kH, kW), say of its symbol before that is made."""

    largest_tap: float
    bound: float  # Σ|k|, which no |K| exceeds
    is_reached: bool  # by the mean: one channel without taps of both signs

    @staticmethod
    def of(taps: Tensor) -> _Magnitudes:
        """Read them back."""
        is_one = taps.ndim == 2 or taps.shape[0] == 1
        if taps.numel() > FEW_TAPS or taps.is_complex():
            magnitudes = taps.abs()
            bound = magnitudes.sum((-2, -1)).max().item()
            return _Magnitudes(magnitudes.max().item(), bound, is_one and abs(taps.sum().item()) >= bound)
        numbers = taps.reshape(-1).tolist()
        magnitudes = list(map(abs, numbers))
        bound = sum(magnitudes)
        # What max() makes of NaN depends on its place.
        return _Magnitudes(max(magnitudes) if bound < math.inf else bound, bound, is_one and abs(sum(numbers)) >= bound)

    def is_moderate(self, damp: float) -> bool:
        """Whether their squares, and that of the damping, are numbers as they are."""
        return 1.0 / MODERATE <= self.largest_tap <= MODERATE and damp <= MODERATE


def _scale(taps: Tensor, known: _Magnitudes | None, damp: float, kernels: int) -> Tensor | float | None:
    """Magnitude by which taps and damping come to at most 1, or None where their squares are numbers anyway."""
    tiny = torch.finfo(taps.dtype).tiny
    if known is not None:
        return None if known.is_moderate(damp) else max(known.largest_tap, damp, tiny)
    largest = largest_of_kernels(taps.abs(), kernels)
    if _may_look(taps) and largest.min().item() >= 1.0 / MODERATE and max(largest.max().item(), damp) <= MODERATE:
        return None
    return largest.clamp(min=max(damp, tiny))


@dataclass(frozen=True)
class _Cut:
    """What turns |K|² into ``1 / (|K|² + damp²)``, or into 0 at and below the threshold; tensors where scaled."""

    regularization: Regularization
    damp: float | Tensor
    atol: float | Tensor
    kernels: int

    @property
    def _is_default(self) -> bool:
        return self.regularization.is_default_cut and self.regularization.damp > 0.0

    def bound_beforehand(self, known: _Magnitudes | None) -> float | None:
        """Square of what counts as zero, where the taps tell it: it saves passes over all frequencies."""
        if known is None or not (isinstance(self.damp, float) and isinstance(self.atol, float)):
            return None
        bound = self._bound(known.bound**2, self.damp, self.atol)
        # Of a bound that is not reached only this is known: where it cuts nothing, the largest |K| cuts nothing.
        return bound if known.is_reached or bound == 0.0 else None

    def bound(self, largest: Tensor) -> float | Tensor:
        """Square of what counts as zero, for the largest |K|² of each kernel.

        None does by default where the damping is strong, as in :func:`spectrum.invert_matrices`: cutting had left a
        Gaussian of 2 pixels, damped by 0.1, 1e-4 off at random pixels in single precision, where rounding leaves 1e-6.
        """
        if self.kernels == 1 and isinstance(self.atol, float) and isinstance(self.damp, float) and _may_look(largest):
            return self._bound(largest.item(), self.damp, self.atol)
        bound = torch.clamp(self.regularization.rtol * largest.sqrt(), min=self.atol).square()
        return bound.masked_fill(CHOLESKY_DAMP**2 * largest <= self.damp**2, 0.0) if self._is_default else bound

    def _bound(self, highest: float, damp: float, atol: float) -> float:
        if self._is_default and damp**2 >= CHOLESKY_DAMP**2 * highest:
            return 0.0
        value = max(self.regularization.rtol * math.sqrt(highest), atol)
        return min(value * value, LARGEST_BOUND)

    def reciprocal_(self, squares: Tensor, bound: float | Tensor) -> Tensor:
        """Replace |K|² by what ``conj(K)`` is to be multiplied by."""
        if not isinstance(bound, float):
            is_cut = squares <= bound
            return squares.add_(self.damp * self.damp).reciprocal_().masked_fill_(is_cut, 0.0)
        shift = self.damp * self.damp
        # A damping whose square is no number lifts no zero: 1/0 would be met by 0 again.
        if bound > 0.0 or shift < torch.finfo(squares.dtype).tiny:
            torch.threshold_(squares, bound, math.inf)  # one pass; torch.where takes twenty times as long
        return squares.reciprocal_() if shift == 0.0 else squares.add_(shift).reciprocal_()


def _are_few(taps: Tensor, grid: tuple[int, int]) -> bool:
    frequencies = grid[0] * (grid[1] // 2 + 1)
    few = frequencies >= FEWEST_FREQUENCIES and taps.shape[1] <= LONGEST_COLUMN
    return few and not taps.is_complex() and products_are_exact(taps)


def _from_transform(taps: Tensor, geometry: Geometry, grid: tuple[int, int], cut: _Cut) -> Tensor:
    """Pseudo-inverse from the FFT of taps (G, kH, kW) that are conjugate already and laid on the grid."""
    inverse = transform(_placed(taps, geometry, grid))
    rows = _rows_of_block(taps, grid[0], inverse.shape[2])
    parts = (inverse,) if rows == grid[0] else inverse.split(rows, dim=1)
    # The product and its real part take a sixth of the time of abs().square().
    squares = [(part * part.conj()).real for part in parts]
    bound = cut.bound(_largest_of_parts(squares, cut.kernels))
    for part, magnitudes in zip(parts, squares, strict=True):
        part.mul_(cut.reciprocal_(magnitudes, bound))
    return inverse


def _from_taps(taps: Tensor, geometry: Geometry, grid: tuple[int, int], cut: _Cut, bound: float | None) -> Tensor:
    """Pseudo-inverse by transforming along columns, then along rows, each a product with the waves at the taps."""
    blocks = list(_blocks(taps, *_tables(taps, geometry, grid), cut, bound))
    return blocks[0][1] if len(blocks) == 1 else torch.cat([part for _, part in blocks], 1)


def _blocks(
    taps: Tensor, along_rows: Tensor, along_columns: Tensor, cut: _Cut, bound: float | Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of frequencies that fit the cache, and their inverse symbol (G, rows, F_w)."""
    half = _along_columns(taps, along_columns)
    height = along_rows.shape[1]
    rows = _rows_of_block(taps, height, half.shape[2])
    places = [slice(start, start + rows) for start in range(0, height, rows)]
    if bound is None and len(places) > 1:
        # Made twice rather than kept: to write the squares down and read them again takes longer.
        bound = cut.bound(_largest_of_parts([_parts(half, along_rows, place)[2] for place in places], cut.kernels))
    for place in places:
        yield place, _inverse(*_parts(half, along_rows, place), cut, bound)


def _parts(half: Tensor, along_rows: Tensor, place: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Real and imaginary part of ``conj(K)`` at some rows of frequencies, and ``|K|²``: (G, rows, F_w) each."""
    groups, count, width = half.shape
    table = along_rows[:, place]
    if groups == 1:  # one product of two matrices takes half the time of one of a stack
        parts = torch.mm(table.reshape(-1, count), half.view(count, width)).view(2, 1, -1, width)
    else:
        parts = table.unsqueeze(1) @ half
    real, imaginary = parts.unbind(0)
    return real, imaginary, real.square().addcmul_(imaginary, imaginary)


def _inverse(real: Tensor, imaginary: Tensor, squares: Tensor, cut: _Cut, bound: float | Tensor | None) -> Tensor:
    """Inverse symbol from ``conj(K)`` and ``|K|²``, which are overwritten; without a bound these are all of them."""
    if bound is None:
        bound = cut.bound(largest_of_kernels(squares, cut.kernels))
    factors = cut.reciprocal_(squares, bound)
    return torch.complex(real.mul_(factors), imaginary.mul_(factors))


def _along_columns(taps: Tensor, table: Tensor) -> Tensor:
    """Transform each row of taps: (G, 2·kH, F_w), the real part of a row and below it the imaginary one."""
    groups, rows, columns = taps.shape
    return torch.mm(taps.reshape(-1, columns), table).view(groups, 2 * rows, -1)


def _largest_of_parts(squares: list[Tensor], kernels: int) -> Tensor:
    largest = [largest_of_kernels(part, kernels) for part in squares]
    return largest[0] if len(largest) == 1 else torch.stack(largest).amax(0)


def _tables(taps: Tensor, geometry: Geometry, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Waves at the places of the taps: (2, F_h, 2·kH) along the rows' axis and (kW, 2·F_w) along the columns'.

    ``taps @ columns`` are real and imaginary part of each row of taps, side by side as [re, im]; seen as two rows each,
    one product with [cos, sin, cos, sin, …] makes the real part of ``conj(K)`` and [−sin, cos, …] the imaginary one.
    """
    make = _remembered_tables if may_remember(taps, _entries(geometry, grid)) else _make_tables
    return make(geometry.axes, grid, taps.dtype, taps.device)


def _entries(geometry: Geometry, grid: tuple[int, int]) -> int:
    """Entries of the larger one of the tables."""
    return max(4 * grid[0] * geometry.rows.taps, 2 * (grid[1] // 2 + 1) * geometry.columns.taps)


def _make_tables(
    axes: tuple[Axis, Axis], grid: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    cosines, sines = waves(axes[1], grid[1], grid[1] // 2 + 1, dtype, device)
    along_columns = torch.cat([cosines.T, -sines.T], 1).contiguous()
    cosines, sines = waves(axes[0], grid[0], grid[0], dtype, device)
    along_rows = torch.stack([torch.stack([cosines, sines], 2), torch.stack([-sines, cosines], 2)])
    return along_rows.flatten(2), along_columns


@lru_cache(maxsize=MOST_REMEMBERED)
def _remembered_tables(
    axes: tuple[Axis, Axis], grid: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with out_of_modes():
        return _make_tables(axes, grid, dtype, device)


def _placed(taps: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    """Lay the taps on the periodic grid where ``x[i + q]`` is read for them: at q itself, for they are conjugate."""
    if any(axis.reach >= points for axis, points in zip(geometry.axes, grid, strict=True)):
        # Some taps meet: coarse_kernel adds them up, at −q.
        turned = coarse_kernel(taps[:, None], geometry, grid)[:, 0, 0]
        return turned.flip((-2, -1)).roll((1, 1), (-2, -1))
    rows, columns = geometry.axes
    if max(rows.dilation, columns.dilation) > 1:
        spread = taps.new_zeros(taps.shape[0], rows.reach + 1, columns.reach + 1)
        spread[:, :: rows.dilation, :: columns.dilation] = taps
        taps = spread
    # Two calls: laying up to four pieces where they wrap took 30 µs.
    padded = torch.constant_pad_nd(taps, (0, grid[1] - taps.shape[2], 0, grid[0] - taps.shape[1]))
    return padded.roll((-rows.before, -columns.before), (1, 2))


def _rows_of_block(taps: Tensor, height: int, width: int) -> int:
    """Rows of frequencies that are looked at together: all of them on an accelerator, which has no cache to keep to."""
    return min(height, max(1, BLOCK // (taps.shape[0] * width))) if _may_look(taps) else height
