"""The gradient prior where some pixels were not seen: those outside an unknown border, and those under a mask.

Over the unseen values z the cost after the best x is quadratic: with ``R = I − K P`` (P the pseudo-inverse for data on
the grid) it is ``‖R^½ (y + z)‖²``, so z solves ``F R Fᵀ z = −F R y``, symmetric and positive definite. The symbol of R
is ``λ|D|² / (|K|² + λ|D|²)``, so ``R⁻¹ = I + K (λ DᴴD)⁻¹ Kᴴ`` on the grid preconditions it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors.restoration import Progress
from convpinv.linalg import PinvOperator

ITERATIONS = 300
TOLERANCE = 1e-3


def solve_unseen(
    model: BlurModel,
    inverse: PinvOperator,
    plane: Tensor,
    seen: Tensor | None,
    weight: float,
    progress: Progress | None,
) -> tuple[Tensor, int]:
    """Solve for what the sensor would have seen where it did not, then for the scene; return picture and steps.

    ``plane`` is (1, H, W), its unseen values a first guess; ``seen`` is boolean of that shape, None for all.
    """
    blur = model.blur()
    everything = torch.ones_like(plane) if seen is None else seen.to(plane.dtype)
    outside = model.embedded(everything) == 0
    if not bool(outside.any()):
        return model.window(inverse(without_differences(plane)))[0], 0
    differences = model.differences().pinv()

    def scene(data: Tensor) -> Tensor:
        return inverse(without_differences(data))

    def residual(frame: Tensor) -> Tensor:
        return outside * (frame - blur(scene(frame)))

    def precondition(gap: Tensor) -> Tensor:
        return outside * (gap + blur(differences(differences.H(blur.H(gap)))) / weight)

    data = model.extended(plane)
    gap = -residual(data)
    conditioned = precondition(gap)
    direction, energy = conditioned, _dot(gap, conditioned)
    goal = TOLERANCE**2 * energy
    iteration = 0
    while iteration < ITERATIONS and energy > goal:
        step = residual(direction)
        curvature = _dot(direction, step)
        if curvature <= 0:
            break
        length = energy / curvature
        data = data + length * direction
        gap = gap - length * step
        conditioned = precondition(gap)
        energy, former = _dot(gap, conditioned), energy
        direction = conditioned + (energy / former) * direction
        iteration += 1
        if progress is not None:
            progress(iteration, ITERATIONS)
    return model.window(scene(data))[0], iteration


def without_differences(data: Tensor) -> Tensor:
    """Stack of a blurred picture and differences that are to be 0."""
    return torch.cat([data, data.new_zeros(2, *data.shape[1:])])


def _dot(left: Tensor, right: Tensor) -> float:
    return float((left.to(torch.float64) * right.to(torch.float64)).sum())
