"""A denoiser as the prior: it says what pictures are like, the data step what was measured.

Half-quadratic splitting of ``½‖A x − y‖² + λ R(x)``: a scene x that agrees with the data and stays near v, and v, the
denoised x, take turns while the penalty ``λ / s²`` between them grows. With noise of level s the denoiser is the
proximal map of ``s² R``, which is all that is asked of it. The level falls geometrically, as in DPIR.

Source: S. V. Venkatakrishnan, C. A. Bouman, B. Wohlberg, "Plug-and-play priors for model based reconstruction",
GlobalSIP (2013); K. Zhang et al., "Plug-and-play image restoration with deep denoiser prior" (DPIR), IEEE Transactions
on Pattern Analysis and Machine Intelligence 44 (2022).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from convpinv.imaging import nonlocal_bayes
from convpinv.imaging.model import BlurModel, taps_before
from convpinv.imaging.priors.data_step import DataStep
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.restoration import Progress, Restoration

# λ against the variance of the noise. DPIR has 0.23, with networks; both denoisers tried here (non-local Bayes, BM3D)
# were 0.1 to 1 dB better with 0.5 than with 0.25, and better than with 1.
STRENGTH_OF_NOISE = 0.5
# The last level against the noise: between 1 and 2 nothing changes but at 10 % of noise, where 2 is 1 dB too smooth.
LAST_LEVEL = 1.25
# The first level for pictures of deviation 1 (20 of 255 grey levels in a usual picture): half of it costs 0.3 dB.
FIRST_LEVEL = 0.35
STEPS = 24
# Patches move little from step to step.
STEPS_BETWEEN_GROUPINGS = 4
# Estimated error of a pixel in the data step, far below the level of any denoising.
TOLERANCE = 1e-3


class Denoiser(abc.ABC):
    """What removes noise of a level from scenes (C, h, w) of unit scale; what it remembers belongs to the caller."""

    name: str

    @abc.abstractmethod
    def denoise(self, scene: Tensor, sigma: float, step: int, memory: Any) -> tuple[Tensor, Any]:
        """Return the scene without the noise, and what the next step of the same picture shall be told."""


@final
class NonlocalBayes(Denoiser):
    """Groups of like patches; the last step's scene guides the next one."""

    name = "groups of like patches (non-local Bayes)"

    def denoise(self, scene: Tensor, sigma: float, step: int, memory: Any) -> tuple[Tensor, Any]:
        """Group again now and then, and estimate every patch from its group."""
        guide, groups = (scene, None) if memory is None else memory
        if groups is None or step % STEPS_BETWEEN_GROUPINGS == 0:
            groups = nonlocal_bayes.grouped(guide)
        clean = nonlocal_bayes.filtered(scene, guide, groups, sigma)
        return clean, (clean, groups)


@final
class GivenDenoiser(Denoiser):
    """A function of the user's, ``call(scene, sigma)`` on scenes in their own units and kind."""

    def __init__(self, call: Callable[[Tensor, float], Tensor], name: str) -> None:
        self.call = call
        self.name = name

    def denoise(self, scene: Tensor, sigma: float, step: int, memory: Any) -> tuple[Tensor, Any]:
        """Call it; it remembers nothing."""
        return self.call(scene, sigma), None


def plug_and_play(
    model: BlurModel,
    observation: Observation,
    strength: Tensor,
    denoisers: list[Denoiser],
    first: Tensor,
    progress: Progress | None = None,
) -> Restoration:
    """Let a denoiser and the data take turns, :data:`STEPS` times, and return what the denoiser left.

    Parameters
    ----------
    model, observation
        The blur and the pictures (n, C, H, W) at unit scale.
    strength
        λ (n,): half the variance of the noise. The levels follow from it.
    denoisers
        One for each picture (their units differ), all of one kind.
    first
        Scenes to start from: of a restoration that has no noise left in it.
    progress
        Called as ``progress(step, STEPS)``.
    """
    step = DataStep(model, observation)
    last = LAST_LEVEL * (strength / STRENGTH_OF_NOISE).sqrt()
    begin = last.clamp(min=FIRST_LEVEL)
    scene, state, clean = first, None, first
    memories: list[Any] = [None] * len(first)
    for index in range(STEPS):
        level = begin * (last / begin) ** (index / (STEPS - 1))
        clean = torch.empty_like(scene)
        for picture, denoiser in enumerate(denoisers):
            whole = _cut(model, scene[picture])
            whole, memories[picture] = denoiser.denoise(whole, float(level[picture]), index, memories[picture])
            clean[picture] = _put(model, whole)
        if progress is not None:
            progress(index + 1, STEPS)
        if index < STEPS - 1:
            penalty = (strength / level.square()).to(scene.dtype)[:, None, None, None]
            scene, state = step.solve(clean, penalty, state, TOLERANCE)
    solver = f"{step.describe()}; denoised by {denoisers[0].name}"
    return Restoration(model.window(clean), strength, solver, STEPS, f"ran the {STEPS} steps of its schedule")


def _reach(model: BlurModel) -> list[tuple[int, int]]:
    """Return how far the scene goes beyond the picture, before and after, along rows and columns."""
    return [(taps_before(k), k // 2) for k in model.psf.shape[-2:]]


def _cut(model: BlurModel, scene: Tensor) -> Tensor:
    """Return the part of a scene (C, grid) that the camera saw, in one piece: a denoiser knows no periodic grid."""
    if model.boundary_is_known or model.grid == model.picture:
        return scene
    for axis, (before, after), size in zip((-2, -1), _reach(model), model.picture, strict=True):
        scene = scene.roll(before, axis).narrow(axis, 0, before + size + after)
    return scene


def _put(model: BlurModel, whole: Tensor) -> Tensor:
    """Return :func:`_cut`'s piece to the grid; the rows that no camera saw repeat the last one that was."""
    if model.boundary_is_known or model.grid == model.picture:
        return whole
    missing = [grid - size for grid, size in zip(model.grid, whole.shape[-2:], strict=True)]
    scene = torch.nn.functional.pad(whole[None], (0, missing[1], 0, missing[0]), mode="replicate")[0]
    return scene.roll([-before for before, _ in _reach(model)], (-2, -1))
