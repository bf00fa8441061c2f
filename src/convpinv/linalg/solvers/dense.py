"""Small operators: the singular value decomposition of the whole matrix. The oracle of the tests, too."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.solvers.base import Problem, Solution, Solver, direct, double_of

# Unknowns on the larger side. Measured on two cores in float64: 1024 take 1 s, and the cost grows with the cube.
LARGEST = 4096
# Where an iteration could serve instead, the automatic choice goes up to these: undamped systems may not converge, so
# there an exact answer is worth some ten seconds; so is a matrix that will be applied a hundred times.
AUTOMATIC = 1024
AUTOMATIC_PATIENT = 2048
MANY_APPLICATIONS = 100


@dataclass(frozen=True)
class DenseState:
    """The pseudo-inverse as a matrix (prod(in_shape), prod(out_shape))."""

    inverse: Tensor
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]


@final
class Dense(Solver):
    """Builds the matrix, decomposes it, and keeps its pseudo-inverse."""

    name = "dense"
    title = "Dense (singular value decomposition of the matrix)"

    def refuses(self, problem: Problem) -> str | None:
        """Operators too large to write down."""
        size = larger_side(problem)
        return f"{size} unknowns, over the limit of {LARGEST}" if size > LARGEST else None

    def declines(self, problem: Problem) -> str | None:
        """Matrices that take longer than iterations do, where iterations can serve."""
        size = larger_side(problem)
        patient = not problem.regularization.damp or problem.applications >= MANY_APPLICATIONS
        limit = AUTOMATIC_PATIENT if patient else AUTOMATIC
        if size <= limit or not problem.regularization.is_default_cut:
            return None
        return f"{size} unknowns, over the {limit} of the automatic choice; solver='dense' is exact, slow to prepare"

    def describe(self, problem: Problem) -> str:
        """Name the matrix."""
        operator = problem.operator
        return f"matrix {prod(operator.out_shape)} x {prod(operator.in_shape)}; exact; one matrix product to apply"

    def prepare(self, problem: Problem) -> DenseState:
        """Decompose and invert."""
        operator = problem.operator
        # Decomposed in double precision: in single, values near the threshold are rounding by a tenth of themselves,
        # and fall on either side of it by chance (6 % error measured at damp = 1e-3·σ₁).
        matrix = operator.to(double_of(operator.dtype)).to_dense()
        left, values, right = spectrum.decomposed(matrix)
        inverses = problem.regularization.invert(values, values.max())
        inverse = ((right.mH * inverses) @ left.mH).to(operator.dtype)
        return DenseState(inverse, operator.in_shape, operator.out_shape)

    def apply(self, state: DenseState, batch: Tensor) -> Solution:
        """One matrix product."""
        return direct((batch.flatten(1) @ state.inverse.mT).reshape(-1, *state.in_shape))

    def adjoint(self, state: DenseState, batch: Tensor) -> Solution:
        """One matrix product with the conjugate transpose."""
        return direct((batch.flatten(1) @ state.inverse.conj()).reshape(-1, *state.out_shape))


def larger_side(problem: Problem) -> int:
    """Rows or columns of the matrix, whichever are more."""
    return max(prod(problem.operator.in_shape), prod(problem.operator.out_shape))
