"""Which pixels were seen, and which were clipped: from the mask, from NaN, and from the picture itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.clipping import clipped_pixels

# A mask that leaves less than this may be one of bad pixels, the other way round.
LEAST_SEEN = 0.25
# Pixels of less than this share of the largest weight are as little looked at as those that were not seen.
BELIEVED = 0.5


@dataclass(frozen=True)
class Account:
    """How many values were not seen, and what is to be said of that."""

    masked: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Levels:
    """Where values are clipped: at ``low`` and below, at ``high`` and above; or found in each plane."""

    low: float | None = None
    high: float | None = None
    found: bool = False


def levels(call: str, value: object) -> Levels:
    """Return what the argument ``clip`` means: None looks for plateaus, False for nothing, a pair gives the levels."""
    if value is None:
        return Levels(found=True)
    if value is False:
        return Levels()
    return Levels(*arguments.limits(call, "clip", value))


def weights(call: str, pictures: arguments.Pictures, mask: object) -> Tensor | None:
    """Return the weight of each value (N, H, W), 0 where it is not a number; None where all count fully."""
    weight = arguments.pixel_weights(call, "mask", mask, pictures)
    if weight is not None:
        weight = weight.expand_as(pictures.stack)
    if pictures.finite is not None:
        finite = pictures.finite.to(pictures.stack)
        weight = finite if weight is None else weight * finite
        if not bool((weight > 0).any(-1).any(-1).all()):
            trouble = "such that only NaN and infinite values are left"
            arguments.fail(call, "mask", trouble, "at least one finite value (of each channel) must be seen")
    return None if weight is None or bool((weight == 1).all()) else weight


def nearly_best(weight: Tensor) -> Tensor:
    """Return which pixels of planes (..., H, W) are nearly as good as the best of their plane: not mere noise."""
    return weight >= BELIEVED * weight.amax((-2, -1), keepdim=True)


def clipped(pictures: arguments.Pictures, weight: Tensor | None, levels: Levels) -> Tensor | None:
    """Return +1 where a seen value is clipped from above, −1 from below, else 0 (N, H, W), int8; None for nowhere."""
    stack = pictures.stack
    if levels.found:
        planes = [
            clipped_pixels(plane, None if weight is None else weight[index] > 0) for index, plane in enumerate(stack)
        ]
        signs = torch.stack(planes)
    else:
        signs = torch.zeros(stack.shape, dtype=torch.int8, device=stack.device)
        if levels.high is not None:
            signs[stack >= levels.high] = 1
        if levels.low is not None:
            signs[stack <= levels.low] = -1
        if weight is not None:
            signs[weight == 0] = 0
    return signs if bool(signs.any()) else None


def account(pictures: arguments.Pictures, weight: Tensor | None) -> Account:
    """Count, and say what has to be said."""
    remarks = []
    total = pictures.stack.numel()
    if pictures.finite is not None:
        missing = int((~pictures.finite).sum())
        remarks.append(
            f"{missing} values ({_share(missing, total)}) are NaN or infinite: they count as not seen, and what stands "
            "there now was made up from their surroundings"
        )
    masked = 0 if weight is None else int((weight == 0).sum())
    if masked > (1 - LEAST_SEEN) * total:
        remarks.append(
            f"the mask leaves {_share(total - masked, total)} of the picture: 1 or True means that a pixel was seen; "
            "if it marks bad pixels, turn it round"
        )
    return Account(masked, tuple(remarks))


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.2g} %"
