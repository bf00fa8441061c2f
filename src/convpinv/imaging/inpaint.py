"""A first guess of pixels that were not seen: smooth, from their surroundings."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["filled"]


def filled(planes: Tensor, weight: Tensor) -> Tensor:
    """Return planes (N, H, W) whose pixels of weight 0 have been made up; what they held before does not matter.

    Normalised convolution over a pyramid: each level holds the weighted means of 2 by 2 pixels of the one below; a hole
    is read, by bilinear interpolation, from the finest level that knows something there. ``weight`` is (N, H, W).
    Cost: O(H W). Source: S. J. Gortler, R. Grzeszczuk, R. Szeliski and M. F. Cohen, "The lumigraph", SIGGRAPH 1996.
    """
    known = weight > 0
    if bool(known.all()):
        return planes
    return _pushed(torch.where(known, planes, 0)[:, None], weight[:, None])[:, 0]


def _pushed(values: Tensor, weight: Tensor) -> Tensor:
    known = weight > 0
    if bool(known.all()) or max(values.shape[-2:]) == 1:
        return values
    shared = torch.nn.functional.avg_pool2d(weight, 2, ceil_mode=True)
    sums = torch.nn.functional.avg_pool2d(weight * values, 2, ceil_mode=True)
    means = torch.where(shared > 0, sums / shared, 0)
    coarse = _pushed(means, shared)
    size = [values.shape[-2], values.shape[-1]]
    guess = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return torch.where(known, values, guess)
