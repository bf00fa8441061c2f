"""Solving by factors that are not quite right, until the answer is: refinement, and what it tells of the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from convpinv.linalg.solvers.border.systems import Pair

# One step of refinement is the rule; iterated Tikhonov regularisation takes more.
MOST_STEPS = 40
# A step this much smaller than the answer changes nothing any more.
SETTLED = 1e-15
# Steps that shrink by less than this win no digits.
SLOWEST = 0.5


Vector = TypeVar("Vector", Tensor, Pair)


@dataclass(frozen=True)
class Refined(Generic[Vector]):
    """An answer, an estimate of its error (B,), absolute, and the number of solves that it took."""

    value: Vector
    error: Tensor
    steps: int


def refine(
    solve: Callable[[Vector], Vector],
    residual: Callable[[Vector], Vector],
    right: Vector,
    norms: Callable[[Vector], Tensor],
) -> Refined[Vector]:
    """Solve, and go on solving for what is left over, until nothing is won.

    The steps shrink like a geometric series. Its sum from the last step on is the estimate of the error.
    """
    value = solve(right)
    first = before = norms(value)
    ratio, length, steps = torch.zeros_like(first), first, 1
    while steps < MOST_STEPS:
        step = solve(residual(value))
        length = norms(step)
        value = value + step
        steps += 1
        ratio = torch.where(before > 0, length / torch.where(before > 0, before, 1.0), 0.0)
        before = length
        # A step that is not finite settles nothing, and further ones will not either.
        if not bool(((length * ratio > SETTLED * first) & (ratio <= SLOWEST)).any()):
            break
    error = length * torch.where(ratio < 0.99, ratio / (1.0 - ratio), 100.0)
    return Refined(value, torch.where(torch.isfinite(error), error, torch.inf), steps)
