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
from convpinv.linalg.pinv import plan_pinv


def pinv_each(
    call: str, y: Tensor, weights: Tensor, convolution: Callable[[Tensor], Conv2dOperator], options: dict[str, Any]
) -> Tensor:
    """Apply to each part of y the pseudo-inverse of its own kernel: ``A_n⁺ y_n``.

    ``y`` is (N, ..., Cout, H', W'), ``weights`` (N, Cout, Cin/groups, kH, kW); ``convolution`` makes the operator of
    one kernel, and ``options`` are those of ``pinv``. The result is (N, ..., Cin, H, W). Each kernel has a rank
    threshold of its own, so that the result is that of N calls.

    One solve serves all kernels where the DFT or two small matrices decompose each of them alone. Where the plan is a
    dense matrix or an iteration, side by side would be worse: the matrix has N² times the entries, and an iteration
    goes on until the slowest kernel is done, to a residual relative to the largest.
    """
    weights = arguments.kernel_batch(call, weights)
    first = convolution(weights[0])
    arguments.kernel_batch_images(call, "y", y, len(weights), first.out_shape)
    plan = plan_pinv(first.convolution, **options)
    if plan.solver.serves_kernels_side_by_side:
        together = _side_by_side(weights, first)
        if plan.solver.refuses(replace(plan.problem, operator=together.convolution)) is None:
            return _at_once(y, len(weights), first, together.pinv(**options))
    return torch.stack(
        [convolution(weight).pinv(**options)(part) for weight, part in zip(weights, y, strict=True)],
    )


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
    each_channel_alone = first.in_shape[0] == first.out_shape[0] == 1
    leading = y.shape[1:-2] if each_channel_alone else y.shape[1:-3]
    pictures = y.reshape(count, prod(leading), *first.out_shape).transpose(0, 1)
    found = pinv(pictures.flatten(1, 2)).unflatten(1, (count, first.in_shape[0])).transpose(0, 1)
    inner = first.in_shape[1:] if each_channel_alone else first.in_shape
    return found.reshape(count, *leading, *inner)
