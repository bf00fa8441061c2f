"""The priors: what is known of a picture before it is seen, and how each is solved for.

Every function here takes planes (N, H, W) of unit scale and a :class:`BlurModel`, and returns a :class:`Restoration`.
The linear algebra is that of :mod:`convpinv.linalg` throughout: each linear step is the pseudo-inverse of one
convolution, prepared once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import ConvergenceError
from convpinv.imaging.model import UNKNOWN, BlurModel, BorderRule
from convpinv.linalg import PinvOperator, Solution

Progress = Callable[[int, int], None]

# Gradient prior, unknown border: conjugate gradients on the frame outside the picture.
FRAME_ITERATIONS = 300
FRAME_TOLERANCE = 1e-3
# Relative residual of an iterative linear solve: far below what a picture shows.
SOLVE_TOLERANCE = 1e-6
# Total variation by ADMM. The weight of the differences against that of the blurred picture, squared, is fixed, so
# that one prepared pseudo-inverse serves every plane and every strength.
DIFFERENCE_WEIGHT = math.sqrt(0.3)
# The penalty grows with the square root of the strength: few iterations from 0.1 % to 10 % of noise.
PENALTY = 0.35
TV_ITERATIONS = 400
TV_FEWEST = 10
TV_TOLERANCE = 1e-3
# The weight of a known border, against that of the blurred picture.
BORDER_WEIGHT = math.sqrt(0.3)
# The first scene is the generalised Tikhonov solution of this strength.
FIRST_STRENGTH = 1e-2


@dataclass(frozen=True)
class Restoration:
    """Restored planes (N, H, W), the strength used (N,), what the solver was, how many steps, and how it ended."""

    planes: Tensor
    strength: Tensor
    solver: str
    iterations: int
    status: str
    warnings: tuple[str, ...] = ()


def pseudo_inverse(model: BlurModel, planes: Tensor) -> Restoration:
    """Return the least-squares solution of smallest norm: no prior at all."""
    inverse = model.camera().pinv()
    solution = _solved(inverse, planes[:, None], "take prior 'tikhonov' with a small strength, or 'gradient' or 'tv'")
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
        solution = _solved(inverse, plane[None])
        restored.append(model.seen_of_scene(solution.value)[0])
        explanation, iterations = inverse.explain(), max(iterations, solution.iterations)
        status = solution.status.message
    return Restoration(torch.stack(restored), strength, explanation, iterations, status)


def gradient(model: BlurModel, planes: Tensor, strength: Tensor, progress: Progress | None = None) -> Restoration:
    """Minimise ``½‖A x − y‖² + ½ λ‖D x‖²``, a plane with its own λ: generalised Tikhonov."""
    results = []
    # In double precision: at low noise R is a small difference of large numbers.
    model = dataclasses.replace(model, psf=model.psf.to(torch.float64))
    for plane, weight in zip(planes.to(torch.float64), strength.tolist(), strict=True):
        on_grid = model.boundary == UNKNOWN
        inverse = model.stacked(math.sqrt(weight), on_grid=on_grid).pinv(tol=SOLVE_TOLERANCE)
        if on_grid:
            results.append((*_free_frame(model, inverse, plane[None], weight, progress), inverse.explain()))
        else:
            solution = _solved(inverse, _without_differences(plane[None]))
            results.append((solution.value[0], solution.iterations, inverse.explain()))
    restored = torch.stack([result[0] for result in results]).to(planes.dtype)
    iterations = max(result[1] for result in results)
    status = "converged" if iterations < FRAME_ITERATIONS or model.boundary != UNKNOWN else _stopped(FRAME_ITERATIONS)
    return Restoration(restored, strength, results[0][2], iterations, status)


def _free_frame(
    model: BlurModel, inverse: PinvOperator, plane: Tensor, weight: float, progress: Progress | None
) -> tuple[Tensor, int]:
    """Solve for what the sensor would have seen outside the picture, then for the scene.

    Over the frame z the cost after the best x is quadratic: with ``R = I − K P`` (P the pseudo-inverse for data on the
    grid) it is ``‖R^½ (y + z)‖²``, so z solves ``F R Fᵀ z = −F R y``, symmetric and positive definite. The symbol of R
    is ``λ|D|² / (|K|² + λ|D|²)``, so ``R⁻¹ = I + K (λ DᴴD)⁻¹ Kᴴ`` on the grid preconditions it.
    """
    blur = model.blur()
    outside = (1 - model.embedded(torch.ones_like(plane))).bool()
    if not bool(outside.any()):
        return model.window(inverse(_without_differences(plane)))[0], 0
    differences = model.differences().pinv()

    def scene(data: Tensor) -> Tensor:
        return inverse(_without_differences(data))

    def residual(frame: Tensor) -> Tensor:
        return outside * (frame - blur(scene(frame)))

    def precondition(gap: Tensor) -> Tensor:
        return outside * (gap + blur(differences(differences.H(blur.H(gap)))) / weight)

    data = model.extended(plane)
    gap = -residual(data)
    conditioned = precondition(gap)
    direction, energy = conditioned, _dot(gap, conditioned)
    goal = FRAME_TOLERANCE**2 * energy
    iteration = 0
    while iteration < FRAME_ITERATIONS and energy > goal:
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
            progress(iteration, FRAME_ITERATIONS)
    return model.window(scene(data))[0], iteration


def _without_differences(data: Tensor) -> Tensor:
    """Stack of a blurred picture and differences that are to be 0."""
    return torch.cat([data, data.new_zeros(2, *data.shape[1:])])


def total_variation(
    model: BlurModel,
    planes: Tensor,
    strength: Tensor,
    progress: Progress | None = None,
    limit: int = TV_ITERATIONS,
) -> Restoration:
    """Minimise ``½‖A x − y‖² + λ Σ |D x|`` (isotropic total variation) by ADMM.

    Splits ``u = K x``, which the data bind in the picture only, and ``w = D x``, which shrinks. What is left for x is
    one pseudo-inverse of a stacked convolution, two FFTs. A known border is a third split: x must equal the nearest
    grid that obeys it.

    Source: M. S. C. Almeida and M. A. T. Figueiredo, "Deconvolving images with unknown boundaries using the
    alternating direction method of multipliers", IEEE Transactions on Image Processing 22 (2013).
    """
    solver = _TotalVariation(model, planes.dtype)
    count = planes.shape[0]
    result, weight = planes.clone(), strength.to(planes.dtype)
    state = solver.start(planes[:, None], weight)
    active = torch.arange(count, device=planes.device)
    unfinished = 0
    iteration = 0
    while iteration < limit and active.numel():
        change = solver.step(state)
        iteration += 1
        if progress is not None:
            progress(iteration, limit)
        done = (change < TV_TOLERANCE) if iteration >= TV_FEWEST else torch.zeros_like(change, dtype=torch.bool)
        if iteration == limit or bool(done.any()):
            finished = done if iteration < limit else torch.ones_like(done)
            result[active[finished]] = model.window(state.scene[finished])[:, 0]
            unfinished = int((~done).sum())
            active = active[~finished]
            state = state.kept(~finished)
    status = "converged" if iteration < limit or not unfinished else _stopped(limit)
    return Restoration(result, strength, solver.inverse.explain(), iteration, status)


@dataclass
class _State:
    """The variables of the splitting, planes first; everything here belongs to one run and is replaced by it."""

    data: Tensor  # (n, 1, H, W)
    scene: Tensor  # (n, 1, grid)
    blurred: Tensor  # K x
    differences: Tensor  # D x, (n, 2, grid)
    duals: list[Tensor]
    strength: Tensor  # (n, 1, 1, 1)
    penalty: Tensor

    def kept(self, which: Tensor) -> _State:
        """Return the state of some of the planes."""
        return _State(
            self.data[which],
            self.scene[which],
            self.blurred[which],
            self.differences[which],
            [dual[which] for dual in self.duals],
            self.strength[which],
            self.penalty[which],
        )


class _TotalVariation:
    """The prepared parts of the splitting: nothing here changes while it runs."""

    def __init__(self, model: BlurModel, dtype: torch.dtype) -> None:
        self.model = model
        self.rule = BorderRule.of(model)
        self.inverse = model.stacked(DIFFERENCE_WEIGHT, BORDER_WEIGHT if self.rule else 0.0).pinv()
        self.blur = model.blur()

    def start(self, data: Tensor, strength: Tensor) -> _State:
        extended = self.model.extended(data)
        first = self.model.stacked(math.sqrt(FIRST_STRENGTH)).pinv()
        scene = first(torch.nn.functional.pad(extended, (0, 0, 0, 0, 0, 2)))
        weight = strength.reshape(-1, 1, 1, 1)
        differences = _differences(scene)
        blurred = self.blur(scene)
        return _State(
            data=data,
            scene=scene,
            blurred=blurred,
            differences=differences,
            duals=[torch.zeros_like(blurred), torch.zeros_like(differences), torch.zeros_like(scene)],
            strength=weight,
            penalty=PENALTY * weight.sqrt() / DIFFERENCE_WEIGHT**2,
        )

    def solve(self, blurred: Tensor, differences: Tensor, border: Tensor) -> Tensor:
        """Return the minimiser of ‖K x − a‖² + ρ²‖D x − b‖², and + η²‖x − c‖² where the border is known."""
        parts = [blurred, DIFFERENCE_WEIGHT * differences]
        if self.rule is not None:
            parts.append(BORDER_WEIGHT * border)
        return self.inverse(torch.cat(parts, 1))

    def step(self, state: _State) -> Tensor:
        """Advance by one iteration; return the change of each picture, relative to its deviation (n,)."""
        model = self.model
        penalty, duals = state.penalty, state.duals

        blurred = state.blurred - duals[0]
        seen = (state.data + penalty * model.window(blurred)) / (1 + penalty)
        blurred[..., : model.picture[0], : model.picture[1]] = seen

        differences = state.differences - duals[1]
        threshold = state.strength / (penalty * DIFFERENCE_WEIGHT**2)
        shrunk = differences * (1 - threshold / _length(differences).clamp(min=1e-30)).clamp(min=0)
        if self.rule is None:
            differences = shrunk
        else:  # the border repeats the picture: it costs nothing of its own
            differences[..., : model.picture[0], : model.picture[1]] = model.window(shrunk)

        duals[0] = duals[0] - state.blurred + blurred
        duals[1] = duals[1] - state.differences + differences
        border = state.scene
        if self.rule is not None:
            border = self.rule.nearest(state.scene - duals[2])
            duals[2] = duals[2] - state.scene + border
        former = model.window(state.scene)
        state.scene = self.solve(blurred + duals[0], differences + duals[1], border + duals[2])
        state.blurred, state.differences = self.blur(state.scene), _differences(state.scene)
        return (model.window(state.scene) - former).square().mean((-3, -2, -1)).sqrt()


def _differences(scene: Tensor) -> Tensor:
    """Return the forward differences (n, 2, grid) of scenes (n, 1, grid), down and to the right, periodic."""
    return torch.cat([torch.roll(scene, -1, -2) - scene, torch.roll(scene, -1, -1) - scene], -3)


def _length(differences: Tensor) -> Tensor:
    # torch.linalg.vector_norm over an axis of two took three quarters of the whole restoration's time.
    down, right = differences[:, :1], differences[:, 1:]
    return (down * down + right * right).sqrt_()


def _dot(left: Tensor, right: Tensor) -> float:
    return float((left.to(torch.float64) * right.to(torch.float64)).sum())


def _solved(
    inverse: PinvOperator, data: Tensor, advice: str = "give a larger strength, or take prior 'tv'"
) -> Solution:
    """Apply a pseudo-inverse, and raise where it did not converge: linear answers are exact or none."""
    solution = inverse.solve(data)
    if not solution.status.is_success:
        raise ConvergenceError(
            f"deblur: the linear solver {solution.status.message}, after {solution.iterations} iterations at a "
            f"relative residual of {solution.residual:.1e}; {advice}"
        )
    return solution


def _stopped(iterations: int) -> str:
    return f"stopped after {iterations} iterations"
