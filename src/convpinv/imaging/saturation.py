"""Whether a plateau at an end of the range hides light, or is what it seems: a white page, a black sky."""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv.imaging import regularization
from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors import DataStep, Observation

# Pixels this near a plateau see most of what it hides.
NEAR = 2
# Their misfit against that of all others, above which the plateau contradicts the blur: (a, b, c) in
# 1 + a · log10(c / noise), from 1 to b. White pages, black skies and binary pictures at 0.1, 0.3, 1 and 3 % of noise:
# up to 1.32, 1.02, 0.90, 0.88; over- and underexposed photographs at least 1.46, 1.34, 0.99, 0.86; lamps 1.8 to 9. As
# the noise falls, what is left is the error of so rough a restoration, which is largest at edges.
CONTRADICTION = (0.4, 1.4, 0.03)
# Error of that restoration against the noise of its own picture, at which it ends: the misfit is then within 0.005 of
# what it would come to. With an error as large as the noise it was off by up to 0.015.
SHARE_OF_NOISE = 0.3


def hiding(model: BlurModel, pictures: Tensor, deviation: Tensor, weight: Tensor | None, clipped: Tensor) -> Tensor:
    """Return ``clipped`` (n, 1, H, W) without the plateaus that the blur explains as they are.

    Where light was cut off, no scene explains both the plateau and the pixels around it, which saw the light that the
    plateau hides. So the pictures (n, 1, H, W), of unit scale and noise ``deviation`` (n,), are restored roughly, with
    every value taken as it is, and blurred again: where the unclipped pixels near a plateau are missed by no less than
    the others, it hides something. Treated as a bound, a plateau that hides nothing costs up to 1.5 dB.
    """
    fitted = regularization.FittedSpectrum.of(model, pictures[:, 0], deviation, complete=False)
    strength = regularization.automatic_strength("gradient", fitted, "likelihood").strength
    step = DataStep(model, Observation(pictures, weight), smooth=True)
    penalty = strength.to(pictures.dtype).reshape(-1, 1, 1, 1)
    scene, _ = step.solve(torch.zeros_like(step.extended(pictures)), penalty, tolerance=SHARE_OF_NOISE * deviation)
    square = (step.blurred(scene) - pictures).to(torch.float64).square()
    open_ends = clipped == 0 if weight is None else (clipped == 0) & (weight > 0)
    result = clipped.clone()
    slope, most, level = CONTRADICTION
    limit = (1 + slope * (level / deviation.to(torch.float64)).log10()).clamp(1, most)
    near = {sign: _around(clipped == sign) & open_ends for sign in (1, -1)}
    for sign in (1, -1):
        others = open_ends & ~near[-sign]
        hides = _mean(square, near[sign]) > limit.square() * _mean(square, others)
        hides &= near[sign].flatten(1).any(1)
        result[~hides[:, None, None, None] & (clipped == sign)] = 0
    return result


def _around(mask: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(mask.to(torch.float32), 2 * NEAR + 1, 1, NEAR) > 0


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum((-3, -2, -1)) / mask.sum((-3, -2, -1)).clamp(min=1)
