"""The splits of the loop: what the data, the sparse differences and a constraint each want the picture to be.

Each holds a point v of its own (Douglas and Rachford's form of alternating directions, Eckstein and Bertsekas 1992).
With P its proximal map and s the picture as it sees it (K x, D x or x), a step of relaxation α is

    v ← v + α (s − P v),        and then it asks the picture for  2 P v − v.

That is ADMM with over-relaxation and the scaled dual P v − v: one variable where that keeps two. Everything is done in
slabs of rows that stay in the processor's cache: over a whole picture of 1024² half the loop's time was memory traffic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging.priors.constraint import Constraint
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.shrinkage import Sparsity

# Numbers of one slab: with 2^16 a step at 1024² took a tenth longer, at 2048² without slabs a quarter.
SLAB = 2**17


def slabs(on_grid: Tensor) -> Iterator[slice]:
    """Cut a grid (n, C, rows, columns) into slabs of rows; an accelerator, which has no cache to keep to, gets one."""
    count, channels, height, width = on_grid.shape
    rows = max(1, SLAB // (count * channels * width)) if on_grid.device.type == "cpu" else height
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


@dataclass
class DataSplit:
    """The measured pixels: P is nearest to them in the window, and changes nothing outside, where nothing was seen."""

    observation: Observation
    point: Tensor  # v (n, C, grid)
    is_new: bool = True

    def advance(self, blurred: Tensor, penalty: Tensor, relaxation: float) -> Tensor:
        """Take K x in; return what it is asked to be, in the memory of ``blurred``."""
        rows, columns = self.observation.data.shape[-2:]
        for slab in slabs(blurred):
            point, target = self.point[..., slab, :], blurred[..., slab, :]
            below = max(0, min(slab.stop, rows) - slab.start)
            seen = self.observation.rows(slice(slab.start, slab.start + below)) if below else None
            inside = (..., slice(0, below), slice(0, columns))
            if self.is_new:
                point.copy_(target)
            else:
                if seen is not None:
                    # Here P v = v + (P v − v), and outside the second part is 0.
                    seen.add_pull(target[inside], point[inside], penalty)
                point.lerp_(target, relaxation)
            if seen is not None:
                seen.reflect(point[inside], penalty, out=target[inside])
            target[..., below:, :] = point[..., below:, :]
            target[..., :below, columns:] = point[..., :below, columns:]
        self.is_new = False
        return blurred

    def rescale(self, growth: float, penalty: Tensor) -> None:
        """Let the penalty have grown from ``penalty``: the scaled dual P v − v is a multiple of its inverse."""
        rows, columns = self.observation.data.shape[-2:]
        inside = self.point[..., :rows, :columns]
        inside.copy_(torch.lerp(self.observation.nearest(inside, penalty), inside, 1 / growth))

    def kept(self, which: Tensor) -> DataSplit:
        """Return the split of some of the pictures."""
        return DataSplit(self.observation.kept(which), self.point[which], self.is_new)


@dataclass
class DifferenceSplit:
    """The sparse differences: P shrinks them, that is, multiplies them by a factor between 0 and 1 at each pixel.

    ``border``: the picture's size where the grid outside repeats it, so that differences there and across the picture's
    edges cost nothing of their own. ``forgets``: the point is the picture's own differences, without a dual.
    """

    sparsity: Sparsity
    point: Tensor  # v (n, 2·C, grid), down first, then to the right
    factor: Tensor  # P v / v (n, 1, grid)
    border: tuple[int, int] | None
    forgets: bool
    is_new: bool = True

    def advance(self, scene: Tensor, threshold: Tensor, relaxation: float, weight: float) -> Tensor:
        """Take x in; return ``weight · Dᴴ (2 P v − v)``, the differences periodic."""
        result = torch.empty_like(scene)
        below: Tensor | None = None
        for slab in slabs(scene):
            point, factor = self.point[..., slab, :], self.factor[..., slab, :]
            anew = self.is_new or self.forgets
            kept = point if anew and self.border is None else torch.empty_like(point)
            here = _differences(scene, slab, out=kept)
            if not anew:
                point.addcmul_(point, factor, value=-relaxation)
                point.add_(here, alpha=relaxation)
            elif here is not point:
                point.copy_(here)
            for free in self._free(slab, point):
                free.zero_()
            self.sparsity.factor(point, threshold, out=factor)
            # With its sign turned: the adjoint of forward differences is minus the backward ones.
            share = factor.mul(-weight) if self.forgets else factor.mul(-2 * weight).add_(weight)
            wanted = point * share
            for free, difference in zip(self._free(slab, wanted), self._free(slab, here), strict=True):
                torch.mul(difference, -weight, out=free)
            below = _add_backward_differences(wanted, below, out=result[..., slab, :])
        if below is not None:
            result[..., :1, :] -= below
        self.is_new = False
        return result

    def _free(self, slab: slice, differences: Tensor) -> list[Tensor]:
        """Return the differences of a slab outside the picture and across its edges, in their own memory.

        They are asked to be what they are, and have no point: it would count in the length of those that share their
        pixel. With one, relaxed like the others, the outer rows of a scene that is dark outside ended twice as far off.
        """
        if self.border is None:
            return []
        down, right = differences.chunk(2, -3)
        rows, columns = max(0, self.border[0] - slab.start), self.border[1]
        above = max(0, self.border[0] - 1 - slab.start)
        return [down[..., above:, :], down[..., columns:], right[..., rows:, :], right[..., columns - 1 :]]

    def rescale(self, growth: float) -> None:
        """Let the penalty have grown: the scaled dual P v − v is a multiple of its inverse."""
        if not self.forgets:
            share = self.factor + (1 - self.factor) / growth
            self.point.mul_(share)
            self.factor.div_(share)  # P v is what it was

    def kept(self, which: Tensor) -> DifferenceSplit:
        """Return the split of some of the pictures."""
        point, factor = self.point[which], self.factor[which]
        return DifferenceSplit(self.sparsity, point, factor, self.border, self.forgets, self.is_new)


@dataclass
class ConstraintSplit:
    """What is known of the scene: P moves it to the nearest one that obeys."""

    constraint: Constraint
    point: Tensor  # v (n, C, grid)
    is_new: bool = True

    def advance(self, scene: Tensor, relaxation: float) -> Tensor:
        """Take x in; return what it is asked to be."""
        if self.is_new:
            self.point.copy_(scene)
        else:
            self.point.add_(scene - self.constraint.nearest(self.point), alpha=relaxation)
        self.is_new = False
        return 2 * self.constraint.nearest(self.point) - self.point

    def rescale(self, growth: float) -> None:
        """Let the penalty have grown: the scaled dual P v − v is a multiple of its inverse."""
        self.point = torch.lerp(self.constraint.nearest(self.point), self.point, 1 / growth)

    def kept(self, which: Tensor) -> ConstraintSplit:
        """Return the split of some of the pictures."""
        return ConstraintSplit(self.constraint.kept(which), self.point[which], self.is_new)


def _differences(scene: Tensor, slab: slice, out: Tensor) -> Tensor:
    """Write the forward differences of a slab of scenes (n, C, grid), periodic: (n, 2·C, rows, columns)."""
    down, right = out.chunk(2, -3)
    here = scene[..., slab, :]
    end = scene.shape[-2]
    inner = min(slab.stop, end - 1) - slab.start
    torch.sub(scene[..., slab.start + 1 : slab.start + 1 + inner, :], here[..., :inner, :], out=down[..., :inner, :])
    if slab.stop == end:
        torch.sub(scene[..., :1, :], here[..., -1:, :], out=down[..., -1:, :])
    torch.sub(here[..., 1:], here[..., :-1], out=right[..., :-1])
    torch.sub(here[..., :1], here[..., -1:], out=right[..., -1:])
    return out


def _add_backward_differences(values: Tensor, above: Tensor | None, out: Tensor) -> Tensor:
    """Write the sum of backward differences of a slab; ``above`` is the last row above it, and its own is returned."""
    down, right = values.chunk(2, -3)
    torch.add(down, right, out=out)
    out[..., 1:] -= right[..., :-1]
    out[..., :1] -= right[..., -1:]
    out[..., 1:, :] -= down[..., :-1, :]
    if above is not None:
        out[..., :1, :] -= above
    return down[..., -1:, :]
