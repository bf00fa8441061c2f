"""Prepare and apply in one call, the checks and the choice of the solver remembered from earlier calls of that kind.

For a picture of 64² the two FFTs take 30 µs and the general way through operator, plan and inverse 150 more than the
arithmetic: unrolled networks pay that with every call, for arguments that change in nothing but their numbers.
"""

from __future__ import annotations

import cmath
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from convpinv import arguments
from convpinv.linalg import scalar_symbol
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.operator import Conv2dOperator
from convpinv.linalg.pinv import Request
from convpinv.linalg.solvers.base import Problem
from convpinv.linalg.solvers.block_plan import could_pay
from convpinv.linalg.solvers.fourier import Fourier

# Kinds of calls that are remembered; each holds a few numbers.
MOST_KINDS = 256
_FOURIER = Fourier()


@dataclass(frozen=True)
class _Kind:
    """What calls that differ in their numbers alone have in common: a problem whose weight is still to be put in."""

    problem: Problem
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    each_channel_alone: bool
    is_scalar: bool

    def takes(self, y: Tensor) -> bool:
        shape = y.shape
        fits = len(shape) >= 3 and shape[-2:] == self.out_shape[1:]
        return fits and (self.each_channel_alone or shape[-3] == self.out_shape[0]) and y.numel() > 0

    def solve(self, y: Tensor, weight: Tensor) -> Tensor:
        operator = Convolution(weight, self.problem.operator.geometry)
        state = _FOURIER.prepare(replace(self.problem, operator=operator))
        if self.is_scalar:  # elementwise: whatever leads is left as it is
            return _FOURIER.apply(state, y).value
        found = _FOURIER.apply(state, y.reshape(-1, *self.out_shape)).value
        leading = y.shape[:-2] if self.each_channel_alone else (*y.shape[:-3], self.in_shape[0])
        return found.reshape(*leading, *self.in_shape[1:])


def solve_as_before(
    y: Any,
    weight: Any,
    sizes: tuple[Any, Any, Any, Any, Any],
    modes: tuple[Any, Any],
    numbers: tuple[Any, Any, Any],
) -> Tensor | None:
    """Apply the pseudo-inverse of plain tensors by the DFT, or return None where the general way has to be gone.

    That is: where something is differentiated, transformed or traced, where another solver serves, and where an
    argument is not what it may be or a result is not finite, so that errors come from one place. ``sizes`` are
    input_size, stride, padding, dilation and groups, ``modes`` the words, ``numbers`` damp, atol and rtol.
    """
    if torch.compiler.is_compiling() or not (_is_plain(y) and _is_plain(weight)):
        return None
    if y.dtype != weight.dtype or y.device != weight.device or torch.is_autocast_enabled(y.device.type):
        return None
    # Equal keys must mean equal arguments: True and 1.0 are equal to 1, and the general way refuses them.
    if not (all(map(_is_whole, sizes)) and all(type(number) in (float, int, type(None)) for number in numbers)):
        return None
    if not all(type(word) is str for word in modes):
        return None
    kind = _kind(weight.shape, weight.dtype, weight.device.type, sizes, modes, numbers)
    if kind is None or not kind.takes(y):
        return None
    # Decompositions of what is not finite raise errors of their own.
    if not kind.is_scalar and y.device.type == "cpu" and not arguments.all_finite(weight):
        return None
    with torch.no_grad():
        found = kind.solve(y, weight.detach())
    return found if y.device.type != "cpu" or _is_finite(found) else None


def _is_finite(found: Tensor) -> bool:
    """Tell by one pixel a plane: each sums over all pixels and taps, and is not finite where one of those is not."""
    if found.numel() == found.shape[-1] * found.shape[-2]:
        return cmath.isfinite(found.reshape(-1)[0].item())
    return arguments.all_finite(found[..., 0, 0])


def _is_plain(value: Any) -> bool:
    """Whether a tensor is one that nothing watches and nothing has wrapped."""
    if type(value) is not Tensor and type(value) is not torch.nn.Parameter:
        return False
    if value.layout is not torch.strided or value.device.type == "meta":
        return False
    if value.requires_grad and torch.is_grad_enabled():
        return False
    # A level is entered for as long as forward mode or a transform of torch.func lasts.
    return forward_ad._current_level < 0 and not torch._C._are_functorch_transforms_active()


def _is_whole(value: Any) -> bool:
    kind = type(value)
    if kind is tuple or kind is torch.Size:
        return all(type(part) is int for part in value)
    return kind is int or kind is str


@lru_cache(maxsize=MOST_KINDS)
def _kind(
    shape: torch.Size,
    dtype: torch.dtype,
    device: str,
    sizes: tuple[Any, Any, Any, Any, Any],
    modes: tuple[str, str],
    numbers: tuple[float, float | None, float | None],
) -> _Kind | None:
    """Check the arguments once; None where they are wrong, or where another solver than the DFT may serve."""
    padding_mode, solver = modes
    damp, atol, rtol = numbers
    if len(shape) != 4 or dtype not in arguments.SUPPORTED_DTYPES or solver not in ("auto", _FOURIER.name):
        return None
    try:
        # Values play no part in what is asked here: one zero stands for all of them.
        nothing = torch.zeros((), dtype=dtype, device="cpu").expand(shape)
        operator = Conv2dOperator(nothing, *sizes, padding_mode)
        request = Request.of(operator.convolution, damp, atol, rtol, solver)
    except arguments.ArgumentError:
        return None
    problem = request.problem()
    if operator.dtype != dtype or _FOURIER.refuses(problem) is not None:
        return None
    if solver == "auto" and device == "cpu" and could_pay(operator.convolution):
        return None
    is_scalar = scalar_symbol.serves(operator.geometry)
    return _Kind(problem, operator.in_shape, operator.out_shape, operator.each_channel_alone, is_scalar)
