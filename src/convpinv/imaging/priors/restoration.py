"""What every prior gives back, and what their solvers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from convpinv.arguments import ConvergenceError
from convpinv.linalg import PinvOperator, Solution

Progress = Callable[[int, int], None]

# Relative residual of an iterative linear solve: far below what a picture shows.
SOLVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Restoration:
    """Restored planes (N, H, W), the strength used (N,), what the solver was, how many steps, and how it ended."""

    planes: Tensor
    strength: Tensor
    solver: str
    iterations: int
    status: str
    warnings: tuple[str, ...] = ()


def solved(inverse: PinvOperator, data: Tensor, advice: str = "give a larger strength, or take prior 'tv'") -> Solution:
    """Apply a pseudo-inverse, and raise where it did not converge: linear answers are exact or none."""
    solution = inverse.solve(data)
    if not solution.status.is_success:
        raise ConvergenceError(
            f"deblur: the linear solver {solution.status.message}, after {solution.iterations} iterations at a "
            f"relative residual of {solution.residual:.1e}; {advice}"
        )
    return solution


def stopped(iterations: int) -> str:
    """Say that an iteration ended at its limit; :mod:`convpinv.imaging.report` looks for the first word."""
    return f"stopped after {iterations} iterations"
