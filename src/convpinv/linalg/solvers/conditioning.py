"""What the symbol foretells: how many iterations conjugate gradients will take, and whether they are sure to end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from convpinv.linalg import spectrum, structure
from convpinv.linalg.solvers.base import Problem, double_of

# The symbol is looked at on a grid of at most this side, and of less where its matrices are large: some ten
# milliseconds at 64 channels.
LARGEST_GRID = 32
SMALLEST_GRID = 4
MOST_WORK = 2e6
# Iterations are ``factor · condition^power · log(2/tol)``, fitted to 261 solves (benchmarks/automatic_choice.py): half
# of the exactly Toeplitz ones lie within 1.3 times that, nine of ten within 2.2; of the others 1.5 and 4.2.
TOEPLITZ = (0.19, 0.34)
OTHERWISE = (0.63, 0.69)
# Up to this σ₁/damp the 2000 iterations of the default have sufficed with some to spare.
SURE_TOEPLITZ = 1e3
SURE_OTHERWISE = 50.0
# Up to this condition number of the samples, whatever the damping.
SURE_WHATEVER_THE_DAMPING = 30.0


@dataclass(frozen=True)
class Conditioning:
    """What samples of the symbol tell of a problem.

    Attributes
    ----------
    largest : float
        The largest singular value σ₁ of the symbol.
    condition : float
        Of the damped symbol, on its smaller side: ``√((σ₁² + damp²) / (σ_n² + damp²))``. Points where a square symbol
        vanishes are not met, but come as a few separate eigenvalues, of which conjugate gradients make little.
    """

    problem: Problem
    largest: float
    condition: float

    @property
    def is_toeplitz(self) -> bool:
        """Whether the normal equations in the smaller space are exactly Toeplitz: the symbol says all of them."""
        operator = self.problem.operator
        return structure.is_valid(operator) if structure.is_wide(operator) else structure.is_full(operator)

    @property
    def iterations(self) -> float:
        """How many will be taken, or the most that may be."""
        factor, power = TOEPLITZ if self.is_toeplitz else OTHERWISE
        expected = factor * self.condition**power * math.log(2.0 / min(self.problem.tolerance, 1.0))
        return min(expected, self.problem.max_iterations)

    @property
    def is_sure(self) -> bool:
        """Whether an iteration is sure to end, with an answer of the accuracy that goes with its tolerance.

        Either the damping is strong, or the condition number small where the symbol bounds the operator's own singular
        values (a compression of a positive definite matrix is no worse conditioned than the matrix) and is not square:
        square ones vanish at points between the samples.
        """
        enough = SURE_TOEPLITZ if self.is_toeplitz else SURE_OTHERWISE
        if self.largest <= enough * self.problem.regularization.damp:
            return True
        outputs, inputs = _symbol_shape(self.problem)
        promised = self.condition * self.problem.tolerance <= self.problem.accuracy
        return self.is_toeplitz and outputs != inputs and promised and self.condition <= SURE_WHATEVER_THE_DAMPING


def conditioning_of(problem: Problem) -> Conditioning:
    """Sample the symbol."""
    operator, damp = problem.operator, problem.regularization.damp
    weight = operator.weight.detach().to(double_of(operator.dtype))
    scale = spectrum.binary_scale(max(float(weight.abs().max()), damp))
    smaller = min(_symbol_shape(problem))
    side = min(max(math.isqrt(int(MOST_WORK / smaller**3)), SMALLEST_GRID), LARGEST_GRID)
    matrices = spectrum.matrices(weight / scale, operator.geometry, (side, side))
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    gram = matrices @ matrices.mH
    squares = (gram.real if smaller == 1 else torch.linalg.eigvalsh(gram)).flatten(1).clamp(min=0.0)
    damped = squares + (damp / scale) ** 2
    # Each group has a preconditioner of its own.
    least, largest = damped.amin(1), damped.amax(1)
    condition = float((largest / least).max().sqrt()) if bool((least > 0.0).all()) else math.inf
    return Conditioning(problem, scale * float(squares.max().sqrt()), condition)


def _symbol_shape(problem: Problem) -> tuple[int, int]:
    geometry = problem.operator.geometry
    inputs = geometry.in_channels // geometry.groups * math.prod(geometry.stride)
    return geometry.out_channels // geometry.groups, inputs
