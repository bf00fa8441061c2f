"""Every other boundary: conjugate gradients with the inverse symbol as preconditioner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.correlation import multiply as multiply_symbol
from convpinv.linalg.polyphase import join_phases, split_phases
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers import conjugate_gradients, frame, undamped
from convpinv.linalg.solvers.base import MANY, Forecast, Problem, Solution, Solver

# Where damp = 0 the preconditioner must not divide by the zeros of the symbol: it is damped by this part of σ₁, and
# more in the larger space, whose system is singular by construction and where a weak floor feeds the null space with
# rounding (measured on 120 random operators: 1e-4 in both spaces takes half as many iterations again).
FLOOR_IN_SMALLER_SPACE = 1e-2
FLOOR_IN_LARGER_SPACE = 1e-1
# Where damp is at least this part of σ₁, Toeplitz systems are solved by elimination, and in single precision. Below the
# first, rounding leaves elimination few digits, and it took twice as many iterations as the preconditioner.
DAMP_FOR_ELIMINATION = 1e-3
DAMP_FOR_SINGLE = 1e-2
# No less than this part of ε·(σ₁/damp)² is asked of elimination, and not less than so many ε: rounding.
WITHIN_ROUNDING = 0.1
FEWEST_ROUNDINGS = 10.0
# The residual of the whole is up to six times the step that ends the iteration on the frame.
FRAME_SHARE = 0.25
# However small damp is, the preconditioner is damped by this part of σ₁: the matrices of the frame's strips have the
# condition number 1/floor², and their Cholesky factors must not fail.
DAMPED_FLOOR = 1e-5
# Seconds, fitted to 297 solves: for calling, and a pixel of either side and a channel; for calling, a pixel, and a
# pixel and a channel, all three for each iteration.
PREPARE_SECONDS = 1.0e-3, 4.0e-8
ITERATION_SECONDS = 6.4e-4, 2.6e-8, 3.0e-9
# Iterations are relied on where four times as many are allowed, and the tolerance is above rounding.
MARGIN = 4.0
LEAST_TOLERANCE = 1e-14
# Up to this σ₁/damp they have been found to end, where the symbol says all or keeps away from 0 (47 problems, 576
# iterations at most), and elsewhere.
SURE_REGULAR = 1e3
SURE_OTHERWISE = 50.0


@dataclass(frozen=True)
class NormalSystem:
    """``A Aᴴ + damp²`` on outputs, or ``AᴴA + damp²`` on pictures, and the inverse symbol that preconditions it.

    Both are nearly Toeplitz with the symbol ``K Kᴴ`` (``KᴴK``) of the polyphase kernel, and exactly so for *valid*
    (*full*) convolutions: there the product itself is taken from the symbol, at two FFTs, and where the inverse symbol
    is exact, so is elimination, but for what is left to be found on the ``frame``.
    """

    operator: Convolution
    on_outputs: bool
    damp: float
    coarse: tuple[int, int]
    inverse_symbol: Tensor
    symbol: Tensor | None
    strips: list[frame.Strip]
    elimination: Elimination | None = None
    negligible: float = 0.0

    def system(self, tolerance: float, margin: float | Tensor | None = None) -> conjugate_gradients.System:
        """What conjugate gradients are told."""
        correct = None if self.elimination is None else self.correct
        return conjugate_gradients.System(self.multiply, self.precondition, tolerance, margin, correct, self.negligible)

    def multiply(self, batch: Tensor) -> Tensor:
        """Apply the system's matrix."""
        if self.symbol is not None:
            product = self._filter(self.symbol, batch)
        elif self.on_outputs:
            product = self.operator._apply(self.operator._apply_adjoint(batch))
        else:
            product = self.operator._apply_adjoint(self.operator._apply(batch))
        return product + self.damp**2 * batch if self.damp else product

    def precondition(self, batch: Tensor) -> Tensor:
        """Embed in a larger periodic grid, divide by the symbol there, correct the frame, crop.

        The embedding is that of Chan and Ng (SIAM Review 38, 1996). The correction of :mod:`.frame` pays where the
        system is exactly Toeplitz: a straight motion blur of 25 pixels at 256², damp² = 1e-3, takes 65 iterations
        without it.
        """
        transformed = spectrum.transform(self._embed(batch))
        inverse = self.inverse_symbol.to(transformed.dtype)  # that of elimination may be kept in single precision
        product = frame.corrected(partial(multiply_symbol, inverse), self.strips, transformed)
        return self._cropped(product, batch)

    def correct(self, right: Tensor, goal: Tensor, budget: int) -> tuple[Tensor, int]:
        """Solve by elimination, with the rounding of its precision."""
        assert self.elimination is not None
        elimination = self.elimination
        precision = elimination.inverse_symbol.real.dtype
        embedded = self._embed(right.to(precision.to_complex() if right.is_complex() else precision))
        goal = FRAME_SHARE * goal.clamp(min=elimination.least)
        spectra, used = elimination.solve(spectrum.transform(embedded), goal.to(precision), budget)
        return self._cropped(spectra, right).to(right.dtype), used

    @property
    def _stride(self) -> tuple[int, int]:
        return (1, 1) if self.on_outputs else self.operator.geometry.stride

    def _embed(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[-2:]
        fine = (self.coarse[0] * self._stride[0], self.coarse[1] * self._stride[1])
        return split_phases(F.pad(batch, (0, fine[1] - width, 0, fine[0] - height)), self._stride)

    def _filter(self, symbol: Tensor, batch: Tensor) -> Tensor:
        return self._cropped(multiply_symbol(symbol, spectrum.transform(self._embed(batch))), batch)

    def _cropped(self, transformed: Tensor, like: Tensor) -> Tensor:
        height, width = like.shape[-2:]
        embedded = spectrum.inverse_transform(transformed, self.coarse, like.is_complex())
        return join_phases(embedded, self._stride)[..., :height, :width]


@dataclass(frozen=True)
class Elimination:
    """The exact inverse symbol of a damped Toeplitz system, and the frame's strips, in the precision that suffices."""

    inverse_symbol: Tensor
    strips: list[frame.Strip]
    condition: float

    @property
    def least(self) -> float:
        """Relative residual that can be asked for."""
        return torch.finfo(self.inverse_symbol.dtype).eps * (FEWEST_ROUNDINGS + WITHIN_ROUNDING * self.condition)

    def solve(self, transformed: Tensor, goal: Tensor, budget: int) -> tuple[Tensor, int]:
        """Spectra of solutions, and iterations; see :func:`.frame.solve`."""
        return frame.solve(partial(multiply_symbol, self.inverse_symbol), self.strips, transformed, goal, budget)


@dataclass(frozen=True)
class KrylovState:
    """The systems that the problem needs: the smaller space alone where damp > 0, both where damp = 0."""

    problem: Problem
    operator: Convolution  # in double precision, divided by `scale`
    scale: float
    damp: float  # the problem's, divided by `scale`
    outputs: NormalSystem | None
    pictures: NormalSystem | None


@final
class Krylov(Solver):
    """Preconditioned conjugate gradients on the normal equations in the smaller of the two spaces.

    With damp > 0 one system is solved, ``(A Aᴴ + damp²) u = y, x = Aᴴu`` or ``(AᴴA + damp²) x = Aᴴy``. With damp = 0
    the shortest least-squares solution is made of at most two consistent systems, each of which conjugate gradients
    solve whatever the rank: ``AᴴA v = Aᴴy``, then ``A Aᴴ u = A v, x = Aᴴu``. Residuals are those of double precision:
    in single, ``κ²·ε`` of the normal equations would leave few digits. Where the damping is strong, what they ask for
    is solved for in single precision, a few digits at a time.
    """

    name = "krylov"
    title = "Krylov (inverse-symbol preconditioner)"
    is_direct = False

    def refuses(self, problem: Problem) -> str | None:
        """A rank threshold that was asked for: iterations see no singular values."""
        if problem.regularization.is_default_cut:
            return None
        return "an iteration cannot cut singular values at a given atol or rtol; damp is what it can do"

    def forecast(self, problem: Problem) -> Forecast:
        """So many iterations as the condition number of the symbol foretells."""
        operator = problem.operator
        pixels = (prod(operator.out_shape) + prod(operator.in_shape)) * (2 if operator.dtype.is_complex else 1)
        channels = max(operator.weight.shape[0] // operator.geometry.groups, operator.weight.shape[1])
        iteration = ITERATION_SECONDS[0] + pixels * (ITERATION_SECONDS[1] + ITERATION_SECONDS[2] * channels)
        expected = problem.conditioning.iterations_to(problem.tolerance)
        return Forecast(
            PREPARE_SECONDS[0] + PREPARE_SECONDS[1] * channels * pixels,
            min(expected, problem.max_iterations, MANY) * iteration,
            _is_sure(problem, expected),
        )

    def describe(self, problem: Problem) -> str:
        """Name the space and the tolerance."""
        operator = problem.operator
        channels, height, width = operator.out_shape if structure.is_wide(operator) else operator.in_shape
        side = "data side" if structure.is_wide(operator) else "image side"
        return (
            f"{side}, {height} x {width} x {channels}; iterates to a relative residual of {problem.tolerance:.0e}, "
            f"at most {problem.max_iterations} iterations; {_accuracy(problem)}; unconverged raises"
        )

    def accuracy(self, problem: Problem) -> float:
        """What the error is held below: without damping as far as the singular values that are met tell."""
        return problem.accuracy if problem.regularization.damp else undamped.allowed_error(problem)

    def prepare(self, problem: Problem) -> KrylovState:
        """Compute the symbol and its inverse, in the space or spaces where iterations will run."""
        operator = problem.operator.to(double_of(problem.operator.dtype))
        if operator.geometry.boundary is Boundary.ZEROS:
            # A frame of zeros around a point spread function makes the strips of the systems wider for nothing.
            operator = structure.trimmed(operator)
        # Kernels below 1e-80 or above 1e77 have residuals whose squares are no numbers: undamped ones came back zero,
        # or as whatever the iteration began with, and were called converged.
        damp = problem.regularization.damp
        scale = spectrum.binary_scale(max(float(operator.weight.abs().max()), damp))
        operator, damp = Convolution(operator.weight / scale, operator.geometry), damp / scale
        wide = structure.is_wide(operator)
        rtol = problem.regularization.rtol
        outputs = _system(operator, True, damp, rtol) if wide or not damp else None
        pictures = _system(operator, False, damp, rtol) if not wide or not damp else None
        return KrylovState(problem, operator, scale, damp, outputs, pictures)

    def apply(self, state: KrylovState, batch: Tensor) -> Solution:
        """``A⁺ y``."""
        return self._solve(state, batch, adjoint=False)

    def adjoint(self, state: KrylovState, batch: Tensor) -> Solution:
        """``(A⁺)ᴴ x = (Aᴴ)⁺ x``: the same with the two spaces exchanged."""
        return self._solve(state, batch, adjoint=True)

    def _solve(self, state: KrylovState, batch: Tensor, adjoint: bool) -> Solution:
        right = batch.to(state.operator.dtype)
        sizes = _binary_sizes(right)
        right = right / sizes
        solution = self._solve_at_unit_scale(state, right, adjoint)
        # One after the other: their quotient may be no number where the product is one.
        return replace(solution, value=(solution.value / state.scale * sizes).to(batch.dtype))

    def _solve_at_unit_scale(self, state: KrylovState, right: Tensor, adjoint: bool) -> Solution:
        operator, problem = state.operator, state.problem
        forward, backward = operator._apply, operator._apply_adjoint
        domain, data = state.pictures, state.outputs
        if adjoint:
            forward, backward = backward, forward
            domain, data = data, domain
        budget = problem.max_iterations
        if state.damp:
            if data is not None:
                outcome = conjugate_gradients.solve(data.system(problem.tolerance), right, budget)
                return conjugate_gradients.solution(backward(outcome.value), [outcome])
            assert domain is not None
            # Here the unknown is the answer itself, and its error may be (σ₁/damp)² times its residual.
            system = domain.system(problem.tolerance, problem.accuracy * state.damp**2)
            outcome = conjugate_gradients.solve(system, backward(right), budget)
            return conjugate_gradients.solution(outcome.value, [outcome])
        assert domain is not None
        assert data is not None
        return undamped.solve(undamped.Spaces(forward, backward, domain.system, data.system), problem, right)


def _is_sure(problem: Problem, expected: float) -> bool:
    """Whether iterations are sure to end, with an answer of the accuracy that goes with their tolerance."""
    found = problem.conditioning
    enough = SURE_REGULAR if found.is_toeplitz or found.is_regular else SURE_OTHERWISE
    promised = found.condition * problem.tolerance <= problem.accuracy
    ends = expected * MARGIN <= problem.max_iterations and problem.tolerance >= LEAST_TOLERANCE
    is_damped = found.largest <= enough * problem.regularization.damp
    return ends and (is_damped or (promised and found.is_certain))


def _binary_sizes(batch: Tensor) -> Tensor:
    """Power of two of each picture's largest value (B, 1, 1, 1), in real numbers; 1 for zero and what is not finite."""
    largest = batch.abs().amax((1, 2, 3), keepdim=True)
    # One below the largest exponent: what is divided by it stays a normal number.
    exponent = torch.frexp(largest).exponent.clamp(-1021, 1023)
    return torch.where(torch.isfinite(largest), torch.ldexp(torch.ones_like(largest), exponent), 1.0)


def _accuracy(problem: Problem) -> str:
    """Say what the tolerance of the residual means for the answer."""
    if not problem.regularization.damp:
        allowed = undamped.allowed_error(problem)
        return f"error of the answer below {allowed:.0e}, as far as the singular values that are met tell"
    if structure.is_wide(problem.operator):
        return f"error of the answer up to (σ₁/damp)²·{problem.tolerance:.0e}"
    return f"error of the answer below {problem.accuracy:.0e}"


def _system(operator: Convolution, on_outputs: bool, damp: float, rtol: float) -> NormalSystem:
    geometry = operator.geometry
    coarse = []
    for axis in geometry.axes:
        length = axis.out_size * axis.stride if on_outputs else axis.size
        coarse.append(spectrum.fast_size(-(-(length + axis.reach) // axis.stride)))
    grid = (coarse[0], coarse[1])
    kernel = spectrum.symbol(operator.weight, geometry, grid)
    if on_outputs:
        gram = torch.einsum("gonhw,gpnhw->gophw", kernel, kernel.conj())
    else:
        gram = torch.einsum("gomhw,gonhw->gmnhw", kernel.conj(), kernel)
    is_toeplitz = structure.is_valid(operator) if on_outputs else structure.is_full(operator)
    floor = FLOOR_IN_SMALLER_SPACE if on_outputs == structure.is_wide(operator) else FLOOR_IN_LARGER_SPACE
    largest = _largest_value(gram)
    inverse = _inverse_symbol(gram, max(damp, DAMPED_FLOOR * largest) if damp else floor * largest)
    window = (geometry.rows.out_size, geometry.columns.out_size) if on_outputs else operator.in_shape[1:]

    # Complex even where it is real: torch would convert it anew at each product, which doubles its time.
    inverse = inverse.to(inverse.dtype.to_complex())
    # Singular values that count as zero in the operator's own precision are there to be seen in double.
    negligible = 0.0 if damp else (rtol * largest) ** 2
    system = NormalSystem(operator, on_outputs, damp, grid, inverse, None, [], negligible=negligible)
    if not is_toeplitz:
        return system
    system = replace(system, symbol=gram.to(inverse.dtype))
    is_moderate = largest >= 1.0 / spectrum.MODERATE and max(largest, damp) <= spectrum.MODERATE
    suffices = inverse.to(torch.complex64) if is_moderate and damp >= DAMP_FOR_SINGLE * largest else inverse
    strips = frame.strips_of(suffices, grid, window, operator.dtype.is_complex)
    if strips is None:
        return system
    if damp < DAMP_FOR_ELIMINATION * largest:
        return replace(system, strips=strips)
    # Iterations are a last resort there: they go without the strips, and precondition in the precision that suffices.
    return replace(
        system, inverse_symbol=suffices, elimination=Elimination(suffices, strips, (largest / damp) ** 2 + 1.0)
    )


def _largest_value(gram: Tensor) -> float:
    """Bound of the largest singular value of the symbol whose Gram matrices these are, above 0."""
    bound = float(gram.diagonal(dim1=1, dim2=2).real.sum(-1).max().sqrt())
    return bound if bound > 0 else 1.0


def _inverse_symbol(gram: Tensor, damp: float) -> Tensor:
    """``(gram + damp²)⁻¹`` for each frequency."""
    size = gram.shape[1]
    shift = damp**2
    if size == 1:
        return 1.0 / (gram.real + shift)
    matrices = spectrum.matrices_of(gram)
    matrices = matrices + shift * torch.eye(size, dtype=gram.dtype, device=gram.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrices))
    return inverse.permute(0, 2, 3, 1).reshape(gram.shape)
