"""The shortest least-squares solution by two consistent systems, and what their residuals say of its error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convpinv.linalg.solvers import conjugate_gradients
from convpinv.linalg.solvers.base import Problem, Solution, Status, batch_norm
from convpinv.linalg.solvers.conjugate_gradients import Outcome, System

# Relative error that is allowed for by the least curvature met, which may be ten times the smallest eigenvalue. A
# residual of 1e-10 alone left 4 % of error at a condition number of 1e6 and 3 % at 2e3 for one of 1e-6.
MOST_ERROR = 1e-4
AIM = 0.5
# A looser tolerance asks for no more than so many times what is promised with damping.
LOOSER = 10.0
# How often the first system is gone back to. Each time the second one may meet smaller singular values.
ROUNDS = 4
# A fitted picture below so many roundings of the data is nothing but rounding.
NEGLIGIBLE = 1e3


@dataclass(frozen=True)
class Spaces:
    """A, its adjoint, and the systems ``AᴴA`` and ``A Aᴴ`` for a tolerance and a margin."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    domain: Callable[[float, Tensor | None], System]
    data: Callable[[float, Tensor | None], System]


def allowed_error(problem: Problem) -> float:
    """Relative error beyond which an answer is called inaccurate."""
    return max(MOST_ERROR, LOOSER * problem.accuracy)


def solve(spaces: Spaces, problem: Problem, right: Tensor) -> Solution:
    """Solve ``AᴴA v = Aᴴy``, then ``A Aᴴ u = A v``, for ``x = Aᴴu``.

    The error of v is at most its residual over the smallest eigenvalue, and that of x the residual of u over the root
    of it. The eigenvalue is not known beforehand, and the first system may end before it has seen it: on a random 3 × 3
    kernel with reflected borders the least curvature was 2e6 times the eigenvalue there, and 3 times in the second
    system, whose right side has every direction in it that counts. So the second tells what the first has to reach.
    """
    allowed = allowed_error(problem)
    image, tolerance, budget = spaces.backward(right), problem.tolerance, problem.max_iterations
    shortest_margin: Tensor | None = None
    least = conjugate_gradients.solve(spaces.domain(tolerance, None), image, budget)
    done, curvature = least.iterations, least.curvature
    shortest: Outcome | None = None
    value, worst, rounds_left, has_stalled = torch.zeros_like(image), float("inf"), ROUNDS, False
    while True:
        if done >= budget and shortest is None:
            return conjugate_gradients.solution(least.value, [replace(least, status=Status.MAX_ITERATIONS)])
        if shortest is not None and (done >= budget or not rounds_left):
            return conjugate_gradients.solution(value, [_inexact(shortest, done, worst)])
        fitted = spaces.forward(least.value)
        # Where the data lie outside the range, what is fitted may be rounding alone: then the answer is 0.
        negligible = batch_norm(fitted) <= NEGLIGIBLE * torch.finfo(fitted.dtype).eps * batch_norm(right)
        fitted = torch.where(negligible.reshape(-1, 1, 1, 1), torch.zeros_like(fitted), fitted)
        start = None if shortest is None else shortest.value
        former = shortest
        shortest = conjugate_gradients.solve(spaces.data(tolerance, shortest_margin), fitted, budget - done, start)
        done, curvature = done + shortest.iterations, torch.minimum(curvature, shortest.curvature)
        if not shortest.status.is_success and shortest.residual > tolerance:
            if former is not None:  # what met the tolerance, with its known error, is better than what does not
                return conjugate_gradients.solution(value, [_inexact(former, done, worst)])
            return conjugate_gradients.solution(spaces.backward(shortest.value), [replace(shortest, iterations=done)])
        shortest = replace(shortest, status=Status.CONVERGED)
        value = spaces.backward(shortest.value)
        # Where what is left belongs to singular values that count as zero, nothing that counts is missing.
        of_least = _error(least.size, curvature * batch_norm(least.value), negligible | least.exhausted)
        of_shortest = _error(shortest.size, curvature.sqrt() * batch_norm(value), shortest.exhausted)
        worst = float(torch.maximum(of_least, of_shortest).max())
        if worst <= allowed:
            return conjugate_gradients.solution(
                value, [replace(least, iterations=done - shortest.iterations), shortest]
            )
        if has_stalled:  # κ² times the rounding of double precision is what the normal equations leave
            return conjugate_gradients.solution(value, [_inexact(shortest, done, worst)])
        rounds_left -= 1
        reached = AIM * allowed * shortest.size / batch_norm(shortest.value)
        shortest_margin = torch.where(of_shortest > allowed, reached / of_shortest, torch.inf)
        margin = torch.where(negligible, torch.inf, AIM * allowed * curvature)
        better = conjugate_gradients.solve(spaces.domain(tolerance, margin), image, budget - done, least.value)
        done, curvature = done + better.iterations, torch.minimum(curvature, better.curvature)
        has_stalled = better.status is Status.STAGNATED
        # Whether the tolerance was met is known; what the margin is worth shows in the error.
        least = replace(better, status=least.status)


def _inexact(outcome: Outcome, iterations: int, error: float) -> Outcome:
    return replace(outcome, status=Status.INACCURATE, iterations=iterations, residual=error)


def _error(size: Tensor, scale: Tensor, nothing: Tensor) -> Tensor:
    """Relative error: what is left over what it is measured by, 0 where nothing is left that counts."""
    return torch.where((size > 0) & ~nothing, size / torch.where(scale > 0, scale, 1.0), 0.0)
