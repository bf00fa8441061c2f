"""Certified bounds of the spectral norm, from the symbol and from sums of taps: no iteration has to converge."""

from __future__ import annotations

import math
from collections import Counter

import torch

from convpinv.arguments import Boundary
from convpinv.linalg import structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.eigenvalues import largest_eigenpairs
from convpinv.linalg.geometry import Axis
from convpinv.linalg.leading_values import normal_map, split_groups
from convpinv.linalg.svd import norm, unit
from convpinv.linalg.symbol_norm import supremum

# What rounding may do to either bound, generously: they are computed in double precision.
ROUNDING = 1e-11
# Steps of the iteration for the lower bound: at 256² it is then within 1 % of σ₁, mostly within 0.1 %.
STEPS = 12


def norm_bounds(operator: Convolution) -> tuple[float, float]:
    """Lower and upper bound of the largest singular value; see :meth:`InvertibleOperator.norm_bounds`."""
    if structure.why_not_circular(operator) is None:
        exact = norm(operator)
        return exact * (1.0 - ROUNDING), exact * (1.0 + ROUNDING)
    scaled = unit(operator)
    suprema = supremum(scaled.operator)
    padding = padding_norm(scaled.operator)
    lower = upper = 0.0
    # Groups do not mix: the norm is that of the largest. The lower bound may come from any of them.
    widest = max(range(len(suprema)), key=suprema.__getitem__)
    for index, group in enumerate(split_groups(scaled.operator)):
        upper = max(upper, min(suprema[index] * padding, schur_bound(group)))
        if index == widest:
            pairs = largest_eigenpairs(normal_map(group), 1, 1e-4, STEPS)
            lower = math.sqrt(float(pairs.values[0]))
    return lower * scaled.scale * (1.0 - ROUNDING), upper * scaled.scale * (1.0 + ROUNDING)


def padding_norm(operator: Convolution) -> float:
    """Norm of the map from pictures to padded pictures: the root of the most copies of one pixel, for each axis."""
    return math.prod(math.sqrt(_copies(axis)) for axis in operator.geometry.axes)


def _copies(axis: Axis) -> int:
    if axis.boundary is Boundary.ZEROS:
        return 1
    shown = Counter(source for source in axis.sources()[: axis.used_size] if source >= 0)
    return max(shown.values())


def schur_bound(operator: Convolution) -> float:
    """``‖A‖² ≤ ‖A‖₁ ‖A‖∞``, the largest column and row sums of the absolute values (Schur's test).

    Tight for blurs, whose rows sum to one, on boundaries that copy pixels.
    """
    absolute = Convolution(operator.weight.abs(), operator.geometry)
    rows = absolute._apply(torch.ones(1, *operator.in_shape, dtype=absolute.dtype, device=absolute.device))
    columns = absolute._apply_adjoint(torch.ones(1, *operator.out_shape, dtype=absolute.dtype, device=absolute.device))
    return math.sqrt(float(rows.max()) * float(columns.max()))
