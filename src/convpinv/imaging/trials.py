"""Whether a picture is one that this prior restores: two trials whose scene is known, where little is changed.

A prior makes up what the PSF took away, and the spectrum of a picture, which is that of what was left, does not tell
whether it does so rightly. Where little was taken, that decides: of smooth pictures of an error of 44 to 75 dB (discs
with soft edges, waves, a colour wheel) total variation had made 50 of 138 worse, by up to 24 dB, for want of edges.

So the picture, which looks somewhat as its scene does, is blurred once more and restored the same way; and so is the
result. What did harm lost in the mean of the two: 43 of 45 pictures by total variation, 6 of 10 by the hyper-Laplacian,
11 of 15 by the gradient prior; and hardly any that helped (docs/decisions/0096).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from convpinv.arguments import ConvergenceError
from convpinv.imaging import regularization
from convpinv.imaging.material import Material, Task, Unit
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.no_harm import Verdict
from convpinv.imaging.solving import solve

# Trials are made where the restoration changes the picture by no more than this share of its variance (14 dB): it may
# have made up all of that. Larger changes did no harm to any of 535 pictures, and there a trial of what is blurred
# beyond recognition would fail.
SMALL_CHANGE = 10**-1.4
# What is all noise (this share of what the picture misses, which is more than that of its variance: 24 dB) is denoised:
# a trial, whose scene is as noisy, would tell nothing.
ALL_NOISE = 0.85
LOUD = 10**-2.4
# The mean gain of the two trials, in dB, up to which nothing of the restoration is taken, and from which on all of it.
# The quadratic prior that draws towards the mean loses at borders, of which trials have two: at −1 it still helped.
CONVINCING = (0.0, 0.5)
CONVINCING_OF_IDENTITY = (-1.5, -1.0)
SMALL_CHANGE_OF_IDENTITY = 10**-1.8
# Loops end at a step of 1e-3 of the deviation or more; a change that is no larger (57 dB) is none.
TOLERANCE = 10**-5.7
# Pixels a side that the second blur must leave of an unknown border.
SMALLEST = 24
# Of pictures with more pixels than two windows of so many a side, with the reach of the PSF around them, those
# windows stand for the whole: of large pictures a trial costs little.
WINDOW = 160
# Numbers that are restored at once, some 20 MB of the loop's memory: the four windows of a picture of 1024² under a PSF
# of 25 pixels took 78 and 98 ms in two runs, and 142 and 162 one by one.
MOST_TOGETHER = 2**18


def tried(
    verdict: Verdict, task: Task, strength: Tensor, first: Tensor | None, solved: Tensor, sigma: Tensor
) -> Verdict:
    """Return the verdict on pictures at unit scale after the trials of those that ask for them.

    ``solved`` is their restoration at that ``strength``, ``sigma`` (n, C) their noise in their own units.

    Notes
    -----
    Cost: two restorations of each picture that asks for it, or of two windows of a large one.
    """
    count, channels = solved.shape[:2]
    error, noise = (part.reshape(count, channels).mean(1) for part in (verdict.error, verdict.noise))
    weight = verdict.weight.reshape(count, channels).clone()
    change = (solved - task.unit.pictures).square_().mean((1, 2, 3), dtype=torch.float64)
    iterates = task.job.prior not in regularization.LINEAR
    if iterates:
        weight[(change < TOLERANCE) & ~task.unit.flat] = 0
    identity = task.job.prior == "tikhonov"
    small = SMALL_CHANGE_OF_IDENTITY if identity else SMALL_CHANGE
    denoised = (noise > ALL_NOISE * error) & (error > LOUD)
    asks = (weight > 0).any(1) & (change < small) & ~denoised & ~task.unit.flat
    some = torch.nonzero(asks)[:, 0]
    windows = _windows(task.models[0])
    # A caller's denoiser is asked for what it was given for, and no more.
    if not len(some) or not windows or task.job.denoiser is not None:
        return dataclasses.replace(verdict, weight=weight.flatten())
    part = task.part(some, task.material.part(some, False, False))
    deviation = sigma[some].to(solved) / part.unit.scale[:, None].to(solved)
    weights = strength[some], None if first is None else first[some]
    views = [(seed, window) for seed in (0, 1) for window in windows]
    scenes = (part.unit.pictures, solved[some])
    size = scenes[0][windows[0]].numel()
    together = len(views) if len(views) * size <= MOST_TOGETHER else 1
    errors = []
    try:
        for start in range(0, len(views), together):
            chosen = views[start : start + together]
            errors += _errors(part, [(scenes[seed][window], seed) for seed, window in chosen], deviation, *weights)
    except ConvergenceError:  # another size, or another border: no reason to lose what was solved
        return dataclasses.replace(verdict, weight=weight.flatten())
    missed, left = torch.stack(errors).reshape(2, len(windows), 2, -1).sum(1).clamp(min=1e-300).unbind(1)
    gain = (10 * (missed / left).log10()).mean(0)
    nothing, everything = CONVINCING_OF_IDENTITY if identity else CONVINCING
    weight[some] *= ((gain - nothing) / (everything - nothing)).clamp(0, 1)[:, None]
    trials = torch.full_like(weight, torch.nan)
    trials[some] = gain[:, None]
    return dataclasses.replace(verdict, weight=weight.flatten(), trials=trials.flatten())


def _windows(model: BlurModel) -> list[tuple[Any, ...]]:
    """Return the parts of a picture that are tried: all of it, or two windows around opposite quarter points.

    None where the second blur would leave too little.
    """
    sides = [min(WINDOW + 2 * (k - 1), n) for n, k in zip(model.picture, model.psf.shape, strict=True)]
    is_whole = 2 * math.prod(sides) >= math.prod(model.picture)
    tried_sides = model.picture if is_whole else sides
    left = min(side - 2 * (k - 1) for side, k in zip(tried_sides, model.psf.shape, strict=True))
    if left < SMALLEST and not (is_whole and model.boundary != UNKNOWN):
        return []
    if is_whole:
        return [(...,)]
    # Together two of them are as large as the pictures that the rules were found on.
    starts = [
        [min(max(n * quarter // 4 - side // 2, 0), n - side) for n, side in zip(model.picture, sides, strict=True)]
        for quarter in (1, 3)
    ]
    return [(..., slice(top, top + sides[0]), slice(left, left + sides[1])) for top, left in starts]


def _errors(
    task: Task, views: list[tuple[Tensor, int]], deviation: Tensor, strength: Tensor, first: Tensor | None
) -> list[Tensor]:
    """Return the squared errors (2, n) of what the camera sees of scenes (n, C, H, W), and of their restoration.

    Each view is scenes of one size and the seed of their noise; all are solved at once.
    """
    scenes, count = torch.cat([scene for scene, _ in views]), len(views)
    whole = (scenes.shape[-2], scenes.shape[-1])
    # Beyond a window of a larger picture nothing is known.
    boundary = task.models[0].boundary if whole == task.models[0].picture else UNKNOWN
    cameras = [BlurModel.build(model.psf, whole, boundary).camera_again() for model in task.models]
    top, left = cameras[0][1]
    channels = range(scenes.shape[1])
    seen = torch.cat([cameras[channel % len(cameras)][0](scenes[:, [channel]]) for channel in channels], 1)
    for view, (_, seed) in zip(seen.chunk(count), views, strict=True):
        # The same for each picture, so that a batch gives what its pictures give alone.
        draw = torch.randn(view.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        view.add_(deviation[..., None, None] * draw.to(view))
    size = (seen.shape[-2], seen.shape[-1])
    models = [BlurModel.build(model.psf, size, boundary) for model in task.models]
    centre, scale = task.unit.centre.repeat(count, 1, 1, 1), task.unit.scale.repeat(count)
    unit = Unit(seen, centre, scale, task.unit.flat.repeat(count))
    material = Material(seen, task.material.kernels, task.material.sigma.repeat(count, 1))
    quiet = dataclasses.replace(task.job, progress=None, boundary=boundary)
    again = Task(quiet, models, material, unit, task.deviation.repeat(count, 1), task.gain)
    restored = solve(again, strength.repeat(count), None if first is None else first.repeat(count)).planes
    truth = scenes[..., top : top + size[0], left : left + size[1]].to(torch.float64)
    squares = [(values.to(torch.float64) - truth).square().sum((1, 2, 3)) for values in (seen, restored)]
    return list(torch.stack(squares).unflatten(1, (count, -1)).unbind(1))
