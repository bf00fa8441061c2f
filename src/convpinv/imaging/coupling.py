"""Which channels of a picture are restored together, and their PSFs side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary
from convpinv.imaging import regularization
from convpinv.imaging.model import UNKNOWN

__all__ = ["COUPLING", "DENOISER", "of_one_size", "together"]

# Priors whose cost may join the channels of a picture; the patches of "nonlocal" always do, if they can.
COUPLING = ("tv", "hyperlaplacian")
# What the report calls a prior that is a function of the caller's.
DENOISER = "denoiser"


def of_one_size(kernels: list[Tensor]) -> Tensor:
    """Stack PSFs (C, h, w); where their sizes differ, padded about their centres k // 2 to an odd size."""
    if len({tuple(kernel.shape) for kernel in kernels}) == 1:
        return torch.stack(kernels)
    reach = [max(kernel.shape[axis] // 2 for kernel in kernels) for axis in (0, 1)]
    padded = []
    for kernel in kernels:
        (top, left), (height, width) = ([r - k // 2 for r, k in zip(reach, kernel.shape, strict=True)], kernel.shape)
        bottom, right = 2 * reach[0] + 1 - top - height, 2 * reach[1] + 1 - left - width
        padded.append(torch.nn.functional.pad(kernel, (left, right, top, bottom)))
    return torch.stack(padded)


def together(call: str, prior: str, coupled: bool | None, boundary: str, channels: int, kernels: int) -> int:
    """Return how many channels are restored together: those of a picture that share their edges, or one."""
    if prior in COUPLING:
        return channels if (channels == 3 if coupled is None else coupled) else 1
    if prior not in regularization.DENOISERS:
        return 1
    # The data step of a known boundary has one PSF.
    apart = kernels > 1 and boundary not in (UNKNOWN, Boundary.CIRCULAR)
    if prior != DENOISER:
        return 1 if apart or coupled is False else channels
    if apart:
        may_be = "with one PSF a channel a denoiser takes 'unknown' or 'circular'"
        arguments.fail(call, "boundary", f"'{boundary}'", may_be)
    if coupled is False:
        arguments.fail(call, "coupled", "False", "a denoiser gets the whole picture; call deblur for each channel")
    return channels
