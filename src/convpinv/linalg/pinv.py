"""PinvOperator: a prepared pseudo-inverse, its adjoint, and its gradient by the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.linear_operator import LinearOperator
from convpinv.linalg.solvers.base import Problem, Solution, Status, batch_norm, direct, double_of
from convpinv.linalg.solvers.choose import NAMES, Plan, choose
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


def prepare_pinv(
    operator: Convolution,
    damp: float,
    atol: float | None,
    rtol: float | None,
    solver: str,
    tol: float | None,
    max_iter: int | None,
    applications: int,
) -> PinvOperator:
    """Check the arguments of ``pinv``, choose a solver and let it prepare."""
    call = "pinv"
    requested = arguments.choice(call, "solver", solver, ("auto", *NAMES))
    damp = arguments.non_negative(call, "damp", damp)
    if damp > LARGEST_DAMP:
        arguments.fail(call, "damp", damp, f"it may be at most {LARGEST_DAMP:g}")
    regularization = Regularization.resolve(
        damp,
        arguments.optional_non_negative(call, "atol", atol),
        arguments.optional_non_negative(call, "rtol", rtol),
        operator.dtype,
        operator.in_shape[1:],
    )
    given = arguments.optional_non_negative(call, "tol", tol)
    tolerance = default_tolerance(operator.dtype) if given is None else given
    problem = Problem(
        operator=operator.detach(),
        regularization=regularization,
        tolerance=tolerance,
        accuracy=default_accuracy(operator.dtype) * tolerance / default_tolerance(operator.dtype),
        max_iterations=DEFAULT_MAX_ITERATIONS
        if max_iter is None
        else arguments.positive_integer(call, "max_iter", max_iter),
        applications=arguments.positive_integer(call, "applications", applications),
    )
    plan = choose(problem, requested)
    with torch.no_grad():
        state = plan.solver.prepare(problem)
    return PinvOperator(plan, state, operator.weight, is_adjoint=False)


@final
class PinvOperator(LinearOperator):
    """The pseudo-inverse of a convolution, prepared: call it on data, as often as you like.

    Made by :meth:`Conv2dOperator.pinv`. Differentiable by the data to any order; a gradient by the kernel raises
    :class:`~convpinv.KernelGradientError`.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (12, 12))
    >>> P = A.pinv()
    >>> y = A(torch.rand(1, 12, 12, dtype=torch.float64))
    >>> bool(torch.allclose(A(P(y)), y))                 # A A⁺ y = y on the range of A
    True
    """

    def __init__(self, plan: Plan, state: Any, weight: Tensor, is_adjoint: bool) -> None:
        self.plan = plan
        self._state = state
        self._weight = weight
        self._is_adjoint = is_adjoint
        operator = plan.problem.operator
        shapes = (operator.out_shape, operator.in_shape)
        self.in_shape, self.out_shape = reversed(shapes) if is_adjoint else shapes
        self.dtype = operator.dtype
        self.device = operator.device

    @property
    def H(self) -> PinvOperator:
        """Adjoint of the pseudo-inverse, from the same prepared state: ``(A⁺)ᴴ = (Aᴴ)⁺``."""
        return PinvOperator(self.plan, self._state, self._weight, not self._is_adjoint)

    def explain(self) -> str:
        """Text of the plan: the solver, what it costs, and why the others refuse."""
        return self.plan.text(is_adjoint=self._is_adjoint)

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
            outcome = self._run(batch)
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
        if self._weight.requires_grad and torch.is_grad_enabled():
            operator = Convolution(operator.weight + (self._weight - self._weight.detach()), operator.geometry)
        return operator.H if self._is_adjoint else operator

    @property
    def _call_name(self) -> str:
        return "PinvOperator.H" if self._is_adjoint else "PinvOperator"

    def _run(self, batch: Tensor) -> Solution:
        solver = self.plan.solver
        return solver.adjoint(self._state, batch) if self._is_adjoint else solver.apply(self._state, batch)

    def _run_or_raise(self, batch: Tensor) -> Tensor:
        outcome = self._run(batch)
        if not outcome.status.is_success:
            raise arguments.ConvergenceError(
                f"{self._call_name}: {type(self.plan.solver).__name__} {outcome.status.message}, after "
                f"{outcome.iterations} iterations at a relative residual of {outcome.residual:.1e} (tolerance "
                f"{self.plan.problem.tolerance:.1e}); {outcome.status.likely_causes}; .solve(y) returns the state"
            )
        return outcome.value

    def _apply(self, batch: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or not (batch.requires_grad or self._weight.requires_grad):
            return self._run_or_raise(batch)
        gate = _KernelGate.apply(self._weight) if self._weight.requires_grad else None
        adjoint = self.H
        result = _Application.apply(batch, gate, self._run_or_raise, adjoint._run_or_raise)
        assert isinstance(result, Tensor)
        return result

    def _normal_residual(self, y: Tensor, value: Tensor) -> float:
        operator = self.plan.problem.operator
        forward, backward = (operator.H, operator) if self._is_adjoint else (operator, operator.H)
        damp = self.plan.problem.regularization.damp
        gradient = (backward(y - forward(value)) - damp**2 * value).reshape(-1, *self.out_shape)
        scale = batch_norm(backward(y).reshape(-1, *self.out_shape))
        return float((batch_norm(gradient) / torch.where(scale > 0, scale, torch.ones_like(scale))).max())


class _Application(torch.autograd.Function):
    """A linear map whose backward pass is its adjoint, and whose adjoint's backward pass is the map again."""

    @staticmethod
    def forward(
        ctx: Any,
        batch: Tensor,
        gate: Tensor | None,
        run: Callable[[Tensor], Tensor],
        run_back: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Apply."""
        ctx.maps = run, run_back
        ctx.save_for_backward(*(() if gate is None else (gate,)))
        return run(batch)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """Adjoint state: one application of the adjoint, differentiable in its turn."""
        run, run_back = ctx.maps
        gate = ctx.saved_tensors[0] if ctx.saved_tensors else None
        result = _Application.apply(gradients[0], gate, run_back, run)
        return result, None if gate is None else torch.zeros_like(gate), None, None  # pyright: ignore[reportReturnType]


class _KernelGate(torch.autograd.Function):
    """Stands in for the kernel in the graph, and raises when a gradient is asked through it.

    Gradients by the data alone, ``torch.autograd.grad(loss, y)``, never come here; ``loss.backward()`` with a kernel
    that learns does, and a gradient that is silently missing would be worse than an error.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        """Return a scalar that depends on the kernel in name only."""
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Refuse, with the remedy."""
        raise arguments.KernelGradientError(
            "PinvOperator: a gradient by the kernel was asked for, which this version does not give; "
            "pass weight.detach(), or take torch.autograd.grad(loss, y) by the data alone"
        )
