"""Denoising by groups of like patches, each group with its own Gaussian: the non-local prior.

A patch of a photograph has near-copies in its neighbourhood. Where the copies of one patch, taken from an estimate of
the picture (the guide), have covariance Σ about their mean, the best linear estimate of a noisy patch z of the group is

    mean(z) + Σ (Σ + σ² I)⁻¹ (z − mean(z)).

With fewer patches in a group than pixels in a patch, Σ = Cᵀ C / (N − 1) has rank below N, and the same estimate is one
N × N system a group.

Source: M. Lebrun, A. Buades, J.-M. Morel, "A nonlocal Bayesian image denoising algorithm", SIAM Journal on Imaging
Sciences 6 (2013); their first step, which estimates Σ from the noisy patches, is replaced by the guide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

# Measured on restorations under camera shake: patches of 6 are 0.1 dB before 8 and 0.5 dB before 10, groups of 24 and
# 32 alike and 0.1 dB before 64, references at every third or fourth pixel alike, search radii of 12 and 20 alike.
PATCH = 6
STRIDE = 4
RADIUS = 12
GROUP = 24
# Values that are worked on at once: 16 MiB in float32, whatever the size of the picture.
VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Groups:
    """Which patches of a scene (C, h, w) are alike.

    ``positions`` (references, N) are the upper left pixels, as row · columns + column, in a scene that is continued to
    ``size``; ``count`` says in how many patches of all groups a pixel lies.
    """

    positions: Tensor
    size: tuple[int, int]
    count: Tensor


def grouped(guide: Tensor) -> Groups:
    """Find for every reference patch of ``guide`` (C, h, w) the patches nearest to it, itself included.

    Squared distance over all channels, in a window of 2·12 + 1 pixels squared, references every fourth pixel.

    Notes
    -----
    Cost: (2·12 + 1)² sums of squares over the scene. Memory: a fixed amount at once beside the positions, 24 integers
    for 16 pixels.
    """
    guide = _continued(guide)
    channels, height, width = guide.shape
    reach = (min(RADIUS, height - PATCH), min(RADIUS, width - PATCH))
    rows, columns = ((size - PATCH) // STRIDE + 1 for size in (height, width))
    # A patch that leaves the scene is infinitely far.
    frame = pad(guide, (reach[1], reach[1], reach[0], reach[0]), value=float("inf"))
    shifts = torch.arange(-reach[0], reach[0] + 1)[:, None] * width + torch.arange(-reach[1], reach[1] + 1)
    shifts = shifts.flatten().to(guide.device)
    itself = len(shifts) // 2
    at_once = max(1, VALUES_AT_ONCE // ((2 * reach[1] + 1) * channels * STRIDE * width))
    # Near a corner only a quarter of the window lies within the scene.
    size = min(GROUP, (min(reach[0], height - PATCH) + 1) * (min(reach[1], width - PATCH) + 1))
    positions = []
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        top, bottom = first * STRIDE, (last - 1) * STRIDE + PATCH
        strip = guide[:, top:bottom, None, :]
        distances = []
        for down in range(2 * reach[0] + 1):
            moved = frame[:, top + down : bottom + down].unfold(2, width, 1)
            squares = (moved - strip).square_().sum(0).transpose(0, 1)
            distances.append(avg_pool2d(squares[:, None], PATCH, STRIDE)[:, 0])
        distance = torch.cat(distances).flatten(1)
        # The reference itself must be there, also among its equals: else a pixel may lie in no patch at all.
        distance[itself] = -1
        nearest = distance.T.topk(size, largest=False).indices
        references = torch.arange(first, last)[:, None] * (STRIDE * width) + torch.arange(columns) * STRIDE
        positions.append(references.flatten()[:, None].to(guide.device) + shifts[nearest])
    found = torch.cat(positions)
    count = guide.new_zeros(height * width)
    offsets = _offsets(width, guide.device)
    for some in found.split(_groups_at_once(1)):
        places = (some[..., None] + offsets).flatten()
        count.index_add_(0, places, count.new_ones(()).expand(len(places)))
    return Groups(found, (height, width), count.reshape(height, width))


def filtered(scene: Tensor, guide: Tensor, groups: Groups, sigma: float) -> Tensor:
    """Estimate a scene (C, h, w) with white noise ``sigma`` from its groups, their covariances taken from ``guide``.

    Every patch of every group is estimated, channels together; a pixel is the mean of all estimates of it.

    Notes
    -----
    Cost: about 40 operations on N·6²/16 values a pixel, and one Cholesky factor of N × N a group.
    """
    height, width = scene.shape[-2:]
    noisy, clean = _continued(scene).flatten(1), _continued(guide).flatten(1)
    channels = len(scene)
    offsets = _offsets(groups.size[1], scene.device)
    total = torch.zeros_like(noisy)
    rounding = 4 * torch.finfo(scene.dtype).eps
    for some in groups.positions.split(_groups_at_once(channels)):
        places = some[..., None] + offsets
        patches, sample = (
            # (groups, N, C · 36)
            values[:, places].permute(1, 2, 0, 3).flatten(2)
            for values in (noisy, clean)
        )
        mean = patches.mean(1, keepdim=True)
        sample = sample - sample.mean(1, keepdim=True)
        # Σ (Σ + σ² I)⁻¹ z = Cᵀ (C Cᵀ + (N − 1) σ² I)⁻¹ C z
        system = sample @ sample.mT
        diagonal = system.diagonal(dim1=-2, dim2=-1)
        diagonal += max(some.shape[1] - 1, 1) * sigma**2 + rounding * diagonal.sum(-1, keepdim=True)
        factor = torch.linalg.cholesky(system)
        shares = torch.cholesky_solve(sample @ (patches - mean).mT, factor)
        estimate = (shares.mT @ sample).add_(mean)
        estimate = estimate.unflatten(2, (channels, -1)).permute(2, 0, 1, 3)
        total.index_add_(1, places.flatten(), estimate.flatten(1))
    whole = total.unflatten(1, groups.size) / groups.count
    return whole[:, :height, :width]


def _continued(scene: Tensor) -> Tensor:
    """Repeat the last row and column until references end at the last pixel."""
    missing = [max(PATCH - size, (PATCH - size) % STRIDE) for size in scene.shape[-2:]]
    return pad(scene[None], (0, missing[1], 0, missing[0]), mode="replicate")[0]


def _offsets(width: int, device: torch.device) -> Tensor:
    """Return the pixels of a patch against its upper left one."""
    inside = torch.arange(PATCH, device=device)
    return (inside[:, None] * width + inside).flatten()


def _groups_at_once(channels: int) -> int:
    return max(1, VALUES_AT_ONCE // (GROUP * PATCH**2 * channels))
