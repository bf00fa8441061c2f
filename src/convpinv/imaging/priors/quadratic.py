"""The priors without a loop: none, the identity, the gradient. Each linear step is a prepared pseudo-inverse."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.priors import frame
from convpinv.imaging.priors.restoration import SOLVE_TOLERANCE, Progress, Restoration, solved, stopped

# Estimated error of a pixel of the masked identity prior, against the picture's deviation.
IDENTITY_TOLERANCE = 1e-5


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


def gradient(
    model: BlurModel,
    planes: Tensor,
    strength: Tensor,
    seen: Tensor | None = None,
    progress: Progress | None = None,
) -> Restoration:
    """Minimise ``½‖A x − y‖² + ½ λ‖D x‖²`` over the pixels that were seen, a plane with its own λ.

    ``seen`` is boolean (N, H, W), for the unknown and the circular border; None is everywhere.
    """
    results = []
    # In double precision: at low noise R is a small difference of large numbers.
    model = dataclasses.replace(model, psf=model.psf.to(torch.float64))
    on_grid = model.boundary == UNKNOWN or seen is not None
    for index, (plane, weight) in enumerate(zip(planes.to(torch.float64), strength.tolist(), strict=True)):
        inverse = model.stacked(math.sqrt(weight), on_grid=on_grid).pinv(tol=SOLVE_TOLERANCE)
        if on_grid:
            known = None if seen is None else seen[index][None]
            restored, steps = frame.solve_unseen(model, inverse, plane[None], known, weight, progress)
        else:
            solution = solved(inverse, frame.without_differences(plane[None]))
            restored, steps = solution.value[0], solution.iterations
        results.append((restored, steps, inverse.explain()))
    iterations = max(result[1] for result in results)
    status = "converged" if iterations < frame.ITERATIONS or not on_grid else stopped(frame.ITERATIONS)
    restored = torch.stack([result[0] for result in results]).to(planes.dtype)
    return Restoration(restored, strength, results[0][2], iterations, status)
