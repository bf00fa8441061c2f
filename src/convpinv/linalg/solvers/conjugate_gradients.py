"""Preconditioned conjugate gradients for a batch of systems that share their matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.linalg.solvers.base import Status, batch_norm

# Iterations without halving the best residual before a system counts as stagnated. Plateaus of well over a hundred
# iterations are normal for motion blurs at small damping; three hundred without a factor of two never recovered.
PATIENCE = 300
# Restarts from the true residual: each wins back the digits that the recurrence lost to rounding.
RESTARTS = 3


@dataclass(frozen=True)
class Outcome:
    """Where the iteration ended, for the whole batch."""

    value: Tensor
    status: Status
    iterations: int
    residual: float


def solve(
    multiply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    tolerance: float,
    max_iterations: int,
) -> Outcome:
    r"""Solve ``S u = right`` for a batch, S Hermitian positive semi-definite, to ``‖right − S u‖ ≤ tolerance·‖right‖``.

    The residual that is reported is computed anew from u at the end, never the recurrence's own. Hestenes and
    Stiefel (1952); preconditioned as in Golub and Van Loan, *Matrix Computations*, 4th ed., algorithm 11.5.1.
    """
    scale = batch_norm(right)
    target = tolerance * scale
    value = torch.zeros_like(right)
    residual, size, done, stalled = right, scale, 0, False
    for _ in range(1 + RESTARTS):
        step, used, stalled = _run(multiply, precondition, residual, target, max_iterations - done)
        done += used
        value = value + step
        previous = batch_norm(residual)
        residual = right - multiply(value)
        size = batch_norm(residual)
        # A restart pays while it still wins digits.
        if bool((size <= target).all()) or done >= max_iterations or bool((size > 0.5 * previous).all()):
            break
    worst = float((size / torch.where(scale > 0, scale, torch.ones_like(scale))).max()) if len(scale) else 0.0
    if bool((size <= target).all()):
        status = Status.CONVERGED
    else:
        status = Status.MAX_ITERATIONS if done >= max_iterations and not stalled else Status.STAGNATED
    return Outcome(value, status, done, worst)


def _run(
    multiply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    target: Tensor,
    budget: int,
) -> tuple[Tensor, int, bool]:
    """One run of the recurrence from zero: the iterate of each system, iterations, and whether progress stopped."""
    value = torch.zeros_like(right)
    residual = right.clone()
    # Where a system is singular and inconsistent the iterate grows without bound: the best one is what counts.
    size = batch_norm(residual)
    best, best_value, best_at = size, value, 0
    active = best > target
    if not bool(active.any()):
        return value, 0, False
    conditioned = precondition(residual)
    direction = conditioned
    product = _dot(residual, conditioned)
    for iteration in range(1, budget + 1):
        image = multiply(direction)
        curvature = _dot(direction, image)
        # A direction without curvature lies in the null space to rounding: nothing more can be won along it.
        active = active & (curvature > 0) & (product > 0)
        length = _column(torch.where(active, product / torch.where(active, curvature, 1.0), 0.0), value)
        value = value + length * direction
        residual = residual - length * image
        size = batch_norm(residual)
        active = active & (size > target) & torch.isfinite(size)
        improved = (size < 0.5 * best) | (size <= target)
        if bool(improved.any()):
            if bool((improved & active).any()):
                best_at = iteration
            best = torch.where(improved, size, best)
            best_value = torch.where(_column(improved, value).bool(), value, best_value)
        if not bool(active.any()) or iteration - best_at > PATIENCE:
            return best_value, iteration, bool((best > target).any())
        conditioned = precondition(residual)
        following = _dot(residual, conditioned)
        ratio = _column(torch.where(active, following / torch.where(active, product, 1.0), 0.0), value)
        direction = conditioned + ratio * direction
        product = following
    return torch.where(_column(size < best, value).bool(), value, best_value), budget, False


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Real inner product of each pair of pictures: (B,)."""
    if left.is_complex():
        return (left.conj() * right).real.flatten(1).sum(1)
    return (left * right).flatten(1).sum(1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
