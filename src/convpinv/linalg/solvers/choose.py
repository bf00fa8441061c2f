"""Which solver, what it costs, and why the others refuse: a plan that prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convpinv.arguments import SolverRefusedError
from convpinv.linalg.solvers.base import Problem, Solver, UnsuitableError
from convpinv.linalg.solvers.blocks import Blocks
from convpinv.linalg.solvers.border.solver import Border
from convpinv.linalg.solvers.dense import Dense
from convpinv.linalg.solvers.fourier import Fourier
from convpinv.linalg.solvers.krylov import Krylov
from convpinv.linalg.solvers.separable import Separable

# In the order in which the automatic choice asks: what is exact and cheapest to apply first.
SOLVERS: tuple[Solver, ...] = (Fourier(), Blocks(), Separable(), Dense(), Border(), Krylov())
NAMES = tuple(solver.name for solver in SOLVERS)


@dataclass(frozen=True)
class Plan:
    """The solver that serves a problem, and a sentence from each that does not."""

    solver: Solver
    problem: Problem
    refusals: tuple[tuple[Solver, str], ...]
    requested: str = "auto"

    def __str__(self) -> str:
        return self.text(is_adjoint=False)

    def text(self, is_adjoint: bool) -> str:
        """Lay the plan out, for the pseudo-inverse of the operator or of its adjoint."""
        operator = self.problem.operator
        shapes = [_shape(operator.in_shape), _shape(operator.out_shape)]
        shown = f"adjoint of {shapes[0]} → {shapes[1]}" if is_adjoint else f"{shapes[0]} → {shapes[1]}"
        lines = [
            ("solver", f"{self.solver.title}, {self.solver.describe(self.problem)}"),
            ("operator", f"{shown}, {_dtype(operator.dtype)}"),
            ("cut", str(self.problem.regularization)),
        ]
        reasons: dict[str, list[str]] = {}
        for solver, reason in self.refusals:
            reasons.setdefault(reason, []).append(type(solver).__name__)
        for index, (reason, names) in enumerate(reasons.items()):
            lines.append(("refused" if index == 0 else "", f"{', '.join(names)}: {reason}"))
        if isinstance(self.solver, Border):
            lines.append(
                ("instead", f"solver='krylov', without a matrix to prepare: {Krylov().describe(self.problem)}")
            )
        return "\n".join(f"{head:<9}{text}" for head, text in lines)


def choose(problem: Problem, requested: str, found: tuple[tuple[Solver, str], ...] = ()) -> Plan:
    """Plan with the solver that was asked for, or with the first that does not refuse.

    ``found`` are solvers that refused when they prepared.
    """
    refusals: list[tuple[Solver, str]] = []
    unsuitable = {solver.name: reason for solver, reason in found}
    for solver in SOLVERS:
        if requested not in ("auto", solver.name):
            continue
        reason = unsuitable.get(solver.name) or solver.refuses(problem)
        reason = reason or (solver.declines(problem) if requested == "auto" else None)
        if reason is None:
            return Plan(solver, problem, tuple(refusals), requested)
        refusals.append((solver, reason))
    serving = [solver.name for solver in SOLVERS if solver.name not in unsuitable and solver.refuses(problem) is None]
    alternative = f"solver='{serving[0]}' serves" if serving else "use damp instead of atol and rtol"
    reasons = "; ".join(f"{type(solver).__name__} refuses: {reason}" for solver, reason in refusals)
    raise SolverRefusedError(f"pinv: solver is '{requested}'; {reasons}; {alternative}")


def prepare(plan: Plan) -> tuple[Plan, Any]:
    """Prepare the solver of a plan, or, where the numbers turn out not to suit it, the next that serves."""
    found: list[tuple[Solver, str]] = []
    while True:
        try:
            return plan, plan.solver.prepare(plan.problem)
        except UnsuitableError as reason:
            found.append((plan.solver, str(reason)))
        plan = choose(plan.problem, plan.requested, tuple(found))


def _shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(size) for size in shape)


def _dtype(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
