"""The one loop: data, differences and constraints of a picture, each with its own variable, brought to agree.

Alternating directions (ADMM). With K the blur and D the differences on the periodic grid, it minimises

    Σ data terms (K x)  +  λ R(D x)    subject to x in C

through the splits ``u = K x``, which the data bind pixel by pixel (:class:`Observation`), ``w = D x``, which shrinks
(:class:`Sparsity`), and where something is known of the scene ``z = x``, which is moved to the nearest point of C
(:class:`Constraint`). What is left for x is diagonal in the spectrum.

Source: M. S. C. Almeida and M. A. T. Figueiredo, "Deconvolving images with unknown boundaries using the alternating
direction method of multipliers", IEEE Transactions on Image Processing 22 (2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging.grid import GridBlur, add_differences, adjoint_differences
from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors.constraint import Constraint
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.restoration import Progress, Restoration, stopped
from convpinv.imaging.priors.shrinkage import Sparsity

# The squared weight of the differences against that of the blurred picture is fixed, so that one prepared diagonal
# serves every picture and every strength.
DIFFERENCE_WEIGHT = 0.3
# The squared weight of the constraints, against that of the blurred picture.
CONSTRAINT_WEIGHT = 0.3
# The first scene is the generalised Tikhonov solution of at least this strength.
FIRST_STRENGTH = 1e-2
# Change of the picture in one step, against its deviation.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Schedule:
    """The penalty of the splits, against the strength λ, over the iteration: ``start · √λ``, then ``growth`` a step.

    It grows ``steps`` times and then stays. ``fewest`` and ``most`` bound the iterations; where ``fewest`` is ``most``
    the plan is the whole iteration, and nothing is asked of its last step. ``forgets``: the differences keep no dual,
    so that the growing penalty alone draws them to the picture's (half-quadratic splitting). The first scene has
    ``first`` times the strength λ.
    """

    start: float = 0.35
    growth: float = 1.0
    steps: int = 0
    fewest: int = 10
    most: int = 400
    forgets: bool = False
    first: float = 0.0

    @property
    def is_plan(self) -> bool:
        """Whether the number of steps is fixed."""
        return self.fewest == self.most


# For costs that are not convex. Held at one penalty, the loop ends in a poor minimum (1 to 5 dB below total variation);
# so it does with a growing one where the differences keep a dual (0.3 to 1 dB below). This plan is the best of thirty.
# It keeps what noise stands in the first scene: with that of 1e-2 at 3 % of noise up to 4.4 dB less than with 4 λ,
# which costs 0.25 dB at worst on sixteen cases; λ gains as much, 16 λ no more.
# Source: D. Krishnan and R. Fergus, "Fast image deconvolution using hyper-Laplacian priors", NIPS 2009.
CONTINUATION = Schedule(start=0.3, growth=1.15, steps=40, fewest=40, most=40, forgets=True, first=4.0)


@dataclass(frozen=True)
class Problem:
    """What is minimised: pictures (n, C, H, W) of unit scale, their channels belonging together, λ a picture (n,)."""

    model: BlurModel
    observation: Observation
    sparsity: Sparsity
    strength: Tensor
    constraint: Constraint | None = None
    schedule: Schedule = Schedule()


def minimise(problem: Problem, progress: Progress | None = None, *, keep_scene: bool = False) -> Restoration:
    """Run the loop; a picture leaves it when it has converged, so that a batch gives what its pictures give alone.

    The planes of the result are (n, C, H, W), as the observation's; with ``keep_scene`` it has the whole grid too.
    """
    solver = _Splitting(problem)
    model, schedule = problem.model, problem.schedule
    state = solver.start(problem)
    result = torch.empty_like(problem.observation.data)
    scene = torch.empty_like(state.scene) if keep_scene else None
    active = torch.arange(len(result), device=result.device)
    iteration = unfinished = 0
    while iteration < schedule.most and active.numel():
        change = solver.step(state)
        iteration += 1
        if progress is not None:
            progress(iteration, schedule.most)
        may_end = iteration >= max(schedule.fewest, schedule.steps)
        done = change < TOLERANCE if may_end else torch.zeros_like(change, dtype=torch.bool)
        if iteration == schedule.most or bool(done.any()):
            finished = done if iteration < schedule.most else torch.ones_like(done)
            picture = model.window(state.scene)[finished]
            if state.constraint is not None:
                picture = state.constraint.kept(finished).within(picture)
            result[active[finished]] = picture
            if scene is not None:
                scene[active[finished]] = state.scene[finished]
            unfinished = int((~done).sum())
            active = active[~finished]
            state = state.kept(~finished)
        if iteration <= schedule.steps:
            state.grow(schedule.growth)
    ended = schedule.is_plan or iteration < schedule.most or not unfinished
    status = "converged" if ended else stopped(schedule.most)
    return Restoration(result, problem.strength, solver.grid.describe(), iteration, status, scene=scene)


@dataclass
class _State:
    """The variables of the splitting, pictures first; everything here belongs to one run and is replaced by it."""

    observation: Observation
    constraint: Constraint | None
    scene: Tensor  # x (n, C, grid)
    blurred: Tensor  # K x
    data_dual: Tensor
    difference_dual: Tensor  # (n, 2·C, grid)
    constraint_dual: Tensor | None
    strength: Tensor  # (n, 1, 1, 1)
    penalty: Tensor

    def kept(self, which: Tensor) -> _State:
        """Return the state of some of the pictures."""
        return _State(
            self.observation.kept(which),
            None if self.constraint is None else self.constraint.kept(which),
            self.scene[which],
            self.blurred[which],
            self.data_dual[which],
            self.difference_dual[which],
            None if self.constraint_dual is None else self.constraint_dual[which],
            self.strength[which],
            self.penalty[which],
        )

    def grow(self, growth: float) -> None:
        """Raise the penalty; the scaled duals are multiples of its inverse."""
        self.penalty = self.penalty * growth
        for dual in (self.data_dual, self.difference_dual, self.constraint_dual):
            if dual is not None:
                dual.div_(growth)


class _Splitting:
    """The prepared parts of the loop: nothing here changes while it runs."""

    def __init__(self, problem: Problem) -> None:
        dtype = problem.observation.data.dtype
        self.model = problem.model
        self.sparsity = problem.sparsity
        self.schedule = problem.schedule
        self.grid = GridBlur.of(problem.model, dtype)
        constrained = CONSTRAINT_WEIGHT if problem.constraint is not None else 0.0
        self.inverse = 1 / (self.grid.power + DIFFERENCE_WEIGHT * self.grid.differences + constrained)

    def start(self, problem: Problem) -> _State:
        """Return the state at a first scene: generalised Tikhonov, of the picture continued over the grid."""
        grid = self.grid
        spectrum = grid.adjoint(self.model.extended(problem.observation.data))
        strength = problem.strength.to(problem.observation.data.dtype).reshape(-1, 1, 1, 1)
        first = (self.schedule.first * strength).clamp(min=FIRST_STRENGTH)
        spectrum.div_(grid.power + first * grid.differences)
        scene, blurred = grid.back(spectrum), grid.blurred(spectrum)
        count, channels, rows, columns = scene.shape
        return _State(
            observation=problem.observation,
            constraint=problem.constraint,
            scene=scene,
            blurred=blurred,
            data_dual=torch.zeros_like(scene),
            difference_dual=scene.new_zeros(count, 2 * channels, rows, columns),
            constraint_dual=None if problem.constraint is None else torch.zeros_like(scene),
            strength=strength,
            penalty=self.schedule.start * strength.sqrt() / DIFFERENCE_WEIGHT,
        )

    def step(self, state: _State) -> Tensor:
        """Advance by one iteration; return the change of each picture, relative to its deviation (n,).

        In scaled form, with v = K x − dual: u is the minimiser near v, the new dual u − v, and the target of K x is
        u + dual. The same with the differences and with the constraint.
        """
        rows, columns = self.model.picture

        # In place throughout: the dual's memory holds v, that of K x the target.
        target, near = state.blurred, torch.sub(state.blurred, state.data_dual, out=state.data_dual)
        target.copy_(near)
        target[..., :rows, :columns] = state.observation.nearest(self.model.window(near), state.penalty)
        state.data_dual = torch.sub(target, near, out=near)
        spectrum = self.grid.adjoint(target.add_(state.data_dual))

        # The minimiser is f v and the target (2 f − 1) v: the factor of each pixel is enough.
        steep = add_differences(state.difference_dual.neg_(), state.scene)
        factor = self.sparsity.factor(steep, state.strength / (state.penalty * DIFFERENCE_WEIGHT))
        if self.model.boundary_is_known:  # the border repeats the picture: it costs nothing of its own
            inside, factor = self.model.window(factor), torch.ones_like(factor)
            factor[..., :rows, :columns] = inside
        if self.schedule.forgets:
            rest = adjoint_differences(steep, factor)
            state.difference_dual = steep.zero_()
        else:
            rest = adjoint_differences(steep, 2 * factor - 1)
            state.difference_dual = steep.mul_(factor.sub_(1))
        rest.mul_(DIFFERENCE_WEIGHT)

        if state.constraint is not None and state.constraint_dual is not None:
            copy = state.scene - state.constraint_dual
            obeying = state.constraint.nearest(copy)
            state.constraint_dual = torch.sub(obeying, copy, out=copy)
            rest.add_(obeying + state.constraint_dual, alpha=CONSTRAINT_WEIGHT)

        spectrum.add_(self.grid.transform(rest)).mul_(self.inverse)
        # What is no longer needed goes before the next is made: a third of the loop's memory.
        del rest, target, near, steep, factor
        scene = self.grid.back(spectrum)
        state.blurred, state.scene, former = scene, scene, state.scene
        change = (self.model.window(scene) - self.model.window(former)).square_().mean((-3, -2, -1)).sqrt_()
        del former
        state.blurred = self.grid.back(spectrum.mul_(self.grid.transfer))
        return change
