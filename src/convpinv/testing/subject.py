"""What is checked in one call, and the facts on which its tolerances rest: condition number, rank, residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from convpinv.linalg.pinv import PinvOperator
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import Status
from convpinv.linalg.spectrum import Regularization, default_rtol
from convpinv.testing.laws import Operator, tolerance
from convpinv.testing.report import Law

# What rounding may add up to, in units of ε times the condition number.
SAFETY = 100.0
# A law that is allowed to be this far off tells nothing.
LARGEST_TOLERANCE = 0.1
# A singular value within this factor of the rank threshold may be cut or not, by rounding alone.
CLEAR_OF_THRESHOLD = 8.0


@dataclass(frozen=True)
class DenseFacts:
    """An operator's matrix in double precision and what its singular values say; or why there is none.

    ``condition`` is that of what is kept, with damping added in squares. ``inverse`` is None, and ``no_inverse`` says
    why, where the rank is not clear.
    """

    matrix: Tensor | None = None
    condition: float | None = None
    is_deficient: bool = False
    inverse: Tensor | None = None
    no_inverse: str = ""
    failure: str = ""

    @staticmethod
    def of(operator: Operator, regularization: Regularization, dense_limit: int) -> DenseFacts:
        """Decompose the matrix, if it is not too large."""
        size = max(prod(operator.in_shape), prod(operator.out_shape))
        if size > dense_limit:
            return DenseFacts(no_inverse=f"{size} unknowns, over the limit of {dense_limit}")
        try:
            with torch.no_grad():
                matrix = operator.to_dense().detach().to(double_of(operator.dtype))
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        except Exception as error:
            return DenseFacts(no_inverse="there is no matrix", failure=raised(error))
        cut = regularization.is_cut(values, values[0])
        kept = values[~cut]
        damp = regularization.damp
        condition = 1.0
        if kept.numel():
            largest, smallest = (torch.hypot(value, value.new_tensor(damp)) for value in (kept[0], kept[-1]))
            condition = float(largest / smallest)
        threshold = float(regularization.threshold(values[0]))
        # Damping may leave so little of a value near the threshold that it does not matter which side it is on.
        gains = values / (values**2 + damp**2).clamp(min=torch.finfo(values.dtype).tiny)
        matter = gains > torch.finfo(operator.dtype).eps * gains[~cut].max() if kept.numel() else cut
        near = (values > threshold / CLEAR_OF_THRESHOLD) & (values < threshold * CLEAR_OF_THRESHOLD) & matter
        deficient = kept.numel() < min(matrix.shape)
        if bool(near.any()):
            why = "a singular value lies too near the rank threshold to say whether it counts"
            return DenseFacts(matrix, condition, deficient, None, why)
        inverse = (right.mH * regularization.invert(values, values[0])) @ left.mH
        return DenseFacts(matrix, condition, deficient, inverse)


@dataclass(frozen=True)
class Subject:
    """An operator, its pseudo-inverse, and the errors that they may have.

    ``residual`` is the relative one to which the pseudo-inverse was iterated, 0 for direct solvers; ``cuts`` tells
    whether a threshold was asked for.
    """

    operator: Operator
    pinv: Operator
    damp: float
    cuts: bool
    residual: float
    tol: float | None
    dense: DenseFacts

    @staticmethod
    def of(
        operator: Operator, pinv: Operator, damp: float, rtol: float | None, tol: float | None, dense_limit: int
    ) -> Subject:
        """Gather the facts; of a pseudo-inverse of this package it is asked how it was made."""
        height, width = operator.in_shape[1:]
        threshold = default_rtol(operator.dtype, (height, width)) if rtol is None else rtol
        regularization, residual = Regularization(damp, 0.0, threshold, rtol is None), 0.0
        if isinstance(pinv, PinvOperator):
            regularization = pinv.plan.problem.regularization
            zeros = torch.zeros(pinv.in_shape, dtype=pinv.dtype, device=pinv.device)
            if pinv.solve(zeros).status is not Status.DIRECT:
                residual = pinv.plan.problem.tolerance
        dense = DenseFacts.of(operator, regularization, dense_limit)
        return Subject(operator, pinv, regularization.damp, not regularization.is_default_cut, residual, tol, dense)

    @property
    def eps(self) -> float:
        """Rounding unit of the operator's dtype."""
        return torch.finfo(self.operator.dtype).eps

    @property
    def plain(self) -> float:
        """Tolerance of what does not involve the pseudo-inverse."""
        return SAFETY * self.eps if self.tol is None else self.tol

    @property
    def inverted(self) -> float:
        """Tolerance of what does."""
        if self.tol is not None:
            return self.tol
        if self.dense.condition is None:
            return tolerance(self.operator.dtype)
        return SAFETY * self.eps * self.dense.condition + self.residual * self.dense.condition**2

    def laws(self, names: tuple[str, ...], allowed: float, run: Callable[[], dict[str, float]]) -> list[Law]:
        """Evaluate a family of laws; what raises is broken, and what could not fail is left out."""
        if self.tol is None and allowed > LARGEST_TOLERANCE:
            return skipped(names, "so badly conditioned that rounding leaves no digits")
        try:
            errors = run()
        except Exception as error:
            return [Law(name, inf, allowed, raised(error)) for name in names]
        return [Law(name, errors[name], allowed) for name in names]


def skipped(names: tuple[str, ...], why: str) -> list[Law]:
    """Lines for laws that are not tested."""
    return [Law(name, None, 0.0, why) for name in names]


def raised(error: Exception) -> str:
    """Say in one line what went wrong."""
    return f"raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
