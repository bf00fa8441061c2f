"""Preconditioned conjugate gradients for a batch of systems that share their matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.linalg.solvers.base import Solution, Status, batch_norm

# Iterations without halving the best residual before a system counts as stagnated. Plateaus of several hundred
# iterations are normal at small damping: two measured ones of over 300 ended in convergence.
PATIENCE = 1000
# Restarts from the true residual: each wins back the digits that the recurrence lost to rounding.
RESTARTS = 3
# Corrections by another way, of which each has to win as much as this.
CORRECTIONS = 12
WORTHWHILE = 0.1
# What a correction is asked for, against what is needed.
DIGIT = 0.1


@dataclass(frozen=True)
class Outcome:
    """Where the iteration ended, for the whole batch.

    ``size`` is the norm of each residual (B,). ``curvature`` is the least ``‖p‖²_S / ‖p‖²`` of the directions p that
    were taken (B,): at least the smallest eigenvalue of S that has a part in the solution, and, once the iteration has
    seen it, within a factor of ten of it (measured on forty operators of condition 5 to 1e6). ``exhausted`` marks
    pictures of which only directions were left whose eigenvalue is negligible (B,).
    """

    value: Tensor
    status: Status
    iterations: int
    residual: float
    size: Tensor
    curvature: Tensor
    exhausted: Tensor


def solution(value: Tensor, outcomes: Sequence[Outcome]) -> Solution:
    """Put outcomes together: the first failure and its residual, or the worst one; all iterations."""
    failed = [outcome for outcome in outcomes if not outcome.status.is_success]
    return Solution(
        value,
        failed[0].status if failed else Status.CONVERGED,
        sum(outcome.iterations for outcome in outcomes),
        failed[0].residual if failed else max(outcome.residual for outcome in outcomes),
    )


# Solves for right-hand sides of size 1, each to about the residual asked for (B,), within so many iterations: the
# solutions and the iterations it took.
Correct = Callable[[Tensor, Tensor, int], tuple[Tensor, int]]


@dataclass(frozen=True)
class System:
    """A Hermitian positive semi-definite system, its preconditioner, and when its solution is good enough.

    ``‖right − S u‖ ≤ tolerance·‖right‖``, and where a ``margin`` is given also ``‖right − S u‖ ≤ margin·‖u‖``. With a
    margin of accuracy times the smallest eigenvalue of S, the relative error of u is at most the accuracy. A residual
    alone says little of it (measured: 15 % off at a residual of 1e-6 for damp = 1e-3·σ₁).

    Where there is another way to a solution of a few digits, ``correct`` goes it, and iterations are the last resort.
    Eigenvalues up to ``negligible`` count as zero: once the tolerance is met, the margin is too where only directions
    of so little curvature are left. Where it is 0, no account is kept of the curvature.
    """

    multiply: Callable[[Tensor], Tensor]
    precondition: Callable[[Tensor], Tensor]
    tolerance: float
    margin: float | Tensor | None = None
    correct: Correct | None = None
    negligible: float = 0.0

    def met(self, size: Tensor, target: Tensor, value: Tensor) -> Tensor:
        """Tell for each picture whether a residual of this size is small enough for this iterate: (B,)."""
        met = size <= target
        if self.margin is not None:
            met = met & (size <= self.margin * batch_norm(value))
        return met | (size == 0)


def solve(system: System, right: Tensor, max_iterations: int, start: Tensor | None = None) -> Outcome:
    r"""Solve ``S u = right`` for a batch by preconditioned conjugate gradients, from 0 or from where it starts.

    The residual that is reported is computed anew from u at the end, never the recurrence's own. Hestenes and
    Stiefel (1952); preconditioned as in Golub and Van Loan, *Matrix Computations*, 4th ed., algorithm 11.5.1.
    """
    scale = batch_norm(right)
    target = system.tolerance * scale
    value, residual, size = torch.zeros_like(right), right, scale
    if start is not None:
        value, residual = start, right - system.multiply(start)
        size = batch_norm(residual)
    done, stalled, met = 0, False, scale == 0
    curvature, exhausted = torch.full_like(scale, torch.inf), torch.zeros_like(scale, dtype=torch.bool)
    correct = system.correct
    for _ in range((0 if correct is None else CORRECTIONS) + 1 + RESTARTS):
        previous = size
        if correct is not None:
            value, residual, size, used = _corrected(
                system, correct, value, residual, size, right, target, max_iterations - done
            )
        else:
            left = max_iterations - done
            value, used, stalled = _run(system, value, residual, target, left, curvature, exhausted)
            residual = right - system.multiply(value)
            size = batch_norm(residual)
        done += used
        met = system.met(size, target, value) | (exhausted & (size <= target))
        wins = size <= (0.5 if correct is None else WORTHWHILE) * previous
        if done >= max_iterations or bool(met.all()):
            break
        # A restart pays while it still wins digits; where corrections no longer do, iterations take over.
        if not bool((wins & ~met).any()):
            if correct is None:
                break
            correct = None
    if bool(met.all()):
        status = Status.CONVERGED
    else:
        status = Status.MAX_ITERATIONS if done >= max_iterations and not stalled else Status.STAGNATED
    worst = float((size / torch.where(scale > 0, scale, torch.ones_like(scale))).max())
    return Outcome(value, status, done, worst, size, curvature, exhausted)


def _corrected(
    system: System,
    correct: Correct,
    value: Tensor,
    residual: Tensor,
    size: Tensor,
    right: Tensor,
    target: Tensor,
    budget: int,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Add what a residual asks for: the iterate, its residual, the residual's size, and iterations."""
    scale = torch.where(size > 0, size, torch.ones_like(size))
    # A digit more than is asked for: the last step mostly brings it, and a correction that just misses costs another.
    # Without it, where less than two digits are needed, 163 of 800 solves ended in iterations instead of 47.
    goal = DIGIT * target / scale
    step, used = correct(residual / _column(scale, residual), goal, budget)
    proposed = torch.addcmul(value, step, _column(scale, value))
    del step
    left = right - system.multiply(proposed)
    remaining = batch_norm(left)
    better = remaining < size  # not where it is not finite
    kept = _column(better, value).bool()
    return (
        torch.where(kept, proposed, value),
        torch.where(kept, left, residual),
        torch.where(better, remaining, size),
        used,
    )


def _run(
    system: System,
    value: Tensor,
    residual: Tensor,
    target: Tensor,
    budget: int,
    least: Tensor,
    exhausted: Tensor,
) -> tuple[Tensor, int, bool]:
    """One run of the recurrence from where it is: the iterate, iterations, and whether progress stopped.

    ``least`` is lowered to the least curvature met, and ``exhausted`` marks where what is left is negligible.
    """
    size = batch_norm(residual)
    # Where a system is singular and inconsistent the iterate grows without bound: the best one is what counts.
    best, best_value, best_at = size, value, 0
    active = ~system.met(size, target, value)
    if not bool(active.any()):
        return value, 0, False
    direction = system.precondition(residual)
    product = _dot(residual, direction)
    for iteration in range(1, budget + 1):
        image = system.multiply(direction)
        curvature = _dot(direction, image)
        # A direction without curvature lies in the null space to rounding: nothing more can be won along it.
        active = active & (curvature > 0) & (product > 0)
        if system.negligible:
            quotient = curvature / _dot(direction, direction)
            ends = active & (quotient <= system.negligible)
            exhausted |= ends
            active = active & ~ends
            torch.minimum(least, torch.where(active, quotient, least), out=least)
        length = _column(torch.where(active, product / torch.where(active, curvature, 1.0), 0.0), value)
        value = value + length * direction
        residual = residual - length * image
        size = batch_norm(residual)
        met = system.met(size, target, value)
        active = active & ~met & torch.isfinite(size)
        improved = (size < 0.5 * best) | met
        if bool(improved.any()):
            if bool((improved & active).any()):
                best_at = iteration
            best = torch.where(improved, size, best)
            best_value = torch.where(_column(improved, value).bool(), value, best_value)
        if not bool(active.any()) or iteration - best_at > PATIENCE:
            return best_value, iteration, not bool(met.all())
        conditioned = system.precondition(residual)
        following = _dot(residual, conditioned)
        ratio = _column(torch.where(active, following / torch.where(active, product, 1.0), 0.0), value)
        direction = conditioned + ratio * direction
        product = following
    return torch.where(_column(size < best, value).bool(), value, best_value), budget, False


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Real inner product of each pair of pictures: (B,)."""
    product = torch.linalg.vecdot(left.flatten(1), right.flatten(1))
    return product.real if product.is_complex() else product


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
