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

# Kinds of calls that are remembered; each holds a few numbers, or the waves of few taps.
MOST_KINDS = 64
_FOURIER = Fourier()
# What sizes and numbers may be given as.
WHOLE, INTEGERS, NUMBERS = {int, str, tuple, torch.Size}, {int}, {float, int, type(None)}


@dataclass(frozen=True)
class _Kind:
    """What calls that differ in their numbers alone have in common: a problem whose weight is still to be put in."""

    problem: Problem
    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    each_channel_alone: bool
    is_scalar: bool
    few_taps: scalar_symbol.FewTaps | None
    is_one_plane: bool

    def solve(self, y: Tensor, weight: Tensor) -> Tensor:
        if self.few_taps is not None and (found := self.few_taps.solve(weight, y)) is not None:
            return found
        operator = Convolution(weight, self.problem.operator.geometry)
        state = _FOURIER.prepare(replace(self.problem, operator=operator))
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
    # A level is entered for as long as forward mode or a transform of torch.func lasts.
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return None
    device = "cpu" if y.is_cpu and weight.is_cpu else weight.device.type  # the question takes 1 µs instead of 10
    if y.dtype is not weight.dtype or (device != "cpu" and y.device != weight.device):
        return None
    if torch.is_autocast_enabled(device):
        return None
    # Equal keys must mean equal arguments: True and 1.0 are equal to 1, and the general way refuses them.
    if not (WHOLE.issuperset(map(type, sizes)) and NUMBERS.issuperset(map(type, numbers))):
        return None
    for size in sizes:
        if type(size) not in (int, str) and not INTEGERS.issuperset(map(type, size)):
            return None
    if type(modes[0]) is not str or type(modes[1]) is not str:
        return None
    kind = _kind(weight.shape, y.shape, weight.dtype, device, sizes, modes, numbers)
    if kind is None:
        return None
    # Decompositions of what is not finite raise errors of their own.
    if not kind.is_scalar and device == "cpu" and not arguments.all_finite(weight):
        return None
    # Nothing here is differentiated, so that gradients need not be switched off.
    found = kind.solve(y, weight)
    if device != "cpu":
        return found
    # One pixel a plane: each sums over all pixels and taps, and is not finite where one of those is not.
    first = found.as_strided((), ()).item() if kind.is_one_plane else 0.0
    return found if cmath.isfinite(first) and (kind.is_one_plane or arguments.all_finite(found[..., 0, 0])) else None


def _is_plain(value: Any) -> bool:
    """Whether a tensor is one that nothing watches and nothing has wrapped."""
    if type(value) is not Tensor and type(value) is not torch.nn.Parameter:
        return False
    if value.layout is not torch.strided or value.is_meta:
        return False
    return not value.requires_grad or not torch.is_grad_enabled()


@lru_cache(maxsize=MOST_KINDS)
def _kind(
    shape: torch.Size,
    pictures: torch.Size,
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
    if len(pictures) < 3 or pictures[-2:] != operator.out_shape[1:] or 0 in pictures:
        return None
    if not operator.each_channel_alone and pictures[-3] != operator.out_shape[0]:
        return None
    problem = request.problem()
    if operator.dtype != dtype or _FOURIER.refuses(problem) is not None:
        return None
    if solver == "auto" and device == "cpu" and could_pay(operator.convolution):
        return None
    geometry = operator.geometry
    is_scalar = scalar_symbol.serves(geometry)
    few_taps = None
    if is_scalar and device == "cpu":
        few_taps = scalar_symbol.FewTaps.of(nothing, geometry, operator.out_shape[1:], problem.regularization)
    is_one_plane = pictures.numel() == pictures[-2] * pictures[-1] and operator.in_shape[0] == 1
    alone = operator.each_channel_alone
    return _Kind(problem, operator.in_shape, operator.out_shape, alone, is_scalar, few_taps, is_one_plane)
