"""Small operators: the singular value decomposition of the whole matrix. The oracle of the tests, too."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import Forecast, Problem, Solution, Solver, direct

# Unknowns on the larger side. Measured on two cores in float64: 1024 take 1 s, and the cost grows with the cube.
LARGEST = 4096
# Where another solver could serve instead, the automatic choice goes up to this: its 2 s are worth an exact answer of
# any rank.
AUTOMATIC = 2048
# Seconds, fitted to 142 solves: for calling, an entry of the matrix and an operation.
PREPARE_SECONDS = 6.2e-4, 1.4e-7, 1.7e-10
APPLY_SECONDS = 6.3e-4, 3.5e-10


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
        """Matrices whose decomposition takes many seconds, where another solver can serve."""
        size = larger_side(problem)
        if size <= AUTOMATIC or not problem.regularization.is_default_cut:
            return None
        return (
            f"{size} unknowns, over the {AUTOMATIC} of the automatic choice; solver='dense' is exact, slow to prepare"
        )

    def forecast(self, problem: Problem) -> Forecast:
        """A decomposition that grows with the cube of the unknowns, and a product of matrices."""
        rows, columns = prod(problem.operator.out_shape), prod(problem.operator.in_shape)
        times = 4 if problem.operator.dtype.is_complex else 1
        calls, entry, operation = (times * seconds for seconds in PREPARE_SECONDS)
        prepare = calls + rows * columns * (entry + operation * min(rows, columns))
        return Forecast(prepare, APPLY_SECONDS[0] + times * APPLY_SECONDS[1] * rows * columns)

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
