"""The quadratic priors: none and the identity by one prepared pseudo-inverse, the gradient by conjugate gradients."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors.data_step import PENALTY_FOR_SINGLE, DataStep
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.restoration import SOLVE_TOLERANCE, Progress, Restoration, solved, stopped

# Estimated error of a pixel, against the picture's deviation.
IDENTITY_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 3e-4
# Which one-sided pixels count settles in a few rounds.
ACTIVE_SETS = 20


def pseudo_inverse(model: BlurModel, planes: Tensor) -> Restoration:
    """Return the least-squares solution of smallest norm: no prior at all."""
    inverse = model.camera().pinv()
    solution = solved(inverse, planes[:, None], "take prior 'tikhonov' with a small strength, or 'gradient' or 'tv'")
    return Restoration(
        model.seen_of_scene(solution.value)[:, 0],
        planes.new_zeros(planes.shape[0]),
        inverse.explain(),
        solution.iterations,
        solution.status.message,
    )


def tikhonov(model: BlurModel, planes: Tensor, strength: Tensor) -> Restoration:
    """Minimise ``½‖A x − y‖² + ½ λ‖x‖²``, a plane with its own λ."""
    operator = model.camera()
    restored, explanation, iterations, status = [], "", 0, ""
    for plane, weight in zip(planes, strength.tolist(), strict=True):
        inverse = operator.pinv(damp=math.sqrt(weight), tol=SOLVE_TOLERANCE)
        solution = solved(inverse, plane[None])
        restored.append(model.seen_of_scene(solution.value)[0])
        explanation, iterations = inverse.explain(), max(iterations, solution.iterations)
        status = solution.status.message
    return Restoration(torch.stack(restored), strength, explanation, iterations, status)


def weighted_tikhonov(model: BlurModel, observation: Observation, strength: Tensor) -> Restoration:
    """Minimise the data terms ``+ ½ λ‖x‖²`` for pictures (n, C, H, W) that were not seen whole, λ a picture (n,)."""
    return _precisely(model, observation, strength, False, None)


def gradient(
    model: BlurModel, observation: Observation, strength: Tensor, progress: Progress | None = None
) -> Restoration:
    """Minimise the data terms ``+ ½ λ‖D x‖²`` for pictures (n, C, H, W), λ a picture (n,).

    By conjugate gradients on the scene, whose step takes two transforms on a grid. (Solving for what the sensor would
    have seen outside, and under a mask, with the pseudo-inverse inside took ten to forty times as long to the same
    quality; the pseudo-inverse of blur and differences stacked, under a known boundary, two to four times, and it could
    not have let the border cost nothing.)
    """
    return _precisely(model, observation, strength, True, progress)


def _precisely(
    model: BlurModel, observation: Observation, strength: Tensor, smooth: bool, progress: Progress | None
) -> Restoration:
    """Minimise the data terms ``+ ½ λ‖x‖²``, or ``+ ½ λ‖D x‖²``, in the precision that λ asks for."""
    data = observation.data
    enough = (strength >= PENALTY_FOR_SINGLE) & (data.dtype == torch.float32)
    if bool(enough.any()) and not bool(enough.all()):
        # Each picture by itself decides, so that a batch gives what its pictures give alone.
        parts = [
            _precisely(model, observation.kept(some), strength[some], smooth, progress) for some in (enough, ~enough)
        ]
        planes = torch.empty_like(data)
        planes[enough], planes[~enough] = (part.planes for part in parts)
        slowest = max(parts, key=lambda part: (part.status.startswith("stopped"), part.iterations))
        return dataclasses.replace(slowest, planes=planes, strength=strength)
    precision = data.dtype if bool(enough.all()) else torch.float64
    model = dataclasses.replace(model, psf=model.psf.to(precision))
    step = DataStep(model, observation.to(precision), smooth=smooth)
    tolerance = GRADIENT_TOLERANCE if smooth else IDENTITY_TOLERANCE
    restoration = _by_steps(step, strength, tolerance, progress)
    return dataclasses.replace(restoration, planes=restoration.planes.to(data.dtype))


def _by_steps(step: DataStep, strength: Tensor, tolerance: float, progress: Progress | None) -> Restoration:
    """Solve for the scene near zero; where pixels are one-sided, until each counts on its measured side only."""
    centre = torch.zeros_like(step.extended(step.observation.data))
    weight = strength.to(centre.dtype).reshape(-1, 1, 1, 1)
    scene, state = step.solve(centre, weight, tolerance=tolerance, progress=progress)
    iterations = state.iterations
    for _ in range(0 if step.observation.is_linear else ACTIVE_SETS):
        former = scene
        scene, state = step.solve(centre, weight, state, tolerance=tolerance)
        iterations += state.iterations
        if float((scene - former).square().mean((-3, -2, -1)).max()) <= tolerance**2:
            break
    status = "converged" if state.converged else stopped(iterations)
    return Restoration(step.picture(scene), strength, step.describe(), iterations, status)
