"""A batch of kernels, one a picture: all by one solve where they decompose each by itself, else one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.operator import Conv2dOperator
from convpinv.linalg.pinv import Request
from convpinv.linalg.precision import in_full_precision
from convpinv.linalg.source import is_tracked


@in_full_precision
def pinv_each(
    weights: Tensor, y: Tensor, call: str, convolution: Callable[[Tensor], Conv2dOperator], options: dict[str, Any]
) -> Tensor:
    """Apply to each part of y the pseudo-inverse of its own kernel: ``A_n⁺ y_n``.

    ``weights`` is (N, Cout, Cin/groups, kH, kW), ``y`` (N, ..., Cout, H', W'); ``convolution`` makes the operator of
    one kernel, and ``options`` are those of ``pinv``. The result is (N, ..., Cin, H, W), that of N calls: each kernel
    has a rank threshold of its own.

    One solve serves all kernels where the DFT or two small matrices decompose each of them alone. Where the plan is a
    dense matrix or an iteration, one after the other is better: the matrix would have N² times the entries (16 kernels
    of 144 unknowns each: 10 s instead of 0.1 s), and the residual of an iteration would be relative to the largest.
    """
    weights = arguments.kernel_batch(call, weights)
    first = convolution(weights[0])
    arguments.kernel_batch_images(call, "y", y, len(weights), first.out_shape, first.each_channel_alone)
    together = _side_by_side(weights, first)
    solver = _solver_of_all(first, together, options)
    if solver is not None:
        return _at_once(y, len(weights), first, together.pinv(**{**options, "solver": solver}))
    return torch.stack([convolution(weight).pinv(**options)(part) for weight, part in zip(weights, y, strict=True)])


def _solver_of_all(first: Conv2dOperator, together: Conv2dOperator, options: dict[str, Any]) -> str | None:
    """Name of the solver that does all kernels at once, if the plan for the first is such a one and serves the rest."""
    plan = first.plan(**options)
    serving = [plan.solver, *(solver for solver, _ in plan.passed)]
    shared = next((solver for solver in serving if solver.serves_kernels_side_by_side), None)
    if shared is None:
        return None
    # Whether a threshold cuts more than zeros, and so forbids a gradient by the weight, is asked of a whole operator.
    if is_tracked(together.weight) and not plan.problem.regularization.is_default_cut:
        return None
    problem = Request.of(together.convolution, **options).problem()
    if shared.refuses(problem) is not None:
        return None
    # For one small kernel a matrix may be quicker; for many, two small matrices for all are.
    all_at_once, each = shared.forecast(problem), plan.solver.forecast(plan.problem)
    if shared is not plan.solver and all_at_once is not None and each is not None:
        applications = plan.problem.applications
        if all_at_once.total(applications) > together.geometry.kernels * each.total(applications):
            return None
    return shared.name


def _side_by_side(weights: Tensor, first: Conv2dOperator) -> Conv2dOperator:
    """Operator on N·Cin channels whose groups are the kernels' groups, one kernel after the other."""
    count, one = len(weights), first.geometry
    geometry = replace(
        one,
        in_channels=count * one.in_channels,
        out_channels=count * one.out_channels,
        groups=count * one.groups,
        kernels=count,
    )
    return Conv2dOperator._of(Convolution(weights.flatten(0, 1), geometry))


def _at_once(y: Tensor, count: int, first: Conv2dOperator, pinv: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, ..., Cout, H', W') → (B, N·Cout, H', W') → (B, N·Cin, H, W) → (N, ..., Cin, H, W)."""
    leading = y.shape[1:-2] if first.each_channel_alone else y.shape[1:-3]
    pictures = y.reshape(count, prod(leading), *first.out_shape).transpose(0, 1)
    found = pinv(pictures.flatten(1, 2)).unflatten(1, (count, first.in_shape[0])).transpose(0, 1)
    inner = first.in_shape[1:] if first.each_channel_alone else first.in_shape
    return found.reshape(count, *leading, *inner)
