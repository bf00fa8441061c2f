"""How noisy a picture is, from the picture alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.clipping import clipped_pixels

__all__ = ["estimate_noise", "noise_of_planes"]

# High-pass and low-pass halves of Daubechies' wavelet with four vanishing moments: blind to local cubics, so that
# shading and blurred edges leave next to nothing in its diagonal band. Unit norm, so white noise keeps its deviation.
DAUBECHIES_4 = (
    0.23037781330885523, 0.7148465705525415, 0.6308807679295904, -0.02798376941698385,
    -0.18703481171888114, 0.030841381835986965, 0.032883011666982945, -0.010597401784997278,
)  # fmt: skip
HAAR = (0.7071067811865476, 0.7071067811865476)
# Median of |n| for standard normal n: turns a median absolute value into a standard deviation.
NORMAL_MEDIAN = 0.6744897501960817
# The share of the picture, from its smoothest parts, that the estimate listens to.
SMOOTH_SHARE = 0.4
# Below this many independent-looking samples the selection of smooth parts costs more than it gives.
FEWEST_SELECTED = 200
# Where fewer positions than this share have the whole filter on pixels that were seen, a shorter filter is taken.
LEAST_WHOLE = 0.05


def estimate_noise(image: Any) -> Any:
    """Estimate the standard deviation of the white Gaussian noise in a picture, blurred or not.

    ``σ = median |d| / 0.6745`` over the diagonal detail ``d`` of the finest wavelet scale. Two things make it hold on
    photographs: the median is taken over the smoothest 40 % of the picture only, found in the low-pass band, whose
    noise is independent of that of ``d`` (so the choice itself does not bend the result); and clipped areas, where
    the noise is cut away, are left out.

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``, channels last; or tensor ``(H, W)`` or ``(..., H, W)``. Real, integer or
        floating, of any range.

    Returns
    -------
    float, numpy.ndarray or Tensor
        In the units of the picture. A float for ``(H, W)``; an array ``(C,)`` for ``(H, W, C)``; for a tensor
        ``(..., H, W)`` a tensor of shape ``(...)``, on its device, float64 for float64 and integer pictures, else
        float32. A constant picture gives 0.

    Raises
    ------
    ArgumentError
        If the picture is complex, boolean, not finite or of another shape.

    Notes
    -----
    Cost: O(H W) a plane: two separable filters of 8 taps and two selections. Assumed and unchecked: the noise is white
    and has one strength everywhere in a plane. After demosaicing, denoising or JPEG it is not white, and the estimate
    is then too low; fine texture all over a sharp picture (grass, cloth) is taken for noise in part.

    Source: D. L. Donoho and I. M. Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81 (1994).

    Examples
    --------
    >>> import numpy as np
    >>> from convpinv.imaging import estimate_noise
    >>> ramp = np.linspace(0, 1, 256)[:, None] * np.ones(256)
    >>> noisy = ramp + np.random.default_rng(0).normal(0, 0.05, (256, 256))
    >>> abs(estimate_noise(noisy) / 0.05 - 1) < 0.05
    True
    """
    planes = arguments.pictures("estimate_noise", "image", image)
    sigma = noise_of_planes(planes.stack)
    if planes.stack.shape[0] == 1 and np.ndim(image) == 2:
        return float(sigma[0])
    if isinstance(image, Tensor):
        return sigma.to(planes.dtype).reshape(image.shape[:-2])
    return sigma.numpy().astype(np.float64)


def noise_of_planes(planes: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return the noise (N,) of checked floating planes (N, H, W), in float64; pixels that are not ``seen`` are mute."""
    levels = []
    for index, plane in enumerate(planes):
        known = None if seen is None else seen[index]
        largest = plane.abs().amax().to(torch.float64)
        # Scaled first: squares and sums of the largest and the smallest numbers there are would leave their range.
        level = _noise_of_plane(plane.to(torch.float64) / largest, known) if largest > 0 else largest
        levels.append(level * largest)
    return torch.stack(levels)


def _noise_of_plane(plane: Tensor, seen: Tensor | None) -> Tensor:
    zero = plane.new_zeros(())
    if plane.numel() < 4 or plane.amax() == plane.amin():
        return zero
    centred = plane - plane.mean()
    # Scattered gaps leave hardly any square of 8 pixels whole, and most squares of 2.
    short = seen is not None and float(_whole(seen, (7, 7)).to(plane.dtype).mean()) < LEAST_WHOLE
    filters = [HAAR if short or size < 2 * len(DAUBECHIES_4) else DAUBECHIES_4 for size in plane.shape]
    lowpass = [plane.new_tensor(taps if size > 1 else (1.0,)) for taps, size in zip(filters, plane.shape, strict=True)]
    highpass = [taps.flip(0) * _alternating(taps) for taps in lowpass]
    detail = _filtered(centred, highpass)
    smooth = _filtered(centred, lowpass)

    reach = (plane.shape[0] - detail.shape[0], plane.shape[1] - detail.shape[1])
    clipped, constant = _clipped(plane, seen, reach), _window_range(plane, reach) == 0
    usable = ~clipped if seen is None else ~clipped & _whole(seen, reach)
    if not bool(usable.any()):
        return zero
    # Constant areas that are not clipped: where they are most of it there is no noise, else they are a mask or a frame.
    if int((constant & usable).sum()) * 2 < int(usable.sum()):
        usable &= ~constant

    activity = _activity(smooth)[usable]
    magnitude = detail.abs()[usable]
    if magnitude.numel() * SMOOTH_SHARE >= FEWEST_SELECTED:
        limit = activity.kthvalue(int(magnitude.numel() * SMOOTH_SHARE)).values
        magnitude = magnitude[activity <= limit]
    estimate = magnitude.median() / NORMAL_MEDIAN
    # What rounding alone leaves of a picture without noise.
    return estimate if estimate > 1e-14 * plane.abs().amax() else zero


def _alternating(taps: Tensor) -> Tensor:
    return 1.0 - 2.0 * (torch.arange(taps.numel(), device=taps.device) % 2)


def _filtered(plane: Tensor, filters: list[Tensor]) -> Tensor:
    """Apply a row filter and a column filter, at the positions where they lie within the picture."""
    rows = torch.nn.functional.conv2d(plane[None, None], filters[0].reshape(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, filters[1].reshape(1, 1, 1, -1))[0, 0]


def _activity(smooth: Tensor) -> Tensor:
    """Return how much the low-pass picture changes around each position: its range over a 9 by 9 neighbourhood."""
    window = tuple(min(9, 2 * ((size - 1) // 2) + 1) for size in smooth.shape)
    padding = (window[0] // 2, window[1] // 2)
    highest = torch.nn.functional.max_pool2d(smooth[None, None], window, 1, padding)
    return (highest + torch.nn.functional.max_pool2d(-smooth[None, None], window, 1, padding))[0, 0]


def _window_range(plane: Tensor, reach: tuple[int, int]) -> Tensor:
    """Return largest minus smallest value under the filter, at each of its positions."""
    window = (reach[0] + 1, reach[1] + 1)
    highest = torch.nn.functional.max_pool2d(plane[None, None], window, 1)
    return (highest + torch.nn.functional.max_pool2d(-plane[None, None], window, 1))[0, 0]


def _clipped(plane: Tensor, seen: Tensor | None, reach: tuple[int, int]) -> Tensor:
    """Tell where the filter meets a clipped pixel."""
    return ~_whole(clipped_pixels(plane, seen) == 0, reach)


def _whole(mask: Tensor, reach: tuple[int, int]) -> Tensor:
    """Tell where every pixel under the filter is in the mask."""
    reach = (min(reach[0], mask.shape[0] - 1), min(reach[1], mask.shape[1] - 1))
    gaps = (~mask).to(torch.float32)
    return torch.nn.functional.max_pool2d(gaps[None, None], (reach[0] + 1, reach[1] + 1), 1)[0, 0] == 0
