"""What a PSF stands on: a background left in, found along the border of its array."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging.psf_finding import AS_IT_IS, Finding
from convpinv.imaging.psf_symmetry import NORMAL_MEDIAN

# A background is looked for in arrays of this many rows and columns: in smaller ones the border may well be light.
LEAST_SIZE = 9
RING = 2
# The ring is flat where its twelve parts agree to this share of their level. The tail of a round PSF has twice and
# more the light at the middle of a side than in the corner, the slowest of them (Moffat) too.
FLAT = 0.25
# Nor is it rough: the rings of an Airy pattern are as rough as they are bright.
ROUGH = 0.35
# What stands out of it is so many times its unevenness and its noise, and so large a share of its level: a PSF that
# fills its array falls from its middle to its border, and an even box has nothing that stands out.
ABOVE_UNEVENNESS = 10.0
ABOVE_NOISE = 6.0
ABOVE_LEVEL = 0.05
# A background that holds less of the light than this does nothing.
LEAST_BACKGROUND = 2e-3


def without_background(stack: Tensor, correct: bool) -> tuple[Tensor, list[Finding]]:
    """Subtract what PSFs (C, h, w) of any scale stand on, where that is evident."""
    planes, findings = [], []
    for plane in stack:
        scale = plane.abs().max().clamp(min=torch.finfo(plane.dtype).tiny)
        ground = _ground(plane / scale)
        if ground is None or not ground.is_background:
            planes.append(plane)
            continue
        own = float((plane / scale - ground.level).abs().sum())
        share = abs(ground.level) * plane.numel() / own
        if ground.below > ground.above:
            planes.append(plane)
            seen = "the PSF is dark on a bright, even ground"
            remedy = "if light is dark in it, give its negative: psf.max() - psf"
            findings.append(Finding("inverted", seen, "it was left as it is", remedy))
        elif share > LEAST_BACKGROUND:
            planes.append(plane - ground.level * scale if correct else plane)
            seen = (
                f"the PSF stands on a constant background (an offset) of {100 * ground.level / ground.above:.2g} % of "
                f"its peak, which adds up to {100 * share:.2g} % of its own light"
            )
            done = "it was subtracted" if correct else "it was left in, and takes contrast from the blur"
            findings.append(Finding("background", seen, done, AS_IT_IS if correct else "subtract it", correct))
        else:
            planes.append(plane)
    # One line is enough where the channels say alike.
    names = {finding.name: finding for finding in reversed(findings)}
    return torch.stack(planes), list(reversed(names.values()))


@dataclass(frozen=True)
class _Ground:
    """The border of a PSF's array: its level, its noise, how far its parts differ, and the PSF's two extremes."""

    level: float
    noise: float
    unevenness: float
    above: float
    below: float

    @property
    def is_background(self) -> bool:
        """Whether the border is flat, not zero, and something stands out of it."""
        needed = (ABOVE_UNEVENNESS * self.unevenness, ABOVE_NOISE * self.noise, ABOVE_LEVEL * abs(self.level))
        flat = self.unevenness <= FLAT * abs(self.level) and self.noise <= ROUGH * abs(self.level)
        return flat and max(self.above, self.below) > max(needed)


def _ground(plane: Tensor) -> _Ground | None:
    """Look along the border; None where the array is too small for light and border to be told apart."""
    if min(plane.shape) < LEAST_SIZE:
        return None
    strips = (plane[:RING], plane[-RING:], plane[:, :RING].T, plane[:, -RING:].T)
    parts = [part.flatten() for strip in strips for part in strip.tensor_split(3, dim=1)]
    medians = torch.stack([part.median() for part in parts])
    ring = torch.cat(parts)
    level = ring.median()
    # The mean is the sharper estimate where there is noise; light that reaches the border is no part of it.
    noise = float((ring - level).abs().median()) / NORMAL_MEDIAN
    level = float(ring[(ring - level).abs() <= 3 * noise].mean())
    unevenness = float(medians.max() - medians.min())
    return _Ground(level, noise, unevenness, float(plane.max()) - level, level - float(plane.min()))
