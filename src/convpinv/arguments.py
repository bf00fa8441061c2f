"""The one door for arguments: normalise, check, raise.

Past this door everything is well-formed, and no other module checks again. Every message names the public
call, the argument, what it was, and what it may be.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

SUPPORTED_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class ConvpinvError(Exception):
    """Base class of every error that this package raises on purpose."""


class ArgumentError(ConvpinvError, ValueError):
    """An argument that the call cannot work with; the message names it and what it may be."""


class SolverRefusedError(ArgumentError):
    """The solver asked for cannot serve this operator; the message ends in an alternative."""


class ConvergenceError(ConvpinvError, RuntimeError):
    """An iteration ended before its tolerance; nothing unconverged is returned silently."""


class KernelGradientError(ConvpinvError, NotImplementedError):
    """A gradient by the kernel was asked for, which this version does not give."""


class Boundary(enum.StrEnum):
    """What a convolution reads outside the picture, in torch's words (``torch.nn.Conv2d``'s ``padding_mode``)."""

    ZEROS = "zeros"
    CIRCULAR = "circular"
    REFLECT = "reflect"
    REPLICATE = "replicate"


def fail(call: str, argument: str, was: object, may_be: str) -> NoReturn:
    """Raise the one-line error of this package: call, argument, what it was, what it may be."""
    raise ArgumentError(f"{call}: {argument} is {was}; {may_be}")


def describe(value: object) -> str:
    """Say in a few words what a value is, for an error message."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {value.dtype} array of shape {tuple(value.shape)}"  # pyright: ignore[reportAttributeAccessIssue]
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"


def boundary(call: str, argument: str, value: object) -> Boundary:
    """Return the boundary that a word names."""
    try:
        return Boundary(value)  # pyright: ignore[reportArgumentType]
    except ValueError:
        fail(call, argument, repr(value), "it may be " + ", ".join(repr(str(mode)) for mode in Boundary))


def choice(call: str, argument: str, value: object, options: Sequence[str]) -> str:
    """Return the word if it is one of the options."""
    if isinstance(value, str) and value in options:
        return value
    fail(call, argument, describe(value), "it may be " + ", ".join(repr(option) for option in options))


def integer_pair(call: str, argument: str, value: object, minimum: int) -> tuple[int, int]:
    """Return (rows, columns) of an integer or a pair of integers, each at least ``minimum``."""
    if isinstance(value, int) and not isinstance(value, bool):
        pair = (value, value)
    elif (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value)
    ):
        pair = (int(value[0]), int(value[1]))
    else:
        fail(call, argument, describe(value), f"it may be an integer of at least {minimum} or a pair of them")
    if min(pair) < minimum:
        fail(call, argument, describe(value), f"each entry must be at least {minimum}")
    return pair


def padding(
    call: str,
    value: object,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) of torch's padding argument.

    ``"same"`` puts the odd pixel of an even kernel after the picture, as ``torch.nn.Conv2d`` does.
    """
    if isinstance(value, str):
        word = choice(call, "padding", value, ("same", "valid"))
        if word == "valid":
            return (0, 0), (0, 0)
        if stride != (1, 1):
            fail(call, "padding", "'same'", f"torch offers it for stride 1 only, and the stride is {stride}")
        totals = [dilation[axis] * (kernel_size[axis] - 1) for axis in (0, 1)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    rows, columns = integer_pair(call, "padding", value, 0)
    return (rows, rows), (columns, columns)


def non_negative(call: str, argument: str, value: object) -> float:
    """Return a finite real number of at least 0."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(call, argument, describe(value), "it must be a real number of at least 0")
    number = float(value)
    if not 0.0 <= number < float("inf"):
        fail(call, argument, number, "it must be a finite number of at least 0")
    return number


def optional_non_negative(call: str, argument: str, value: object) -> float | None:
    """Return None or a finite real number of at least 0."""
    return None if value is None else non_negative(call, argument, value)


def positive_integer(call: str, argument: str, value: object) -> int:
    """Return an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail(call, argument, describe(value), "it must be an integer of at least 1")
    return value


def all_finite(value: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity, at the cost of one sum where it does not."""
    # One reduction instead of a boolean copy of the picture; a sum that overflows is looked at entry by entry.
    if bool(torch.isfinite(value.sum())):
        return True
    return bool(torch.isfinite(value).all())


def kernel(call: str, weight: object, groups: object) -> tuple[Tensor, int]:
    """Return a checked convolution weight (Cout, Cin/groups, kH, kW) and the number of groups."""
    if not isinstance(weight, Tensor):
        fail(call, "weight", describe(weight), "it must be a tensor of shape (Cout, Cin/groups, kH, kW)")
    if weight.dtype not in SUPPORTED_DTYPES:
        fail(call, "weight", describe(weight), "its dtype may be float32, float64, complex64 or complex128")
    if weight.ndim != 4 or weight.numel() == 0:
        fail(call, "weight", describe(weight), "its shape must be (Cout, Cin/groups, kH, kW), none of them 0")
    count = positive_integer(call, "groups", groups)
    if weight.shape[0] % count:
        fail(call, "groups", count, f"it must divide the weight's {weight.shape[0]} output channels")
    if not all_finite(weight.detach()):
        fail(call, "weight", "not finite", "it holds NaN or infinity; every entry must be a number")
    return weight, count


def images(
    call: str, argument: str, value: object, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Check one image (C, H, W) or a batch of them (..., C, H, W) against an operator's side.

    Where the operator's side has one channel, pictures of any number of channels pass: each is an image of its own.
    """
    if not isinstance(value, Tensor):
        fail(call, argument, describe(value), f"it must be a tensor of shape (B, C, H, W) or (C, H, W) with (C, H, W) = {shape}")
    channels, height, width = shape
    fits = value.ndim >= 3 and value.shape[-2:] == (height, width) and (channels == 1 or value.shape[-3] == channels)
    if not fits:
        fail(call, argument, describe(value), f"its last three sizes (C, H, W) must be {shape}")
    if value.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        fail(call, argument, describe(value), f"the operator is {name}; convert one of them with .to(torch.{name})")
    if value.device != device:
        fail(call, argument, f"on {value.device}", f"the operator is on {device}; move one of them with .to(...)")
    # On an accelerator the question would stall the stream; NaN then travels as it does everywhere in torch.
    if value.device.type == "cpu" and not torch.compiler.is_compiling() and not all_finite(value.detach()):
        fail(call, argument, "not finite", "it holds NaN or infinity, which would spread over the whole result")
    return value


