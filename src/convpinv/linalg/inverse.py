"""A prepared pseudo-inverse as data: the plan, the solver's state, and how it is run on a batch. No derivatives yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.precision import in_full_precision
from convpinv.linalg.solvers.base import Solution, Status
from convpinv.linalg.solvers.choose import Plan, prepare
from convpinv.linalg.spectrum import default_rtol

# Where damp < WEAK_DAMP·σ₁ derivatives are refined. Dividing by damp² costs ε·(σ₁/damp)²: measured in float32, a 1 → 3
# channel 3×3 kernel, the gradient by the weight was 2e-2 off at damp = 1e-3·σ₁, and is 3e-7 off when refined. Refined
# gradients take five applications instead of one.
WEAK_DAMP = 0.1


@dataclass(frozen=True)
class Inverse:
    """``A⁺``, or ``(A⁺)ᴴ`` where ``is_adjoint``, ready to run on plain batches.

    ``is_weakly_damped`` and ``no_weight_gradient`` are facts that derivatives ask for; the first is found out when they
    do, because it reads a number back, which on an accelerator stalls the stream.
    """

    plan: Plan
    state: Any
    is_adjoint: bool
    no_weight_gradient: str | None

    @staticmethod
    def prepare(plan: Plan) -> Inverse:
        """Let the plan's solver prepare, or the next that serves where the numbers do not suit it."""
        with torch.no_grad():
            plan, state = prepare(plan)
            inverse = Inverse(plan, state, False, None)
            return replace(inverse, no_weight_gradient=_why_no_weight_gradient(inverse))

    @property
    def H(self) -> Inverse:
        """Adjoint, from the same state: ``(A⁺)ᴴ = (Aᴴ)⁺``."""
        return replace(self, is_adjoint=not self.is_adjoint)

    @property
    def operator(self) -> Convolution:
        """A, with the values that were prepared for."""
        return self.plan.problem.operator

    @property
    def device(self) -> torch.device:
        """Where the state lies."""
        return self.operator.device

    @property
    def damp(self) -> float:
        """Damping as in LSQR."""
        return self.plan.problem.regularization.damp

    @property
    def is_weakly_damped(self) -> bool:
        """Whether ``1/damp²`` would magnify rounding beyond what the package promises: then derivatives are refined."""
        damp = self.damp
        if damp == 0.0 or torch.compiler.is_compiling():  # a number read back would break the graph; refining is right
            return damp > 0.0
        # Schur's test bounds the spectral norm by the largest sums over rows and columns.
        magnitudes = self.operator.weight.abs()
        bound = magnitudes.sum((1, 2, 3)).max().sqrt() * magnitudes.sum((0, 2, 3)).max().sqrt()
        return damp < WEAK_DAMP * float(bound)

    @property
    def call_name(self) -> str:
        """Name by which error messages call this."""
        return "PinvOperator.H" if self.is_adjoint else "PinvOperator"

    @in_full_precision  # a backward pass may run inside an autocast region too
    def solve(self, batch: Tensor) -> Solution:
        """Apply and say how it went."""
        solver = self.plan.solver
        return solver.adjoint(self.state, batch) if self.is_adjoint else solver.apply(self.state, batch)

    def run(self, batch: Tensor) -> Tensor:
        """Apply; raise where unconverged."""
        outcome = self.solve(batch)
        if not outcome.status.is_success:
            problem = self.plan.problem
            if outcome.status is Status.INACCURATE:
                asked = self.plan.solver.accuracy(problem)
                reached = f"with an error of about {outcome.residual:.1e} (asked for: {asked:.1e})"
            else:
                reached = (
                    f"after {outcome.iterations} iterations at a relative residual of {outcome.residual:.1e} "
                    f"(tolerance {problem.tolerance:.1e})"
                )
            raise arguments.ConvergenceError(
                f"{self.call_name}: {type(self.plan.solver).__name__} {outcome.status.message}, {reached}; "
                f"{outcome.status.likely_causes}; .solve(y) returns the state"
            )
        return outcome.value


def _why_no_weight_gradient(inverse: Inverse) -> str | None:
    """Say why a threshold that was asked for leaves no derivative by the weight that solves could give, or None.

    Golub and Pereyra's formula takes what is cut for zero. Where it is not, the kept singular vectors turn with it,
    and the derivative has terms 1/(σ² − τ²) between kept and cut values that no pseudo-inverse contains.
    """
    problem = inverse.plan.problem
    if problem.regularization.is_default_cut or torch.compiler.is_compiling():
        return None
    if problem.regularization.damp:
        return "damp meets a threshold of your own; leave atol and rtol out, damping alone is smooth"
    operator = problem.operator
    # Every entry of the spectrum shows in a picture without symmetry; A − A A⁺ A is what was cut.
    count = prod(operator.in_shape)
    places = torch.arange(count, dtype=torch.float64, device=operator.device)
    probe = torch.cos(places * places * 0.7390851).to(operator.dtype).reshape(1, *operator.in_shape)
    image = operator(probe)
    cut = torch.linalg.vector_norm(image - operator(inverse.run(image)))
    rounding = 100 * default_rtol(operator.dtype, operator.in_shape[1:]) * torch.linalg.vector_norm(image)
    if bool(cut <= rounding):
        return None
    return "atol and rtol cut singular values that are not zero; use damp, or a threshold that cuts zeros alone"
