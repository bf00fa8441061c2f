"""The window that the spectrum of a picture is seen through, and what it does to an expected spectrum."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from convpinv.imaging.model import difference_transfer

# More frequencies than this tell nothing new of a handful of numbers.
MOST_FREQUENCIES = 2**15


def window(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return the Hann window that pictures are seen through, (H, W), float64: nowhere 0."""
    rows, columns = _hann_windows(size, device)
    return rows[:, None] * columns


def _hann_windows(size: tuple[int, int], device: torch.device) -> list[Tensor]:
    return [torch.hann_window(taps + 2, periodic=False, dtype=torch.float64, device=device)[1:-1] for taps in size]


def leaked(power: Tensor, size: tuple[int, int], chosen: Tensor) -> Tensor:
    """Convolve an expected power with the window's spectrum: a product with the window's autocorrelation."""
    power[0, 0] = 0
    rows, columns = (
        torch.fft.irfft(torch.fft.rfft(taper).abs().square(), taper.shape[0]) / taper.square().sum()
        for taper in _hann_windows(size, power.device)
    )
    seen = torch.fft.irfft2(power, s=size).mul_(rows[:, None]).mul_(columns)
    return torch.fft.rfft2(seen).real.flatten()[chosen].clamp_(0)


def kept_frequencies(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return the indices of the frequencies that are looked at, on the flattened half plane without 0."""
    return 1 + _evenly(size[0] * (size[1] // 2 + 1) - 1).to(device)


@lru_cache(maxsize=8)
def leaked_scene(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return 1 / |D|², the power of a scene, as it is seen through the window.

    Remembered: it is the same for all pictures of a size, and two transforms of one.
    """
    with torch.inference_mode(False), torch.no_grad():
        return leaked(difference_transfer(size, device).reciprocal_(), size, kept_frequencies(size, device))


def windowed_power(planes: Tensor, taper: Tensor, chosen: Tensor) -> Tensor:
    """Return the power (N, F) of windowed planes (N, H, W) there, scaled so that white noise has its variance."""
    powers = []
    for plane in planes.to(torch.float64):
        tapered = (plane - (taper * plane).sum() / taper.sum()).mul_(taper)
        powers.append(torch.fft.rfft2(tapered).flatten()[chosen].abs().square() / taper.square().sum())
    return torch.stack(powers)


@lru_cache(maxsize=8)
def _evenly(count: int) -> Tensor:
    """Return the indices of all frequencies, or of :data:`MOST_FREQUENCIES` drawn among them, always the same.

    Remembered: to draw them takes as long as two transforms of the picture.
    """
    if count <= MOST_FREQUENCIES:
        return torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:MOST_FREQUENCIES].sort().values
