"""The inverse of a Toeplitz system by embedding, corrected on the frame that the embedding adds.

A Toeplitz system T is a periodic convolution C on a larger grid, seen through a window: ``T = W C Wᵀ``. With F the rest
of the grid, the frame, block elimination gives its inverse exactly,

    T⁻¹ = W C⁻¹ Wᵀ − W C⁻¹ Fᵀ Q⁻¹ F C⁻¹ Wᵀ,        Q = F C⁻¹ Fᵀ,

of which the first term alone is the embedding of Chan and Ng. The frame is two strips, one of rows and one of columns.
On each strip alone Q is a convolution along the strip, so that a Fourier transform along it leaves one small matrix a
frequency, as wide as the strip, to be inverted once. Going over the strips as rows, columns, rows solves for both but
for what they have in common (symmetric multiplicative Schwarz): what comes out stays symmetric, positive definite, and
between T⁻¹ and the first term. Exact where only one axis has a frame.

The sweep stays in the spectrum: what a strip holds, and what is put there, are products with the few waves of its rows
or columns, so that the whole costs one transform and one back instead of four.
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
    frequencies) and (frequencies, width) for rows, the other way round for columns.
    """

    axis: int
    inverse: Tensor  # (G, frequencies along the strip, channels·width, channels·width)
    take: Tensor
    give: Tensor
    is_complex: bool

    def corrected(self, transformed: Tensor) -> Tensor:
        """Return the spectrum of ``Fᵀ Q⁻¹ F r``, from that of r: (B, C, F_h, F_w)."""
        if self.axis == -2:
            return self.give @ self._solved(self.take @ transformed)
        places = transformed @ self.take  # (B, C, F_h, width)
        if self.is_complex:
            return self._solved(places.mT).mT @ self.give
        # Of real pictures only half the frequencies along the columns are there. The missing ones are the conjugates
        # of those at −f_h, where what stands in the strip has its transform along it conjugated, too.
        height = places.shape[-2]
        half = places[..., : height // 2 + 1, :]
        mirrored = torch.cat([places[..., :1, :], places[..., height - height // 2 :, :].flip(-2)], -2)
        solved = self._solved((half + mirrored.conj()).mT).mT
        rest = solved[..., 1 : height - height // 2, :].flip(-2).conj()
        return torch.cat([solved, rest], -2) @ self.give

    def _solved(self, places: Tensor) -> Tensor:
        """Apply Q⁻¹ to what stands in the strip, (B, C, width, frequencies along it)."""
        groups, frequencies = self.inverse.shape[:2]
        columns = places.reshape(len(places), groups, -1, frequencies).permute(1, 3, 2, 0).contiguous()
        return torch.matmul(self.inverse, columns).permute(3, 0, 2, 1).reshape(places.shape)


def strips_of(inverse_symbol: Tensor, grid: tuple[int, int], window: tuple[int, int], is_complex: bool) -> list[Strip]:
    """Prepare the strips of a grid outside a window in its upper left corner; none where they would be too large.

    ``inverse_symbol`` (G, C, C, frequencies) is that of C⁻¹, Hermitian positive definite at each frequency.
    """
    groups, channels = inverse_symbol.shape[:2]
    widths = (grid[0] - window[0], grid[1] - window[1])
    itemsize = 16 if is_complex else 8
    entries = sum(groups * grid[1 - k] * (channels * widths[k]) ** 2 for k in (0, 1))
    if entries * itemsize > LARGEST_CORRECTION:
        return []
    response = spectrum.inverse_transform(inverse_symbol.to(inverse_symbol.dtype.to_complex()), grid, is_complex)
    strips = []
    for axis, width in zip((-2, -1), widths, strict=True):
        if width:
            strips.append(_strip(response, axis, grid[axis], width))
    return strips


def _strip(response: Tensor, axis: int, size: int, width: int) -> Strip:
    """Gather Q on a strip from the impulse response (G, C, C, H, W) of C⁻¹: Q[i, j] depends on i − j alone."""
    along = -1 if axis == -2 else -2
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
    count = size // 2 + 1 if is_half else size
    turns = torch.outer(size - width + places, torch.arange(count, device=response.device)) % size
    angles = turns.to(inverse.real.dtype) * (2.0 * math.pi / size)
    waves = torch.complex(angles.cos(), angles.sin())
    take = waves / size
    if is_half:  # the other half is added as conjugates: what is its own conjugate counts half in each
        take[:, 0] *= 0.5
        if size % 2 == 0:
            take[:, -1] *= 0.5
    give = waves.conj().resolve_conj()
    pair = (take, give.mT.contiguous()) if axis == -2 else (take.mT.contiguous(), give)
    return Strip(axis, inverse, *pair, is_complex)


def corrected(apply: Callable[[Tensor], Tensor], strips: list[Strip], transformed: Tensor) -> Tensor:
    """Apply C⁻¹ to the spectrum of an embedded picture plus what the frame must hold for the result to vanish there.

    ``apply`` multiplies a spectrum (B, C, F_h, F_w) by the symbol of C⁻¹; ``transformed`` is used up.
    """
    for strip in [*strips, *strips[:-1][::-1]]:  # rows, columns, rows: symmetric
        transformed.sub_(strip.corrected(apply(transformed)))
    return apply(transformed)
