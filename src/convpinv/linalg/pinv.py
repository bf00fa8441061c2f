"""PinvOperator: a prepared pseudo-inverse, its adjoint, and its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.derivatives import apply
from convpinv.linalg.inverse import Inverse
from convpinv.linalg.linear_operator import LinearOperator
from convpinv.linalg.precision import double_of, in_full_precision
from convpinv.linalg.solvers.base import Problem, Solution, Status, batch_norm, direct
from convpinv.linalg.solvers.choose import NAMES, Plan, choose
from convpinv.linalg.source import Source, beneath
from convpinv.linalg.spectrum import Regularization

DEFAULT_MAX_ITERATIONS = 2000
# Beyond this damp² leaves the range of double precision; nothing sensible damps by it.
LARGEST_DAMP = 1e150


def default_tolerance(dtype: torch.dtype) -> float:
    """Relative residual at which iterations stop where none is given."""
    return 1e-10 if dtype == double_of(dtype) else 1e-6


def default_accuracy(dtype: torch.dtype) -> float:
    """Relative error of the answer that goes with the default tolerance, where the error can be bounded."""
    return 1e-7 if dtype == double_of(dtype) else 1e-5


@dataclass(frozen=True)
class Request:
    """The checked arguments of ``pinv`` for a convolution: they make a plan for given values of its weight."""

    operator: Convolution
    solver: str
    regularization: Regularization
    damp: Tensor | None
    tolerance: float
    max_iterations: int
    applications: int

    @staticmethod
    def of(
        operator: Convolution,
        damp: float | Tensor = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
        applications: int = 1,
    ) -> Request:
        """Check the arguments."""
        call = "pinv"
        requested = arguments.choice(call, "solver", solver, ("auto", *NAMES))
        number, tensor = arguments.damping(call, damp)
        if number > LARGEST_DAMP:
            arguments.fail(call, "damp", number, f"it may be at most {LARGEST_DAMP:g}")
        regularization = Regularization.resolve(
            number,
            arguments.optional_non_negative(call, "atol", atol),
            arguments.optional_non_negative(call, "rtol", rtol),
            operator.dtype,
            operator.in_shape[1:],
        )
        given = arguments.optional_non_negative(call, "tol", tol)
        tolerance = default_tolerance(operator.dtype) if given is None else given
        iterations = (
            DEFAULT_MAX_ITERATIONS if max_iter is None else arguments.positive_integer(call, "max_iter", max_iter)
        )
        count = arguments.positive_integer(call, "applications", applications)
        arguments.unbatched(call, "weight", operator.weight)
        return Request(operator, requested, regularization, tensor, tolerance, iterations, count)

    def problem(self, values: Tensor | None = None) -> Problem:
        """What a solver is asked for, with given values of the weight or those that it has."""
        if values is None:
            values = arguments.beneath_transforms(self.operator.weight).detach()
        dtype = self.operator.dtype
        return Problem(
            operator=Convolution(values, self.operator.geometry),
            regularization=self.regularization,
            tolerance=self.tolerance,
            accuracy=default_accuracy(dtype) * self.tolerance / default_tolerance(dtype),
            max_iterations=self.max_iterations,
            applications=self.applications,
        )

    @property
    def device(self) -> torch.device:
        """Where the weight lies."""
        return self.operator.device

    @in_full_precision
    def plan(self) -> Plan:
        """Choose a solver for the weight as it is; nothing is prepared."""
        return choose(self.problem(), self.solver)


def prepare_pinv(request: Request) -> PinvOperator:
    """Choose a solver and let it prepare."""
    operator, number = request.operator, request.regularization.damp

    def prepare(values: Tensor) -> tuple[Inverse, Tensor | None]:
        inverse = Inverse.prepare(choose(request.problem(values), request.solver))
        return inverse, None if request.damp is None else values.real.new_full((), number)

    inverse, damp_value = beneath(operator.weight, prepare)
    weight = Source.of("weight", operator.weight, inverse.operator.weight, inverse.no_weight_gradient)
    damp = None if damp_value is None or request.damp is None else Source.of("damping", request.damp, damp_value)
    return PinvOperator(inverse, weight, damp)


@final
class PinvOperator(LinearOperator):
    """The pseudo-inverse of a convolution, prepared: call it on data, as often as you like.

    Made by :meth:`Conv2dOperator.pinv`. Differentiable by the data, by the weight and by a damping that is a tensor: to
    any order, in reverse and forward mode, under ``torch.func`` too. A derivative by a weight that was changed since
    ``pinv()`` raises :class:`~convpinv.GradientError`; those by the data go on.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (12, 12))
    >>> P = A.pinv()
    >>> y = A(torch.rand(1, 12, 12, dtype=torch.float64))
    >>> bool(torch.allclose(A(P(y)), y))                 # A A⁺ y = y on the range of A
    True
    """

    def __init__(self, inverse: Inverse, weight: Source, damp: Source | None) -> None:
        self._inverse = inverse
        self._weight = weight
        self._damp = damp
        operator = inverse.operator
        shapes = (operator.out_shape, operator.in_shape)
        self.in_shape, self.out_shape = reversed(shapes) if inverse.is_adjoint else shapes
        self.dtype = operator.dtype
        self.device = operator.device

    @staticmethod
    def of(plan: Plan, weight: Tensor) -> PinvOperator:
        """Prepare by a plan, for the weight whose values the plan's problem holds; the way of solvers of your own."""
        inverse = Inverse.prepare(plan)
        return PinvOperator(
            inverse, Source.of("weight", weight, inverse.operator.weight, inverse.no_weight_gradient), None
        )

    @property
    def H(self) -> PinvOperator:
        """Adjoint of the pseudo-inverse, from the same prepared state: ``(A⁺)ᴴ = (Aᴴ)⁺``."""
        return PinvOperator(self._inverse.H, self._weight, self._damp)

    @property
    def plan(self) -> Plan:
        """The solver that serves, and what it serves: prints."""
        return self._inverse.plan

    def explain(self) -> str:
        """Text of the plan: the solver, what it costs, and why not the others."""
        return self.plan.text(is_adjoint=self._inverse.is_adjoint)

    def solve(self, y: Tensor) -> Solution:
        """Apply and say how it went: value, status, iterations, residual. Raises nothing where unconverged.

        Parameters
        ----------
        y : Tensor
            Data (C, H, W) or (B, C, H, W), as for the call.

        Returns
        -------
        Solution
            ``residual`` is the largest over the batch: for iterations that of the system iterated on, for direct
            solvers that of the normal equations. No gradient flows through ``value``.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (12, 12))
        >>> solution = A.pinv(damp=0.1, solver="krylov").solve(torch.rand(1, 10, 10, dtype=torch.float64))
        >>> solution.status.is_success, solution.residual < 1e-9
        (True, True)
        """
        outcomes: list[Solution] = []

        def run(batch: Tensor) -> Tensor:
            outcome = self._inverse.solve(batch)
            outcomes.append(outcome)
            return outcome.value

        with torch.no_grad():
            value = self._through(y, run)
            outcome = outcomes[0] if outcomes else direct(value)  # nothing runs for an empty batch
            residual = outcome.residual
            if outcomes and outcome.status is Status.DIRECT:
                residual = self._normal_residual(y, value)
        return Solution(value, outcome.status, outcome.iterations, residual)

    def project_null(self, x: Tensor) -> Tensor:
        """``x − A⁺A x``: what of a picture the operator A does not see; see :meth:`Conv2dOperator.project_null`.

        The kernel is the one that was prepared. Refused with ``damp``, where ``I − A⁺A`` is no projection.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 2, 2, dtype=torch.float64), (8, 8), stride=2)
        >>> P, x = A.pinv(), torch.rand(1, 8, 8, dtype=torch.float64)
        >>> bool(torch.allclose(P.project_null(x) + P(A(x)), x))
        True
        """
        call = "project_null"
        forward = self._projecting(call)
        with arguments.called(call, "x"):
            return x - self(forward(x))

    def project_range(self, y: Tensor) -> Tensor:
        """``A A⁺ y``: what of the data some picture explains; see :meth:`Conv2dOperator.project_range`.

        The kernel is the one that was prepared. Refused with ``damp``, where ``A A⁺`` is no projection.

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3, dtype=torch.float64), (8, 8))
        >>> P, y = A.pinv(), torch.rand(2, 6, 6, dtype=torch.float64)
        >>> bool(torch.allclose(P.project_range(P.project_range(y)), P.project_range(y)))
        True
        """
        call = "project_range"
        forward = self._projecting(call)
        with arguments.called(call, "y"):
            return forward(self(y))

    def _projecting(self, call: str) -> LinearOperator:
        """Give the operator whose pseudo-inverse this is: the values that were prepared, the graph of the kernel."""
        damp = self.plan.problem.regularization.damp
        if damp:
            arguments.fail(
                call, "damp", f"{damp:g} in this pseudo-inverse", "only an undamped one, A.pinv(), gives projections"
            )
        operator = self.plan.problem.operator
        if self._weight.is_differentiated:
            operator = Convolution(self._weight.tied(), operator.geometry)
        return operator.H if self._inverse.is_adjoint else operator

    @property
    def _call_name(self) -> str:
        return self._inverse.call_name

    @property
    def _spreads_what_is_not_finite(self) -> bool:
        return self.plan.solver.spreads_what_is_not_finite

    def _apply(self, batch: Tensor) -> Tensor:
        weight, damp = (
            source.tied() if source is not None and source.is_differentiated else None
            for source in (self._weight, self._damp)
        )
        return apply(batch, weight, damp, self._inverse)

    def _normal_residual(self, y: Tensor, value: Tensor) -> float:
        y, value = y.to(self.dtype), value.to(self.dtype)  # half-precision data come as they were given
        operator = self.plan.problem.operator
        forward, backward = (operator.H, operator) if self._inverse.is_adjoint else (operator, operator.H)
        damp = self.plan.problem.regularization.damp
        gradient = (backward(y - forward(value)) - damp**2 * value).reshape(-1, *self.out_shape)
        scale = batch_norm(backward(y).reshape(-1, *self.out_shape))
        return float((batch_norm(gradient) / torch.where(scale > 0, scale, torch.ones_like(scale))).max())
