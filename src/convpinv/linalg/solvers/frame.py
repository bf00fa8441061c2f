"""The inverse of a Toeplitz system by embedding, corrected on the frame that the embedding adds.

A Toeplitz system T is a periodic convolution C on a larger grid, seen through a window: ``T = W C Wᵀ``. With F the rest
of the grid, the frame, block elimination gives its inverse exactly,

    T⁻¹ = W C⁻¹ Wᵀ − W C⁻¹ Fᵀ Q⁻¹ F C⁻¹ Wᵀ,        Q = F C⁻¹ Fᵀ,

of which the first term alone is the embedding of Chan and Ng. The frame is two strips, one of rows and one of columns.
On each strip alone Q is a convolution along the strip, so that a Fourier transform along it leaves one small matrix a
frequency, as wide as the strip, to be inverted once. Going over the strips as rows, columns, rows solves for both but
for what they have in common (symmetric multiplicative Schwarz): what comes out stays symmetric, positive definite, and
between T⁻¹ and the first term. Exact where only one axis has a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.linalg import spectrum

# Entries of the strips' inverse matrices, in bytes: beyond this the embedding goes uncorrected.
LARGEST_CORRECTION = 2**29


@dataclass(frozen=True)
class Strip:
    """The rows (axis −2) or columns (axis −1) of a grid after the window, and the inverse of Q on them."""

    axis: int
    start: int
    width: int
    length: int
    inverse: Tensor  # (G, frequencies along the strip, channels·width, channels·width)

    def solve(self, grid: Tensor) -> Tensor:
        """Take the strip out of a grid (B, C, H, W), apply Q⁻¹, and give it back (B, C, strip)."""
        along = -1 if self.axis == -2 else -2
        part = grid.narrow(self.axis, self.start, self.width)
        is_complex = part.is_complex()
        transformed = torch.fft.fft(part, dim=along) if is_complex else torch.fft.rfft(part, dim=along)
        stacked = transformed if self.axis == -2 else transformed.transpose(-1, -2)  # (B, C, width, frequencies)
        groups, frequencies = self.inverse.shape[:2]
        columns = stacked.reshape(len(part), groups, -1, frequencies).permute(1, 3, 2, 0).contiguous()
        solved = torch.matmul(self.inverse, columns).permute(3, 0, 2, 1).reshape(stacked.shape)
        solved = solved if self.axis == -2 else solved.transpose(-1, -2)
        if is_complex:
            return torch.fft.ifft(solved, dim=along)
        return torch.fft.irfft(solved, n=self.length, dim=along)


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
            strips.append(_strip(response, axis, grid[axis] - width, width))
    return strips


def _strip(response: Tensor, axis: int, start: int, width: int) -> Strip:
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
    return Strip(axis, start, width, response.shape[along], inverse)


def corrected(apply: Callable[[Tensor], Tensor], strips: list[Strip], embedded: Tensor) -> Tensor:
    """Apply C⁻¹ to an embedded picture (B, C, grid) plus what the frame must hold for the result to vanish there."""
    sweep = [*strips, *strips[:-1][::-1]]  # rows, columns, rows: symmetric
    result = apply(embedded)
    for strip in sweep:
        embedded = embedded.clone()
        embedded.narrow(strip.axis, strip.start, strip.width).sub_(strip.solve(result))
        result = apply(embedded)
    return result
