"""Tensors of the linear algebra: kernels and the pictures that operators take."""

from __future__ import annotations

import cmath
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from convpinv.arguments.errors import describe, fail
from convpinv.arguments.numbers import non_negative, positive_integer

SUPPORTED_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
# Accepted at the door and computed in float32: a pseudo-inverse in half precision would have no digits.
HALF_DTYPES = (torch.float16, torch.bfloat16)


def all_finite(value: Tensor) -> bool:
    """Tell whether a tensor holds neither NaN nor infinity, at the cost of one sum where it does not."""
    # One reduction instead of a boolean copy of the picture; a sum that overflows is looked at entry by entry.
    total = value.sum()
    # Read back first: as a Python number the question takes 2 µs instead of 8.
    if cmath.isfinite(total.item()):
        return True
    return bool(torch.isfinite(value).all())


def beneath_transforms(value: Tensor) -> Tensor:
    """Return the plain tensor that transforms of ``torch.func`` have wrapped; the same tensor where none has."""
    if torch.compiler.is_compiling():
        return value
    # torch.func.debug_unwrap is this, and younger than the oldest torch that is served.
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(value):
        value = functorch.get_unwrapped(value)
    return value


ONE_PREPARATION = "a pseudo-inverse is prepared for one: map over the data alone, or loop"


def unbatched(call: str, argument: str, value: Tensor) -> Tensor:
    """Return the plain tensor beneath transforms, if none of them is ``torch.func.vmap`` over it."""
    plain = beneath_transforms(value)
    if plain.ndim != value.ndim:
        fail(call, argument, "batched by torch.func.vmap", ONE_PREPARATION)
    return plain


def damping(call: str, damp: object) -> tuple[float, Tensor | None]:
    """Return a damping as a number of at least 0, and as a tensor where it is one that can be differentiated by."""
    if not isinstance(damp, Tensor):
        return non_negative(call, "damp", damp), None
    plain = unbatched(call, "damp", damp)
    if plain.ndim or plain.dtype.is_complex or plain.dtype == torch.bool:
        fail(call, "damp", describe(damp), "it may be a number or a real tensor without axes")
    number = non_negative(call, "damp", plain.detach())
    return number, damp if damp.dtype.is_floating_point else None


def fixed_or_learned(call: str, argument: str, value: object) -> float | torch.nn.Parameter:
    """Return a damping as a module keeps it: a parameter, or a number."""
    number, tensor = damping(call, value)
    if isinstance(value, torch.nn.Parameter) and tensor is not None:
        return value
    if tensor is not None and tensor.requires_grad:
        fail(call, argument, describe(value), "a damping that learns must be a torch.nn.Parameter")
    return number


def kernel(call: str, weight: object, groups: object) -> tuple[Tensor, int]:
    """Return a checked convolution weight (Cout, Cin/groups, kH, kW) and the number of groups.

    A weight in half precision becomes float32; gradients flow back through the conversion.
    """
    if not isinstance(weight, Tensor):
        fail(call, "weight", describe(weight), "it must be a tensor of shape (Cout, Cin/groups, kH, kW)")
    if weight.layout != torch.strided or weight.device.type == "meta":
        fail(call, "weight", f"{weight.layout} on {weight.device}", "it must be a dense tensor with values")
    if weight.dtype in HALF_DTYPES:
        weight = weight.to(torch.float32)
    if weight.dtype not in SUPPORTED_DTYPES:
        options = "float16, bfloat16, float32, float64, complex64 or complex128"
        fail(call, "weight", describe(weight), f"its dtype may be {options}")
    if weight.ndim != 4 or weight.numel() == 0:
        fail(call, "weight", describe(weight), "its shape must be (Cout, Cin/groups, kH, kW), none of them 0")
    count = positive_integer(call, "groups", groups)
    if weight.shape[0] % count:
        fail(call, "groups", count, f"it must divide the weight's {weight.shape[0]} output channels")
    # A graph cannot ask, and on an accelerator the question would stall the stream; NaN then travels as everywhere.
    is_asked = weight.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_asked and not all_finite(beneath_transforms(weight).detach()):
        fail(call, "weight", "not finite", "it holds NaN or infinity; every entry must be a number")
    return weight, count


def kernel_batch(call: str, weights: Tensor) -> Tensor:
    """Return checked weights (N, Cout, Cin/groups, kH, kW), one convolution kernel a picture."""
    if weights.numel() == 0:
        fail(call, "weight", describe(weights), "its shape must be (N, Cout, Cin/groups, kH, kW), none of them 0")
    one, _ = kernel(call, weights.flatten(0, 1), 1)
    return one.unflatten(0, weights.shape[:2])


def kernel_batch_images(
    call: str, argument: str, value: object, count: int, shape: tuple[int, int, int], each_channel_alone: bool
) -> None:
    """Check the layout of pictures (N, ..., C, H, W) for N kernels; the operators check the rest."""
    may_be = f"with {count} kernels it must be (N, ..., C, H, W) with N = {count} and (C, H, W) = {shape}"
    if not isinstance(value, Tensor) or value.ndim < 4 or value.shape[0] != count:
        fail(call, argument, describe(value), may_be)
    if value.shape[-2:] != shape[1:] or (value.shape[-3] != shape[0] and not each_channel_alone):
        fail(call, argument, describe(value), may_be)


def signal_kernel(call: str, weight: object) -> Tensor:
    """Return the weight of a convolution along one axis, (Cout, Cin/groups, k) or a batch of them, as one row high."""
    may_be = "it must be a tensor (Cout, Cin/groups, k), or (N, Cout, Cin/groups, k) for N kernels"
    if not isinstance(weight, Tensor) or weight.ndim not in (3, 4) or weight.numel() == 0:
        fail(call, "weight", describe(weight), may_be)
    return weight.unsqueeze(-2)


def signals(
    call: str,
    argument: str,
    value: object,
    shape: tuple[int, int, int],
    kernels: int | None,
    each_channel_alone: bool,
) -> Tensor:
    """Return signals (..., C, L), or (N, ..., C, L) for N kernels, as pictures one row high."""
    channels, _, length = shape
    fixed = f"(C, L) = {(channels, length)}"
    may_be = f"it must be (C, L) or (B, C, L) with {fixed}"
    axes = 2
    if kernels is not None:
        may_be = f"with {kernels} kernels it must be (N, C, L) or (N, B, C, L) with N = {kernels} and {fixed}"
        axes = 3
    if not isinstance(value, Tensor) or value.ndim < axes or value.shape[-1] != length:
        fail(call, argument, describe(value), may_be)
    if (value.shape[-2] != channels and not each_channel_alone) or (kernels is not None and value.shape[0] != kernels):
        fail(call, argument, describe(value), may_be)
    return value.unsqueeze(-2)


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
    if converted.dtype in HALF_DTYPES:
        remedy = "operators compute in float32 or float64; one in float32 takes half-precision pictures too"
        fail(call, "its argument", describe(converted.dtype), remedy)
    return kernel(call, converted, 1)[0]


def images(
    call: str,
    argument: str,
    value: object,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    each_channel_alone: bool = False,
    by_result: bool = False,
) -> Tensor:
    """Check one image (C, H, W) or a batch of them (..., C, H, W) against an operator's side.

    With ``each_channel_alone``, pictures of any number of channels pass: each channel is an image of its own. Where
    the operator is float32, an image in half precision comes back in float32. With ``by_result``, whether the numbers
    are finite is left to :func:`finite_image`.
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
    if value.dtype in HALF_DTYPES and dtype == torch.float32:
        value = value.to(torch.float32)
    if value.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        fail(call, argument, describe(value), f"the operator is {name}; convert one of them with .to(torch.{name})")
    if value.device != device:
        fail(call, argument, f"on {value.device}", f"the operator is on {device}; move one of them with .to(...)")
    if not by_result:
        finite_image(call, argument, value, value)
    return value


def finite_image(call: str, argument: str, value: Tensor, shown: Tensor) -> None:
    """Check that the numbers of an image are finite, on the CPU.

    ``shown`` is looked at first: the image, or a few pixels of a result that cannot be finite where the image is not.
    On an accelerator the question would stall the stream; NaN then travels as it does everywhere in torch.
    """
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if cmath.isfinite(beneath_transforms(shown).detach().sum().item()):
        return
    if not bool(torch.isfinite(beneath_transforms(value).detach()).all()):
        fail(call, argument, "not finite", "it holds NaN or infinity, which would spread over the whole result")


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
