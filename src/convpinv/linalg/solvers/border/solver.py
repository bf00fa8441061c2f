"""Every boundary, directly: a periodic convolution plus corrections at its border, factored once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import (
    Forecast,
    Problem,
    Solution,
    Solver,
    Status,
    UnsuitableError,
    batch_norm,
)
from convpinv.linalg.solvers.border import layout, probes, systems
from convpinv.linalg.solvers.border.cost import best_elimination, eliminations
from convpinv.linalg.solvers.border.half_periodic import TurnedSystem, half_periodic_system, turned
from convpinv.linalg.solvers.border.refinement import Refined, refine
from convpinv.linalg.solvers.border.systems import AugmentedSystem, Pair, SquareSystem

# Where damp = 0 and the operator is not square, the factored system is damped by these parts of σ₁, one after the
# other until refinement converges. What data outside the range leave over costs ε/base², and a step of refinement
# leaves (base/σ)² of the error: the first serves condition numbers up to some 1e3, the second up to 1e6.
UNDAMPED_BASES = (1e-3, 1e-6)
# However small damp is, the factored system is damped by this part of σ₁: its condition number is the reciprocal.
LEAST_DAMP = 1e-9
# Estimated error up to which an answer is given without being asked for less.
ACCURACY = 1e-7
# Factor on the rounding that is seen: on 300 small operators at damp = 1e-6·σ₁ it left the estimate some hundred times
# the true error.
SAFETY = 50.0
# Part of the data, at unit scale, below which the answer counts as small beside them.
EXPLAINED = 1e-2
# Largest peak memory while preparing.
LARGEST_MEMORY = 8 * 2**30
OPERATIONS_A_SECOND = 3e10
# The automatic choice takes up to a minute on two cores, and some minutes where the factors will be used often.
AUTOMATIC_OPERATIONS = 2e12
PATIENT_OPERATIONS = 1e13
MANY_APPLICATIONS = 100
SEVERAL_APPLICATIONS = 10
# Up to this σ₁/damp its answers have been accurate: on 58 small operators, most of them of unequal channels, ten were
# not at 1e7, and one at 1e5 of some 270 others.
SURE = 1e4
# Seconds, fitted to 270 solves: for calling, an operation and a pixel of either side; for calling, an entry of the
# border matrix and a pixel.
PREPARE_SECONDS = 1.1e-2, 7e-11, 1.9e-7
APPLY_SECONDS = 3.2e-3, 4.9e-9, 1.5e-7
# Who asks for no more than this in double precision wants an iteration, not the last digits.
LOOSE_TOLERANCE = 1e-7


@dataclass(frozen=True)
class BorderState:
    """A factored system at unit scale, and the operator against which its solutions are refined."""

    problem: Problem
    operator: Convolution  # in double precision, divided by `scale`
    scale: float
    base_damp: float  # of the factored system; 0 where it is A itself
    system: SquareSystem | AugmentedSystem | TurnedSystem
    gains: tuple[float, float]  # by how much rounding of the equations grows: in outputs, in inputs

    @property
    def damp(self) -> float:
        """Damping that was asked for, at unit scale."""
        return self.problem.regularization.damp / self.scale


@final
class Border(Solver):
    """Circulant plus border correction: what is not periodic is eliminated by one dense matrix as long as the border.

    Where damp > 0 the augmented system is factored, else A itself where it is square, or else the augmented system
    slightly damped, which refinement then undoes. Each application refines until nothing is won, and knows its error.
    """

    name = "border"
    title = "Border (periodic, corrected at the border)"

    def refuses(self, problem: Problem) -> str | None:
        """A rank threshold that was asked for, and border matrices that do not fit."""
        if not problem.regularization.is_default_cut:
            return "it sees no singular values to cut at a given atol or rtol; damp is what it can do"
        way = best_elimination(problem)
        if way.peak > LARGEST_MEMORY:
            return (
                f"a border matrix of {way.unknowns} x {way.unknowns} needs {_bytes(way.peak)} to prepare, "
                f"over the limit of {_bytes(LARGEST_MEMORY)}"
            )
        return None

    def declines(self, problem: Problem) -> str | None:
        """Where the factors are dear, and where less is asked for than they give."""
        operator, way = problem.operator, best_elimination(problem)
        many = problem.applications >= MANY_APPLICATIONS
        if way.operations > (PATIENT_OPERATIONS if many else AUTOMATIC_OPERATIONS):
            return f"a border matrix of {way.unknowns} x {way.unknowns}; solver='border' is direct, slow to prepare"
        few = problem.applications < SEVERAL_APPLICATIONS
        if few and operator.dtype == double_of(operator.dtype) and problem.tolerance >= LOOSE_TOLERANCE:
            return "a loose tol for a few applications: they are iterated before a matrix is factored"
        return None

    def forecast(self, problem: Problem) -> Forecast:
        """The elimination counted beforehand; it is relied on where singular values are not too near 0."""
        way, operator = best_elimination(problem), problem.operator
        pixels = prod(operator.out_shape) + prod(operator.in_shape)
        prepare = PREPARE_SECONDS[0] + PREPARE_SECONDS[1] * way.operations + PREPARE_SECONDS[2] * pixels
        entries = operator.geometry.groups * way.unknowns**2
        apply = APPLY_SECONDS[0] + APPLY_SECONDS[1] * entries + APPLY_SECONDS[2] * pixels
        found = problem.conditioning
        return Forecast(prepare, apply, found.largest <= SURE * problem.regularization.damp or found.is_certain)

    def describe(self, problem: Problem) -> str:
        """Name the border matrix and what it costs."""
        way, groups = best_elimination(problem), problem.operator.geometry.groups
        times = f"{groups} times " if groups > 1 else ""
        return (
            f"border matrix {times}{way.unknowns} x {way.unknowns}, {_bytes(way.kept)} kept, "
            f"{_bytes(way.peak)} and {_seconds(way.operations)} on two cores to prepare; "
            "two solves and eight FFTs to apply, refined"
        )

    def prepare(self, problem: Problem) -> BorderState:
        """Gather and factor the border matrix."""
        operator = structure.trimmed(problem.operator.to(double_of(problem.operator.dtype)))
        # A power of two: what is exactly dependent in the kernel stays so.
        scale = spectrum.binary_scale(_symbol_scale(operator))
        operator = Convolution(operator.weight / scale, operator.geometry)
        damp = problem.regularization.damp / scale
        if damp:
            return _augmented_state(problem, operator, scale, max(damp, LEAST_DAMP))
        if systems.is_square(operator):
            state = BorderState(problem, operator, scale, 0.0, systems.square_system(operator), (1.0, 1.0))
            if probes.is_inverse(lambda batch, back: _solve(state, batch, back).value, operator, _cut(problem)):
                return state
            del state  # A is singular, and what may be a gigabyte is not needed any more
        way = eliminations(operator, True)[0]
        if way.peak > LARGEST_MEMORY or way.operations > PATIENT_OPERATIONS:
            raise UnsuitableError("undamped, the square operator is singular to working precision; damp helps")
        for base in UNDAMPED_BASES:
            if base < _cut(problem):
                break
            state = _augmented_state(problem, operator, scale, base)
            if probes.serves_all(functools.partial(_solve, state), operator, _cut(problem)):
                return state
        raise UnsuitableError(
            "undamped, the operator has singular values too near 0 and not 0 (probes came back wrong); damp helps"
        )

    def apply(self, state: BorderState, batch: Tensor) -> Solution:
        """``A⁺ y``: solve, refine."""
        return _solution(state, batch, adjoint=False)

    def adjoint(self, state: BorderState, batch: Tensor) -> Solution:
        """``(A⁺)ᴴ x``: the other half of the same system."""
        return _solution(state, batch, adjoint=True)


def _symbol_scale(operator: Convolution) -> float:
    """Largest Frobenius norm of the periodic symbol: σ₁ to within the square root of the channels."""
    domain = layout.domain_of(operator.geometry, True)
    matrices = spectrum.matrices_of(systems.periodic_symbol(operator, domain))
    return float(spectrum.frobenius_norms(matrices).max())


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{max(count / 2**20, 0.1):.1f} MB"


def _seconds(operations: float) -> str:
    # Measured: 3e9 in 0.15 s, 1.9e11 in 3 s, 3.7e11 in 10 s.
    seconds = operations / OPERATIONS_A_SECOND
    return f"some {seconds:.0f} s" if seconds > 1.5 else "a second or two"


def _solution(state: BorderState, batch: Tensor, adjoint: bool) -> Solution:
    right = batch.to(state.operator.dtype)
    refined = _solve(state, right, adjoint)
    # Relative to the answer; and where the operator explains next to nothing of the data, relative to these: an answer
    # that ought to be zero has no digits of its own.
    size = torch.maximum(batch_norm(refined.value), EXPLAINED * batch_norm(right))
    error = torch.where(size > 0, refined.error / torch.where(size > 0, size, 1.0), refined.error)
    worst = float(error.max())
    # A tolerance asks iterations for more; here nothing is left to win, and what counts is whether that is enough.
    met = worst <= max(state.problem.accuracy, ACCURACY)
    if not met and state.base_damp and bool(torch.isfinite(error).all()):
        # The estimate supposes rounding in all directions, the null space's too. Data of another size round
        # differently, and what comes back differently is what rounding did.
        noise = [factor * _solve(state, right / factor, adjoint).value - refined.value for factor in (3.0, 0.7)]
        worst = float((SAFETY * sum(batch_norm(part) for part in noise) / torch.where(size > 0, size, 1.0)).max())
        met = worst <= max(state.problem.accuracy, ACCURACY)
    value = (refined.value / state.scale).to(batch.dtype)
    return Solution(value, Status.DIRECT if met else Status.INACCURATE, refined.steps, worst)


def _solve(state: BorderState, right: Tensor, adjoint: bool) -> Refined[Tensor]:
    operator, system = state.operator, state.system
    forward = operator._apply_adjoint if adjoint else operator._apply
    if isinstance(system, SquareSystem):
        inverse = system.solve_adjoint if adjoint else system.solve
        return refine(inverse, lambda value: right - forward(value), right, batch_norm)
    if state.base_damp == state.damp:
        return _damped(state, right, None, adjoint)
    if state.damp:
        return _iterated(state, right, adjoint, batch_norm)
    # What lies outside the range, or nearly so, is left behind by fitting first: of the fitted data the second pass
    # finds the shortest preimage. In one pass singular values of 1e-8·σ₁, which are the rounding of a kernel in single
    # precision, came back as an error of 8 %.
    first = _iterated(state, right, adjoint, lambda value: batch_norm(forward(value)))
    fitted = forward(first.value)
    size = batch_norm(fitted)
    negligible = size <= 1e3 * torch.finfo(fitted.dtype).eps * batch_norm(right)
    fitted = torch.where(negligible.reshape(-1, 1, 1, 1), torch.zeros_like(fitted), fitted)
    second = _iterated(state, fitted, adjoint, batch_norm)
    # An error of the fit, in the units of the data, is at worst divided by the least singular value that is served.
    carried = torch.where(negligible, 0.0, first.error / state.base_damp)
    return Refined(second.value, second.error + carried, first.steps + second.steps)


def _iterated(state: BorderState, right: Tensor, adjoint: bool, norms: Callable[[Tensor], Tensor]) -> Refined[Tensor]:
    """Iterated Tikhonov regularisation: what the larger damping took away is put back, step by step."""
    damp = state.damp
    forward = state.operator._apply_adjoint if adjoint else state.operator._apply
    found: list[Refined[Tensor]] = []
    total: list[Tensor] = []

    def solve(left: Tensor) -> Tensor:
        found.append(_damped(state, left, damp**2 * total[0] if damp and total else None, adjoint))
        return found[-1].value

    def residual(value: Tensor) -> Tensor:
        total[:] = [value]
        return right - forward(value)

    outer = refine(solve, residual, right, norms)
    steps = sum(part.steps for part in found)
    if damp:
        inner = torch.stack([part.error for part in found]).max(0).values
        return Refined(outer.value, torch.maximum(outer.error, inner), steps)
    return Refined(outer.value, outer.error, steps)


def _damped(state: BorderState, left: Tensor, pull: Tensor | None, adjoint: bool) -> Refined[Tensor]:
    """Solve ``(AᴴA + base²) x = Aᴴ left − pull`` by the augmented system; for the adjoint with A and Aᴴ exchanged."""
    operator, base, system = state.operator, state.base_damp, state.system
    assert not isinstance(system, SquareSystem)
    other = left.new_zeros(len(left), *(operator.out_shape if adjoint else operator.in_shape))
    if pull is not None:
        other = pull / (-base if adjoint else base)
    given = Pair(other, left) if adjoint else Pair(left, other)

    def residual(value: Pair) -> Pair:
        return Pair(
            given.outputs - base * value.outputs - operator._apply(value.inputs),
            given.inputs - operator._apply_adjoint(value.outputs) + base * value.inputs,
        )

    refined = refine(system.solve, residual, given, Pair.norms)
    # Rounding of the residual itself, as large as the system makes it: on 4320 small operators this was never below a
    # true error that mattered, and some five times above it where data outside the range decide.
    epsilon = torch.finfo(operator.dtype).eps
    rounding = epsilon * state.gains[0 if adjoint else 1] * refined.value.norms()
    value = refined.value.outputs if adjoint else refined.value.inputs
    return Refined(value, refined.error + rounding, refined.steps)


def _augmented_state(problem: Problem, operator: Convolution, scale: float, base: float) -> BorderState:
    """Factor the augmented system, damped by ``base``, and see by how much it lets random errors grow."""
    way = eliminations(operator, True)[0].way
    if way == "around":
        system = systems.augmented_system(operator, base)
    elif way == "columns":
        system = half_periodic_system(operator, base)
    else:
        system = TurnedSystem(half_periodic_system(turned(operator), base))
    generator = torch.Generator().manual_seed(0)
    outputs, inputs = (_random(shape, operator, generator) for shape in (operator.out_shape, operator.in_shape))
    grown = (
        system.solve(Pair(outputs, torch.zeros_like(inputs))).outputs,
        system.solve(Pair(torch.zeros_like(outputs), inputs)).inputs,
    )
    gains = float(grown[0].norm() / outputs.norm()), float(grown[1].norm() / inputs.norm())
    return BorderState(problem, operator, scale, base, system, gains)


def _cut(problem: Problem) -> float:
    """Part of σ₁ below which a singular value counts as zero."""
    return problem.regularization.rtol


def _random(shape: tuple[int, int, int], operator: Convolution, generator: torch.Generator) -> Tensor:
    return torch.randn(1, *shape, generator=generator, dtype=operator.dtype).to(operator.device)
