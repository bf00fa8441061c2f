"""Least squares with values of at least 0, from the normal equations."""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv.arguments import ConvergenceError

# Full exchanges that bring nothing before one variable at a time is exchanged, which ends for certain.
PATIENCE = 10
MOST_EXCHANGES = 1000
# Multipliers and values this much below zero, against the largest, are rounding.
ROUNDING = 1e-10


def non_negative_least_squares(gram: Tensor, moment: Tensor) -> Tensor:
    """Minimise ``½ xᵀ gram x − momentᵀ x`` over ``x ≥ 0``; gram is symmetric and positive definite.

    Block principal pivoting: all variables of the wrong sign change sides at once, and one by one where that does
    not progress. A few Cholesky factorisations of the free part.

    Source: J. J. Júdice and F. M. Pires, "A block principal pivoting algorithm for large-scale strictly monotone linear
    complementarity problems", Computers and Operations Research 21 (1994).
    """
    free = torch.zeros_like(moment, dtype=torch.bool)
    value, slope = torch.zeros_like(moment), -moment
    scale = float(moment.abs().max())
    fewest, patience = len(moment) + 1, PATIENCE
    for _ in range(MOST_EXCHANGES):
        too_low = free & (value < -ROUNDING * float(value.abs().max()))
        to_free = ~free & (slope < -ROUNDING * scale)
        wrong = too_low | to_free
        count = int(wrong.sum())
        if count == 0:
            break
        if count < fewest:
            fewest, patience = count, PATIENCE
        elif patience > 0:
            patience -= 1
        else:
            last = int(torch.nonzero(wrong).max())
            wrong = torch.zeros_like(wrong)
            wrong[last] = True
        free = free ^ wrong
        value, slope = torch.zeros_like(moment), torch.zeros_like(moment)
        if bool(free.any()):
            factor = torch.linalg.cholesky(gram[free][:, free])
            value[free] = torch.cholesky_solve(moment[free, None], factor)[:, 0]
        slope[~free] = gram[~free][:, free] @ value[free] - moment[~free]
    else:
        raise ConvergenceError(f"psf: the non-negative least squares did not settle in {MOST_EXCHANGES} exchanges")
    return value.clamp(min=0)
