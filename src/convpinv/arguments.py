"""The one door for arguments: normalise, check, raise.

Past this door everything is well-formed, and no other module checks again. Every message names the public
call, the argument, what it was, and what it may be.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, SupportsIndex

import numpy as np
import torch
from torch import Tensor

# One integer for both axes, or (rows, columns); NumPy's integers and torch.Size too.
IntegerPair = SupportsIndex | Sequence[SupportsIndex]

SUPPORTED_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


class ConvpinvError(Exception):
    """Base class of every error that this package raises on purpose."""


class ArgumentError(ConvpinvError, ValueError):
    """An argument that the call cannot work with; the message names it and what it may be."""


class SolverRefusedError(ArgumentError):
    """The solver asked for cannot serve this operator; the message ends in an alternative."""


class ConvergenceError(ConvpinvError, RuntimeError):
    """An iteration ended before its tolerance; nothing unconverged is returned silently."""


class ConvergenceWarning(UserWarning):
    """A restoration reached its limit of iterations: near its goal, and not at it."""


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
    single = _integer(value)
    entries = [_integer(entry) for entry in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    if single is not None:
        pair = (single, single)
    elif len(entries) == 2 and entries[0] is not None and entries[1] is not None:
        pair = (entries[0], entries[1])
    else:
        fail(call, argument, describe(value), f"it may be an integer of at least {minimum} or a pair of them")
    if min(pair) < minimum:
        fail(call, argument, describe(value), f"each entry must be at least {minimum}")
    return pair


def _integer(value: object) -> int | None:
    """Return a Python or NumPy integer as the first; None for anything else, booleans too."""
    if isinstance(value, bool | np.bool_ | Tensor | np.ndarray) or not isinstance(value, SupportsIndex):
        return None
    return operator.index(value)


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
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(call, argument, describe(value), "it must be a real number of at least 0")
    number = _as_float(value)
    if not 0.0 <= number < float("inf"):
        fail(call, argument, number, "it must be a finite number of at least 0")
    return number


def _as_float(value: float) -> float:
    """Return a number as a float: an integer beyond the largest float as infinity."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else -float("inf")


def optional_non_negative(call: str, argument: str, value: object) -> float | None:
    """Return None or a finite real number of at least 0."""
    return None if value is None else non_negative(call, argument, value)


def positive_integer(call: str, argument: str, value: object) -> int:
    """Return an integer of at least 1."""
    number = _integer(value)
    if number is None or number < 1:
        fail(call, argument, describe(value), "it must be an integer of at least 1")
    return number


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
    if weight.layout != torch.strided or weight.device.type == "meta":
        fail(call, "weight", f"{weight.layout} on {weight.device}", "it must be a dense tensor with values")
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


def converted_kernel(call: str, weight: Tensor, target: Sequence[object]) -> Tensor:
    """Return a checked weight on another device or in another dtype (arguments as for ``Tensor.to``)."""
    try:
        converted = weight.to(*target)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (RuntimeError, TypeError) as error:
        fail(
            call,
            "its argument",
            describe(target[0] if target else None),
            f"Tensor.to says: {str(error).splitlines()[0]}",
        )
    return kernel(call, converted, 1)[0]


@contextmanager
def called(call: str, data: str) -> Iterator[None]:
    """Let the errors of a block name the call that the user made, and its data argument."""
    try:
        yield
    except ArgumentError as error:
        text = str(error).partition(": ")[2].replace("its argument is", f"{data} is", 1)
        raise type(error)(f"{call}: {text}") from None


def images(
    call: str,
    argument: str,
    value: object,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    each_channel_alone: bool = False,
) -> Tensor:
    """Check one image (C, H, W) or a batch of them (..., C, H, W) against an operator's side.

    With ``each_channel_alone``, pictures of any number of channels pass: each channel is an image of its own.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        fail(
            call,
            argument,
            describe(value),
            f"it must be a dense tensor (B, C, H, W) or (C, H, W) with (C, H, W) = {shape}",
        )
    fits = value.ndim >= 3 and value.shape[-2:] == shape[1:] and (each_channel_alone or value.shape[-3] == shape[0])
    if not fits and each_channel_alone:
        fail(call, argument, describe(value), f"it must be (C, H, W) or (B, C, H, W) with (H, W) = {shape[1:]}")
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


@dataclass(frozen=True)
class Pictures:
    """Pictures as planes (N, H, W) in a floating dtype, and the way back to what the caller gave.

    ``shape`` is the caller's, ``channels`` how many planes in a row belong to one picture (1 for grey), ``numpy``
    whether an array came in; ``dtype`` is that of the result: the picture's own, float32 for integers.
    """

    stack: Tensor
    shape: tuple[int, ...]
    channels: int
    numpy: bool
    dtype: torch.dtype

    def restored(self, planes: Tensor) -> Any:
        """Give planes (N, h, w) the caller's kind, layout and dtype; h and w may differ from the picture's."""
        planes = planes.to(self.dtype)
        if not self.numpy:
            return planes.reshape(*self.shape[:-2], *planes.shape[-2:])
        array = planes.cpu().numpy()
        return np.ascontiguousarray(np.moveaxis(array, 0, -1)) if len(self.shape) == 3 else array[0]


def pictures(call: str, argument: str, value: object, largest_ndim: int | None = None) -> Pictures:
    """Return the planes of an array (H, W) or (H, W, C), or of a tensor (..., H, W).

    ``largest_ndim`` bounds the number of axes of a tensor; an array has at most 3.
    """
    if not isinstance(value, np.ndarray | Tensor):
        fail(call, argument, describe(value), "it must be a NumPy array or a torch tensor")
    is_array = isinstance(value, np.ndarray)
    integer = value.dtype.kind in "iu" if isinstance(value, np.ndarray) else not value.dtype.is_floating_point
    tensor = real_tensor(call, argument, value)
    if is_array and tensor.ndim not in (2, 3):
        fail(call, argument, describe(value), "an array may be (H, W) or (H, W, C), channels last; a batch, a tensor")
    if tensor.ndim < 2 or (largest_ndim is not None and tensor.ndim > largest_ndim):
        fail(call, argument, describe(value), "a tensor may be (H, W), (C, H, W) or (B, C, H, W)")
    if tensor.numel() == 0:
        fail(call, argument, describe(value), "it must hold at least one pixel")
    stack = tensor.permute(2, 0, 1) if is_array and tensor.ndim == 3 else tensor.reshape(-1, *tensor.shape[-2:])
    if not all_finite(stack):
        fail(call, argument, "not finite", "it holds NaN or infinity; fill or cut such pixels before")
    dtype = torch.float32 if integer else stack.dtype
    working = torch.float64 if integer or dtype == torch.float64 else torch.float32
    channels = 1 if tensor.ndim == 2 else int(tensor.shape[-1 if is_array else -3])
    return Pictures(stack.to(working).contiguous(), tuple(tensor.shape), channels, is_array, dtype)


def finite(call: str, argument: str, value: object) -> float:
    """Return a finite real number, from a Python or NumPy number or a tensor of one entry."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", None) == 0:
        value = item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(call, argument, describe(value), "it must be a real number")
    number = _as_float(value)
    if not -float("inf") < number < float("inf"):
        fail(call, argument, f"{number:g}", "it must be finite")
    return number


def positive(call: str, argument: str, value: object) -> float:
    """Return a finite real number above 0."""
    number = finite(call, argument, value)
    if number <= 0.0:
        fail(call, argument, f"{number:g}", "it must be above 0")
    return number


def odd_size(call: str, argument: str, value: object) -> int:
    """Return an odd integer of at least 1."""
    size = positive_integer(call, argument, value)
    if size % 2 == 0:
        fail(call, argument, size, "it must be odd, so that the PSF has a centre pixel")
    return size


def real_tensor(call: str, argument: str, value: object) -> Tensor:
    """Return a real array or tensor as a tensor without gradient: floating as it is, integers in float64.

    NumPy arrays of any byte order, stride and memory layout pass; they are copied only where torch cannot read them.
    """
    real = "it must hold real numbers, neither boolean nor complex"
    if isinstance(value, Tensor):
        if value.dtype == torch.bool or value.dtype.is_complex:
            fail(call, argument, describe(value), real)
        if value.layout != torch.strided or value.device.type == "meta" or value.is_quantized:
            kind = "on the meta device" if value.device.type == "meta" else "sparse or quantized"
            fail(call, argument, f"{describe(value)}, {kind}", "it must be a dense tensor that holds its values")
        if value.dtype.is_floating_point and value.dtype.itemsize < 2:
            fail(call, argument, describe(value), "its dtype may be float16 or wider; convert it with .to(...)")
        return value.detach() if value.dtype.is_floating_point else value.detach().to(torch.float64)
    try:
        array = np.asarray(value) if isinstance(value, list | tuple) else value
    except (ValueError, TypeError, RuntimeError):
        fail(call, argument, describe(value), "its rows must be numbers, all of the same length")
    if not isinstance(array, np.ndarray):
        fail(call, argument, describe(value), "it must be a NumPy array or a torch tensor of real numbers")
    if array.dtype.kind not in "fiu":
        fail(call, argument, describe(array), real)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype.kind != "f" or native.dtype.itemsize > 8:
        native = native.astype(np.float64)
    if any(stride < 0 for stride in native.strides) or not native.flags.writeable:
        native = native.copy()
    return torch.from_numpy(native)


def noise_levels(call: str, argument: str, value: object, pictures: Pictures) -> Tensor | None:
    """Return the noise of each plane (N,), float64 on the CPU, from one number or one a channel or plane; or None."""
    if value is None:
        return None
    count, channels = len(pictures.stack), pictures.channels
    largest = torch.finfo(pictures.stack.dtype).max
    axes = getattr(value, "ndim", None)
    if isinstance(value, list | tuple) or (axes is not None and axes > 0):
        levels = real_tensor(call, argument, value).to("cpu", torch.float64)
        lead = pictures.shape[:-2]
        if levels.numel() == 1 and count == 1:
            levels = levels.reshape(1)
        elif levels.shape == (channels,):
            levels = levels.repeat(count // channels)
        elif not pictures.numpy and levels.shape == lead:
            levels = levels.reshape(-1)
        else:
            fail(call, argument, describe(value), f"it may be one number, or one for each of the {channels} channels")
        if not bool(((levels >= 0) & (levels <= largest)).all()):
            fail(call, argument, describe(value), "each entry must be a finite number of at least 0")
        return levels
    number = non_negative(call, argument, value)
    if number > largest:
        fail(
            call, argument, f"{number:g}", f"it must not exceed the largest number of the picture's type, {largest:.1e}"
        )
    return torch.full((count,), number, dtype=torch.float64)


def result_fits(call: str, result: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a result in the dtype that it is given back in, or say that it exceeds it: nothing is clipped."""
    given = result.to(dtype)
    if not all_finite(given):
        name = str(dtype).removeprefix("torch.")
        wider = "as float32" if dtype == torch.float16 else "divided by a number, or as float64"
        raise ArgumentError(f"{call}: the result exceeds {name}'s range; give the picture {wider}")
    return given


def psf(call: str, argument: str, value: object) -> Tensor:
    """Return a PSF (h, w) or (C, h, w), checked and normalised to sum 1 a channel, float64 on the CPU."""
    tensor = real_tensor(call, argument, value).to("cpu", torch.float64, copy=True)
    if tensor.ndim not in (2, 3) or tensor.numel() == 0:
        fail(call, argument, describe(value), "its shape must be (h, w) or (C, h, w), none of them 0")
    if not all_finite(tensor):
        fail(call, argument, "not finite", "it holds NaN or infinity; every value must be a number")
    largest = tensor.abs().amax()
    # Scaled first: the sum of values near the largest number there is would overflow.
    tensor = tensor / largest if largest > 0 else tensor
    totals = tensor.sum((-2, -1), keepdim=True)
    if not bool((totals > 1e-9).all()):
        was = f"of sum {float(totals.min() * largest):.3g}"
        fail(call, argument, was, "its sum must be positive (in each channel); subtract no more than its background")
    tensor = tensor / totals
    return tensor / tensor.sum((-2, -1), keepdim=True)


def psf_fits(call: str, psf: Tensor, pictures: Pictures) -> None:
    """Check a PSF (h, w) or (C, h, w) against the pictures that it is to blur or to restore."""
    height, width = pictures.stack.shape[-2:]
    if psf.ndim == 3 and psf.shape[0] not in (1, pictures.channels):
        may_be = f"the picture has {pictures.channels} channels: give (h, w) or ({pictures.channels}, h, w)"
        fail(call, "psf", describe(psf), may_be)
    if psf.shape[-2] > height or psf.shape[-1] > width:
        was = f"{psf.shape[-2]} x {psf.shape[-1]} pixels"
        fail(call, "psf", was, f"it must not be larger than the picture, {height} x {width}")


def seed(call: str, argument: str, value: object) -> int:
    """Return the seed of a random generator: an integer of at least 0."""
    number = int(value) if isinstance(value, np.integer) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        fail(call, argument, describe(value), "it must be an integer of at least 0, or None")
    return number
