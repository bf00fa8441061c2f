"""Which solver, what it costs, and why not the others: a plan that prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convpinv.arguments import SolverRefusedError
from convpinv.linalg.solvers.base import Forecast, Problem, Solver, UnsuitableError
from convpinv.linalg.solvers.blocks import Blocks
from convpinv.linalg.solvers.border.solver import Border
from convpinv.linalg.solvers.dense import Dense
from convpinv.linalg.solvers.fourier import Fourier
from convpinv.linalg.solvers.krylov import Krylov
from convpinv.linalg.solvers.separable import Separable

# In the order in which the automatic choice asks: what nothing else is cheaper than, then by how sure it is.
SOLVERS: tuple[Solver, ...] = (Fourier(), Blocks(), Separable(), Dense(), Border(), Krylov())
NAMES = tuple(solver.name for solver in SOLVERS)
# A direct answer is exact to rounding, an iterated one to a tolerance, in a time that is known to a factor of two.
EXACT_IS_WORTH = 2.0


@dataclass(frozen=True)
class Plan:
    """The solver that serves a problem, and a sentence for each that does not, or was passed by though it would."""

    solver: Solver
    problem: Problem
    refusals: tuple[tuple[Solver, str], ...]
    requested: str = "auto"
    passed: tuple[tuple[Solver, str], ...] = ()

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
        lines += [
            ("passed" if not index else "", f"{type(s).__name__}: {why}") for index, (s, why) in enumerate(self.passed)
        ]
        if isinstance(self.solver, Border):
            lines.append(
                ("instead", f"solver='krylov', without a matrix to prepare: {Krylov().describe(self.problem)}")
            )
        return "\n".join(f"{head:<9}{text}" for head, text in lines)


def choose(problem: Problem, requested: str, found: tuple[tuple[Solver, str], ...] = ()) -> Plan:
    """Plan with the solver that was asked for, or with the one that takes least of those that are sure to serve.

    ``found`` are solvers that refused when they prepared.
    """
    refusals: list[tuple[Solver, str]] = []
    forecasts: list[tuple[Solver, Forecast]] = []
    unsuitable = {solver.name: reason for solver, reason in found}
    for solver in SOLVERS:
        if requested not in ("auto", solver.name):
            continue
        reason = unsuitable.get(solver.name) or solver.refuses(problem)
        reason = reason or (solver.declines(problem) if requested == "auto" else None)
        if reason is not None:
            refusals.append((solver, reason))
            continue
        forecast = solver.forecast(problem) if requested == "auto" else None
        if forecast is None:
            return Plan(solver, problem, tuple(refusals), requested)
        forecasts.append((solver, forecast))
    if forecasts:
        return _cheapest(problem, forecasts, refusals)
    serving = [solver.name for solver in SOLVERS if solver.name not in unsuitable and solver.refuses(problem) is None]
    alternative = f"solver='{serving[0]}' serves" if serving else "use damp instead of atol and rtol"
    reasons = "; ".join(f"{type(solver).__name__} refuses: {reason}" for solver, reason in refusals)
    raise SolverRefusedError(f"pinv: solver is '{requested}'; {reasons}; {alternative}")


def _cheapest(problem: Problem, forecasts: list[tuple[Solver, Forecast]], refusals: list[tuple[Solver, str]]) -> Plan:
    """Take what is sure and takes least; where nothing is sure, the first, which is the more exact."""
    seconds = {solver: forecast.total(problem.applications) for solver, forecast in forecasts}
    sure = [solver for solver, forecast in forecasts if forecast.is_sure]
    weighed = {solver: seconds[solver] * (1.0 if solver.is_direct else EXACT_IS_WORTH) for solver in sure}
    chosen = min(sure, key=lambda solver: weighed[solver]) if sure else forecasts[0][0]
    count = f"{problem.applications} applications" if problem.applications > 1 else "one application"
    passed: list[tuple[Solver, str]] = []
    for solver, forecast in forecasts:
        if solver is chosen:
            continue
        reason = f"by estimate {_time(seconds[solver])} for {count}, {_time(seconds[chosen])} by {chosen.name}"
        if sure and not forecast.is_sure:
            reason = f"not sure of an answer here: singular values near 0, or more iterations; {chosen.name} is"
        elif seconds[solver] < seconds[chosen]:
            reason += ", which is the more exact"
        passed.append((solver, reason))
    return Plan(chosen, problem, tuple(refusals), "auto", tuple(passed))


def _time(seconds: float) -> str:
    number, unit = (seconds, "s") if seconds >= 1 else (1e3 * seconds, "ms")
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"


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
