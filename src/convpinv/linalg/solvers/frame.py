"""The inverse of a Toeplitz system by embedding, corrected on the frame that the embedding adds.

A Toeplitz system T is a periodic convolution C on a larger grid, seen through a window: ``T = W C Wᵀ``. With F the rest
of the grid, the frame, block elimination gives its inverse exactly,

    T⁻¹ = W C⁻¹ Wᵀ − W C⁻¹ Fᵀ Q⁻¹ F C⁻¹ Wᵀ,        Q = F C⁻¹ Fᵀ,

of which the first term alone is the embedding of Chan and Ng. The frame is two strips, one of rows and one of columns.
On each strip alone Q is a convolution along the strip, so that a Fourier transform along it leaves one small matrix a
frequency, as wide as the strip, to be inverted once. Where only one axis has a frame, that is all. With two, what one
strip must hold is left to be found (:func:`solve`, conjugate gradients on the Schur complement of the other strip): a
vector as small as the strip, and an iteration that transforms no picture. Going over the strips once as rows, columns,
rows (:func:`corrected`, symmetric multiplicative Schwarz) gives a preconditioner where C⁻¹ is not exactly known.

All of it stays in the spectrum: what a strip holds, and what is put there, are products with the few waves of its rows
or columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.linalg import spectrum

# Entries of the strips' inverse matrices, in bytes: beyond this the embedding goes uncorrected.
LARGEST_CORRECTION = 2**29


@dataclass(frozen=True)
class Strip:
    """The rows (axis −2) or columns (axis −1) of a grid after the window, and the inverse of Q on them.

    ``take`` and ``give`` are the transform across the strip, from the frequencies to its places and back: (width,
    frequencies) and (frequencies, width) for rows, the other way round for columns. What stands in a strip is kept as
    its spectrum along the strip, (B, C, frequencies, width), of real pictures the half that says all: in that order one
    small product a frequency needs no copy, which took as long as the products themselves.
    """

    axis: int
    inverse: Tensor  # (G, frequencies along the strip, channels·width, channels·width)
    take: Tensor
    give: Tensor
    shares: Tensor  # of each frequency along the strip in an inner product, (frequencies, 1)
    crossing: Tensor  # waves along the strip where the other one crosses it, (frequencies, its width)
    length: int
    is_complex: bool

    def taken(self, transformed: Tensor) -> Tensor:
        """What stands in the strip, ``F r``, from the spectrum of r: (B, C, F_h, F_w)."""
        if self.axis == -2:
            return transformed.mT @ self.take.mT
        places = transformed @ self.take
        if self.is_complex:
            return places
        # Of real pictures only half the frequencies along the columns are there. The missing ones are the conjugates
        # of those at −f_h, where what stands in the strip has its transform along it conjugated, too.
        half = places[..., : self.length // 2 + 1, :]
        mirrored = torch.cat([places[..., :1, :], places[..., self.length - self.length // 2 :, :].flip(-2)], -2)
        return half + mirrored.conj()

    def given(self, places: Tensor) -> Tensor:
        """Return the spectrum ``Fᵀ q`` of a grid that holds q in the strip and nothing elsewhere."""
        if self.axis == -2:
            return self.give @ places.mT
        if not self.is_complex:
            rest = places[..., 1 : self.length - self.length // 2, :].flip(-2).conj()
            places = torch.cat([places, rest], -2)
        return places @ self.give

    def solved(self, places: Tensor) -> Tensor:
        """Apply Q⁻¹ of this strip alone."""
        groups, frequencies, size, _ = self.inverse.shape
        batch, channels, _, width = places.shape
        grouped = places.reshape(batch, groups, -1, frequencies, width).permute(1, 3, 2, 4, 0)
        solved = torch.matmul(self.inverse, grouped.reshape(groups, frequencies, size, batch))
        apart = solved.reshape(groups, frequencies, -1, width, batch).permute(4, 0, 2, 1, 3)
        return apart.reshape(batch, channels, frequencies, width)

    def corrected(self, transformed: Tensor) -> Tensor:
        """Return the spectrum of ``Fᵀ Q⁻¹ F r``, from that of r."""
        return self.given(self.solved(self.taken(transformed)))

    def outside(self, places: Tensor) -> Tensor:
        """Put 0 where the other strip crosses this one."""
        there = (self.crossing * self.shares).mH @ places
        return places - self.crossing @ (there if self.is_complex else there.real.to(places.dtype))

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Real inner product of what stands in the strip, of each picture: (B,)."""
        return torch.linalg.vecdot(left.flatten(1), (right * self.shares).flatten(1)).real


def strips_of(
    inverse_symbol: Tensor, grid: tuple[int, int], window: tuple[int, int], is_complex: bool
) -> list[Strip] | None:
    """Prepare the strips of a grid outside a window in its upper left corner; None where they would be too large.

    ``inverse_symbol`` (G, C, C, frequencies) is that of C⁻¹, Hermitian positive definite at each frequency.
    """
    groups, channels = inverse_symbol.shape[:2]
    widths = (grid[0] - window[0], grid[1] - window[1])
    itemsize = 16 if is_complex else 8
    entries = sum(groups * grid[1 - k] * (channels * widths[k]) ** 2 for k in (0, 1))
    if entries * itemsize > LARGEST_CORRECTION:
        return None
    response = spectrum.inverse_transform(inverse_symbol.to(inverse_symbol.dtype.to_complex()), grid, is_complex)
    strips = []
    for axis, width in zip((-2, -1), widths, strict=True):
        if width:
            strips.append(_strip(response, axis, grid, width, widths[-1 - axis]))
    return strips


def _strip(response: Tensor, axis: int, grid: tuple[int, int], width: int, crossed: int) -> Strip:
    """Gather Q on a strip from the impulse response (G, C, C, H, W) of C⁻¹: Q[i, j] depends on i − j alone.

    ``crossed`` is the width of the other strip.
    """
    along = -1 if axis == -2 else -2
    size = grid[axis]
    is_complex = response.is_complex()
    transformed = torch.fft.fft(response, dim=along) if is_complex else torch.fft.rfft(response, dim=along)
    lags = transformed if axis == -2 else transformed.transpose(-1, -2)  # (G, C, C, lag, frequency)
    places = torch.arange(width, device=response.device)
    matrices = lags[:, :, :, (places[:, None] - places[None, :]) % lags.shape[-2], :]
    groups, channels = response.shape[:2]
    matrices = matrices.permute(0, 5, 1, 3, 2, 4).reshape(groups, lags.shape[-1], channels * width, channels * width)
    # Contiguous, or the products below go matrix by matrix with a copy of each: 44 % of a solution at 256².
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrices)).resolve_conj().contiguous()

    is_half = not is_complex and axis == -1
    waves = _waves(size, width, size // 2 + 1 if is_half else size, inverse)
    take = waves.conj() / size
    if is_half:  # the other half is added as conjugates: what is its own conjugate counts half in each
        take[:, 0] *= 0.5
        if size % 2 == 0:
            take[:, -1] *= 0.5
    take, give = (take, waves.mT.contiguous()) if axis == -2 else (take.mT.contiguous(), waves)
    length = grid[along]
    crossing = _waves(length, crossed, inverse.shape[1], inverse).mT.contiguous()
    return Strip(axis, inverse, take.resolve_conj(), give, _shares(length, inverse), crossing, length, is_complex)


def _waves(size: int, width: int, count: int, like: Tensor) -> Tensor:
    """``exp(−2πi·k·n / size)`` for the last places n and the first frequencies k: (width, count)."""
    places = torch.arange(size - width, size, device=like.device)
    turns = torch.outer(places, torch.arange(count, device=like.device)) % size
    angles = turns.to(torch.float64) * (-2.0 * math.pi / size)
    return torch.complex(angles.cos(), angles.sin()).to(like.dtype)


def _shares(size: int, inverse: Tensor) -> Tensor:
    """Parseval's weights of the frequencies along a strip of this size: those that stand for two count twice."""
    count = inverse.shape[1]
    # Complex even where it is real: torch would convert it anew at each product.
    shares = torch.full((count, 1), 1.0 / size, dtype=inverse.dtype, device=inverse.device)
    if count < size:
        shares[1 : (size + 1) // 2] *= 2.0
    return shares


def corrected(divide: Callable[[Tensor], Tensor], strips: list[Strip], transformed: Tensor) -> Tensor:
    """Apply C⁻¹ to the spectrum of an embedded picture and about what the frame must hold for it to vanish there.

    ``divide`` multiplies a spectrum (B, C, F_h, F_w) by the symbol of C⁻¹; ``transformed`` is used up.
    """
    for strip in [*strips, *strips[:-1][::-1]]:  # rows, columns, rows: symmetric
        transformed.sub_(strip.corrected(divide(transformed)))
    return divide(transformed)


def solve(
    divide: Callable[[Tensor], Tensor], strips: list[Strip], transformed: Tensor, goal: Tensor, budget: int
) -> tuple[Tensor, int]:
    """Return the spectrum of ``C⁻¹ (Wᵀ r − Fᵀ q)``, of which the window solves ``T u = r``, and the iterations.

    ``transformed`` (B, C, F_h, F_w) is the spectrum of ``Wᵀ r``. With two strips, q on the first solves the Schur
    complement ``Q₁₁ − Q₁₂ Q₂₂⁻¹ Q₂₁`` by conjugate gradients, with Q₁₁ as preconditioner. They end where the step that
    Q₁₁ alone would make next is at most ``goal`` (B,): what ``T u`` misses is that to a factor (measured: 3 to 6).

    The corner belongs to both strips: what the first holds there changes nothing, and the residual vanishes there but
    for rounding. Left in, that drove the iteration astray: 40 iterations and 303 where 6 and 55 suffice.
    """
    if len(strips) < 2:
        for strip in strips:
            transformed = transformed - strip.corrected(divide(transformed))
        return divide(transformed), 0
    first, second = strips
    divided = divide(transformed)
    asked = second.taken(divided)
    residual = first.taken(divided) - first.taken(divide(second.given(second.solved(asked))))
    step = first.solved(residual)
    found = torch.zeros_like(step)
    # What Q₁₁ makes of the direction follows its recurrence: Q₁₁ itself is not kept.
    direction, image = step, residual
    product, size = first.dot(residual, step), first.dot(step, step)
    nothing, goal = torch.zeros_like(product), goal.square()
    active = size > goal
    iterations = 0
    while iterations < budget and bool(active.any()):
        iterations += 1
        shared = second.solved(second.taken(divide(first.given(direction))))
        reduced = image - first.taken(divide(second.given(shared)))
        curvature = first.dot(direction, reduced)
        active = active & (curvature > 0) & (product > 0)
        length = _column(torch.where(active, product / curvature, nothing), step)
        found = torch.addcmul(found, length, direction)
        residual = first.outside(torch.addcmul(residual, length, reduced, value=-1))
        step = first.solved(residual)
        following, size = first.dot(residual, step), first.dot(step, step)
        ratio = _column(torch.where(active, following / product, nothing), step)
        direction, image = torch.addcmul(step, ratio, direction), torch.addcmul(residual, ratio, image)
        product = following
        active = active & (size > goal)  # nor where it is not finite
    held = first.given(found)
    rest = second.given(second.solved(asked - second.taken(divide(held))))
    return divide(transformed - held - rest), iterations


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1).to(like.dtype)
