"""Every boundary, directly: a periodic convolution plus corrections at its border, factored once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Geometry
from convpinv.linalg.solvers import border_layout, border_systems
from convpinv.linalg.solvers.base import Problem, Solution, Solver, Status, UnsuitableError, batch_norm, double_of
from convpinv.linalg.solvers.border_refinement import Refined, refine
from convpinv.linalg.solvers.border_systems import AugmentedSystem, Pair, SquareSystem
from convpinv.linalg.solvers.half_periodic import TurnedSystem, half_periodic_system, turned

# Where damp = 0 and the operator is not square, the factored system is damped by these parts of σ₁, one after the
# other until refinement converges: the first serves condition numbers up to some 1e4 and loses few digits to what data
# outside the range leave over, the second serves up to 1e6.
UNDAMPED_BASES = (1e-4, 1e-6)
# However small damp is, the factored system is damped by this part of σ₁: its condition number is the reciprocal.
LEAST_DAMP = 1e-9
# Error of a probe beyond which a factored system counts as useless.
PROBE_ERROR = 1e-8
# Largest peak memory while preparing.
LARGEST_MEMORY = 8 * 2**30
# Floating-point operations of the factorisation: two cores do some 3e10 to 6e10 a second. The automatic choice takes
# up to a quarter of a minute, and some minutes where the factors will be used often.
AUTOMATIC_OPERATIONS = 1e12
PATIENT_OPERATIONS = 1e13
MANY_APPLICATIONS = 100
# From this damping on, relative to σ₁, exactly Toeplitz systems converge in some twenty iterations.
WELL_DAMPED = 1e-3
CHEAP = 1e11


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
        """Where iterations are done before a matrix is factored, and where the factors are dear."""
        operator, damp = problem.operator, problem.regularization.damp
        way = best_elimination(problem)
        many = problem.applications >= MANY_APPLICATIONS
        if way.operations > (PATIENT_OPERATIONS if many else AUTOMATIC_OPERATIONS):
            return f"a border matrix of {way.unknowns} x {way.unknowns}; solver='border' is direct, slow to prepare"
        toeplitz = structure.is_valid(operator) or structure.is_full(operator)
        if toeplitz and damp >= WELL_DAMPED * _symbol_scale(operator) and not (many and way.operations < CHEAP):
            return "damped and exactly Toeplitz: iterations with the corrected inverse symbol take few steps there"
        return None

    def describe(self, problem: Problem) -> str:
        """Name the border matrix and what it costs."""
        way, groups = best_elimination(problem), problem.operator.geometry.groups
        times = f"{groups} times " if groups > 1 else ""
        return (
            f"border matrix {times}{way.unknowns} x {way.unknowns}, {_bytes(way.kept)} kept, "
            f"{_bytes(way.peak)} to prepare; two factored solves and eight FFTs to apply; refined"
        )

    def prepare(self, problem: Problem) -> BorderState:
        """Gather and factor the border matrix."""
        operator = structure.trimmed(problem.operator.to(double_of(problem.operator.dtype)))
        scale = _symbol_scale(operator) or 1.0
        operator = Convolution(operator.weight / scale, operator.geometry)
        damp = problem.regularization.damp / scale
        if damp:
            return _augmented_state(problem, operator, scale, max(damp, LEAST_DAMP))
        if border_systems.is_square(operator):
            try:
                state = BorderState(problem, operator, scale, 0.0, border_systems.square_system(operator), (1.0, 1.0))
                if _probe_error(state) <= PROBE_ERROR:
                    return state
            except torch.linalg.LinAlgError:  # A is singular: the damped systems serve it
                pass
        error = float("inf")
        for base in UNDAMPED_BASES:
            state = _augmented_state(problem, operator, scale, base)
            error = _probe_error(state)
            if error <= PROBE_ERROR:
                return state
        raise UnsuitableError(
            f"undamped, the operator has singular values too near 0 and not 0 (a probe came back {error:.0e} wrong); damp"
        )

    def apply(self, state: BorderState, batch: Tensor) -> Solution:
        """``A⁺ y``: solve, refine."""
        return _solution(state, batch, adjoint=False)

    def adjoint(self, state: BorderState, batch: Tensor) -> Solution:
        """``(A⁺)ᴴ x``: the other half of the same system."""
        return _solution(state, batch, adjoint=True)


def _symbol_scale(operator: Convolution) -> float:
    """Largest Frobenius norm of the periodic symbol: σ₁ to within the square root of the channels."""
    domain = border_layout.domain_of(operator.geometry, True)
    matrices = spectrum.matrices_of(border_systems.periodic_symbol(operator, domain))
    return float(spectrum.frobenius_norms(matrices).max())


@dataclass(frozen=True)
class Elimination:
    """A way of eliminating the border, and what it costs: rows of the border matrix, bytes, floating-point operations.

    ``way`` is "square", "around" (the whole border at once), "columns" (the rows' border a frequency at a time, then
    the columns') or "rows".
    """

    way: str
    unknowns: int
    kept: float
    peak: float
    operations: float


def best_elimination(problem: Problem) -> Elimination:
    """The cheapest way for a problem."""
    return eliminations(structure.trimmed(problem.operator), problem.regularization.damp > 0)[0]


def eliminations(operator: Convolution, damped: bool) -> list[Elimination]:
    """All ways that serve, the cheapest first."""
    ways = [_around(operator, damped), _by_lines(operator, "columns"), _by_lines(turned(operator), "rows")]
    if not damped and border_systems.is_square(operator):
        return [ways[0]]
    return sorted(ways, key=lambda way: way.operations)


def _around(operator: Convolution, damped: bool) -> Elimination:
    geometry = operator.geometry
    frame_inputs, frame_outputs, corrected = border_layout.count_differences(geometry, True)
    square = not damped and border_systems.is_square(operator)
    unknowns = frame_outputs + corrected if square else frame_inputs + frame_outputs + 2 * corrected
    domain = border_layout.domain_of(geometry, True)
    channels = operator.weight.shape[0] // geometry.groups
    if not square:
        channels += operator.weight.shape[1] * prod(geometry.stride)
    response = geometry.groups * channels**2 * domain.output_places * _itemsize(operator)
    # The corrections read blocks of C⁻¹ as large as the border matrix itself.
    blocks = 2 if corrected else 0
    return _elimination("square" if square else "around", operator, unknowns, response, blocks)


def _by_lines(operator: Convolution, way: str) -> Elimination:
    geometry = operator.geometry
    frame_inputs, frame_outputs, corrected = border_layout.count_differences(geometry, False)
    unknowns = frame_inputs + frame_outputs + 2 * corrected
    outputs, inputs = operator.weight.shape[0] // geometry.groups, operator.weight.shape[1]
    lines = outputs * geometry.rows.out_size + inputs * geometry.columns.stride * geometry.rows.size
    row_differences = border_layout.count_differences(
        Geometry(geometry.columns, geometry.rows, inputs, outputs, 1), False
    )
    row_unknowns = sum(row_differences) // max(1, geometry.columns.out_size)
    length = border_layout.grid_length(geometry.columns)
    lags = min(length, 4 * geometry.columns.reach + 4)
    response = geometry.groups * lines**2 * lags * _itemsize(operator)
    way_cost = _elimination(way, operator, unknowns, response, 2 if corrected else 0)
    lookups = geometry.groups * length / 2 * 8 * lines**2 * (row_unknowns + 10)
    return dataclasses.replace(way_cost, operations=way_cost.operations + lookups)


def _elimination(way: str, operator: Convolution, unknowns: int, response: float, blocks: int) -> Elimination:
    groups, itemsize = operator.geometry.groups, _itemsize(operator)
    kept = groups * unknowns**2 * itemsize
    operations = groups * unknowns**3 * (2 / 3 + blocks) * (4 if operator.dtype.is_complex else 1)
    return Elimination(way, unknowns, kept, (2 + blocks) * kept + 3 * response, operations)


def _itemsize(operator: Convolution) -> int:
    return 16 if operator.dtype.is_complex else 8


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{max(count / 2**20, 0.1):.1f} MB"


def _solution(state: BorderState, batch: Tensor, adjoint: bool) -> Solution:
    right = batch.to(state.operator.dtype)
    refined = _solve(state, right, adjoint)
    size = batch_norm(refined.value)
    error = torch.where(size > 0, refined.error / torch.where(size > 0, size, 1.0), refined.error)
    worst = float(error.max())
    met = worst <= state.problem.accuracy
    value = (refined.value / state.scale).to(batch.dtype)
    return Solution(value, Status.DIRECT if met else Status.INACCURATE, refined.steps, worst)


def _solve(state: BorderState, right: Tensor, adjoint: bool) -> Refined[Tensor]:
    operator, base, damp, system = state.operator, state.base_damp, state.damp, state.system
    forward = operator._apply_adjoint if adjoint else operator._apply
    if isinstance(system, SquareSystem):
        return refine(system.solve_adjoint if adjoint else system.solve, lambda value: right - forward(value), right, batch_norm)
    if base == damp:
        return _damped(state, right, None, adjoint)
    # Iterated Tikhonov regularisation: what the larger damping took away is put back, step by step.
    inner: list[Refined[Tensor]] = []

    def solve(left: Tensor) -> Tensor:
        pull = damp**2 * total[0] if damp and total else None
        inner.append(_damped(state, left, pull, adjoint))
        return inner[-1].value

    total: list[Tensor] = []

    def residual(value: Tensor) -> Tensor:
        total[:] = [value]
        return right - forward(value)

    outer = refine(solve, residual, right, batch_norm)
    steps = sum(part.steps for part in inner)
    error = torch.stack([outer.error, *(part.error for part in inner)]).max(0).values
    return Refined(outer.value, error, steps)


def _damped(state: BorderState, left: Tensor, pull: Tensor | None, adjoint: bool) -> Refined[Tensor]:
    """Solve ``(AᴴA + base²) x = Aᴴ left − pull`` by the augmented system; for the adjoint with A and Aᴴ exchanged."""
    operator, base = state.operator, state.base_damp
    other = left.new_zeros(len(left), *(operator.out_shape if adjoint else operator.in_shape))
    if pull is not None:
        other = pull / (-base if adjoint else base)
    given = Pair(other, left) if adjoint else Pair(left, other)

    def residual(value: Pair) -> Pair:
        return Pair(
            given.outputs - base * value.outputs - operator._apply(value.inputs),
            given.inputs - operator._apply_adjoint(value.outputs) + base * value.inputs,
        )

    refined = refine(state.system.solve, residual, given, Pair.norms)
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
        system = border_systems.augmented_system(operator, base)
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


def _probe_error(state: BorderState) -> float:
    """Error of the answer to data in the range of A, relative."""
    picture = _random(state.operator.in_shape, state.operator, torch.Generator().manual_seed(1))
    refined = _solve(state, state.operator._apply(picture), adjoint=False)
    error = float(refined.error / batch_norm(refined.value).clamp(min=torch.finfo(torch.float64).tiny))
    return error if error == error else float("inf")


def _random(shape: tuple[int, int, int], operator: Convolution, generator: torch.Generator) -> Tensor:
    return torch.randn(1, *shape, generator=generator, dtype=operator.dtype).to(operator.device)
