"""Where light was clipped: the one definition, for the estimate of the noise, the data term and the report."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped_pixels"]

# A plateau at an end of the range holds more than this share of the pixels,
LEAST_SHARE = 1e-3
# and this many times the pixels of the next value: a smooth histogram thins out towards its ends.
AGAINST_NEXT = 2


def clipped_pixels(plane: Tensor, seen: Tensor | None = None) -> Tensor:
    """Tell where a plane (H, W) is clipped: +1 at its largest value, −1 at its smallest, 0 elsewhere, int8.

    An end of the range counts as clipped where more than 1 in 1000 pixels hold that very value, and it is more than
    twice as frequent as the value next to it: a smooth histogram thins out towards its ends. A plane of one value is
    not clipped. ``seen`` is boolean (H, W); pixels outside it are neither asked nor told of. Cost: O(H W).
    """
    result = torch.zeros(plane.shape, dtype=torch.int8, device=plane.device)
    values = plane if seen is None else plane[seen]
    for sign in (1, -1):
        end = values.amax() if sign > 0 else values.amin()
        count = int((values == end).sum())
        # Asked first: of most pictures the rest need not be looked at.
        if count <= LEAST_SHARE * values.numel():
            continue
        inner = values[values != end]
        if not inner.numel():
            return result
        next_value = inner.amax() if sign > 0 else inner.amin()
        if count > AGAINST_NEXT * int((inner == next_value).sum()):
            result[plane == end if seen is None else (plane == end) & seen] = sign
    return result
