"""Pictures and PSFs, as arrays or tensors of any layout, and the way back to what the caller gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convpinv.arguments.errors import ArgumentError, ConvpinvError, describe, fail
from convpinv.arguments.numbers import finite as finite_number
from convpinv.arguments.numbers import non_negative
from convpinv.arguments.tensors import all_finite, real_tensor


@dataclass(frozen=True)
class Pictures:
    """Pictures as planes (N, H, W) in a floating dtype, and the way back to what the caller gave.

    ``shape`` is the caller's, ``channels`` how many planes in a row belong to one picture (1 for grey), ``numpy``
    whether an array came in; ``dtype`` is that of the result: the picture's own, float32 for integers. ``finite`` tells
    where the caller's values were numbers, None for everywhere; the others are 0 in ``stack``.
    """

    stack: Tensor
    shape: tuple[int, ...]
    channels: int
    numpy: bool
    dtype: torch.dtype
    finite: Tensor | None = None

    def restored(self, planes: Tensor) -> Any:
        """Give planes (N, h, w) the caller's kind, layout and dtype; h and w may differ from the picture's."""
        planes = planes.to(self.dtype)
        if not self.numpy:
            return planes.reshape(*self.shape[:-2], *planes.shape[-2:])
        array = planes.cpu().numpy()
        return np.ascontiguousarray(np.moveaxis(array, 0, -1)) if len(self.shape) == 3 else array[0]

    def one(self, planes: Tensor) -> Any:
        """Give the planes (C, h, w) of one picture the caller's kind, layout and dtype; of a batch, a batch of one."""
        planes = planes.to(self.dtype)
        if not self.numpy:
            return planes.reshape(*(1 for _ in self.shape[:-3]), *self.shape[-3:-2], *planes.shape[-2:])
        array = planes.cpu().numpy()
        return np.ascontiguousarray(np.moveaxis(array, 0, -1)) if len(self.shape) == 3 else array[0]


def pictures(
    call: str, argument: str, value: object, largest_ndim: int | None = None, *, gaps: bool = False
) -> Pictures:
    """Return the planes of an array (H, W) or (H, W, C), or of a tensor (..., H, W).

    ``largest_ndim`` bounds the number of axes of a tensor; an array has at most 3. With ``gaps``, NaN, infinity and
    what a masked array masks are pixels that are not there, and refused only where a plane has no others.
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
    finite = None
    masked = np.ma.getmask(value) if isinstance(value, np.ma.MaskedArray) else np.ma.nomask
    if masked is not np.ma.nomask and np.any(masked):
        if not gaps:
            fail(call, argument, "a masked array", "every pixel counts here; fill or cut the masked ones before")
        hidden = torch.from_numpy(np.ascontiguousarray(masked)).to(stack.device)
        hidden = hidden.permute(2, 0, 1) if hidden.ndim == 3 else hidden[None]
        stack = torch.where(hidden, torch.nan, stack if stack.is_floating_point() else stack.to(torch.float64))
    if not all_finite(stack):
        finite = torch.isfinite(stack)
        if not gaps:
            fail(call, argument, "not finite", "it holds NaN or infinity; fill or cut such pixels before")
        if not bool(finite.any(-1).any(-1).all()):
            fail(call, argument, "not finite", "every value of it (or of one of its channels) is NaN or infinite")
        stack = torch.where(finite, stack, 0)
    dtype = torch.float32 if integer else stack.dtype
    working = torch.float64 if integer or dtype == torch.float64 else torch.float32
    channels = 1 if tensor.ndim == 2 else int(tensor.shape[-1 if is_array else -3])
    return Pictures(stack.to(working).contiguous(), tuple(tensor.shape), channels, is_array, dtype, finite)


def pixel_weights(call: str, argument: str, value: object, pictures: Pictures) -> Tensor | None:
    """Return how far each pixel counts, (N, H, W) or (1, H, W) in the pictures' working dtype; or None."""
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype == bool:
        value = value.astype(np.uint8)
    elif isinstance(value, Tensor) and value.dtype == torch.bool:
        value = value.to(torch.uint8)
    weights = real_tensor(call, argument, value)
    size, shape = tuple(pictures.stack.shape[-2:]), tuple(weights.shape)
    if shape == size:
        planes = weights[None]
    elif shape == pictures.shape:
        channels_last = pictures.numpy and weights.ndim == 3
        planes = weights.permute(2, 0, 1) if channels_last else weights.reshape(-1, *size)
    else:
        may_be = f"its shape must be {size} or the picture's, {pictures.shape}"
        fail(call, argument, describe(value), may_be)
    if not bool(((planes >= 0) & (planes <= 1)).all()):
        trouble = "NaN" if bool(planes.isnan().any()) else f"from {float(planes.min()):g} to {float(planes.max()):g}"
        fail(call, argument, trouble, "weights lie from 0 (not seen) to 1 (seen); of other numbers give mask > 0")
    if not bool((planes > 0).any(-1).any(-1).all()):
        fail(call, argument, "0 everywhere", "at least one pixel (of each channel) must be seen: 1 or True is seen")
    return planes.to(pictures.stack).contiguous()


def limits(call: str, argument: str, value: object) -> tuple[float | None, float | None]:
    """Return (low, high) of a pair of numbers in ascending order, either of which may be None."""
    if value is None:
        return None, None
    if not isinstance(value, list | tuple) or len(value) != 2:
        fail(call, argument, describe(value), "it may be a pair (low, high); None leaves an end open")
    low, high = (None if end is None else finite_number(call, argument, end) for end in value)
    if low is not None and high is not None and low >= high:
        fail(call, argument, f"({low:g}, {high:g})", "its first number must be below its second")
    return low, high


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


def denoiser(
    call: str, argument: str, function: Callable[[Any, float], Any], pictures: Pictures
) -> Callable[[Tensor, float], Tensor]:
    """Return a denoiser of planes (C, h, w) from the caller's, which takes pictures of its kind, and check it."""

    def denoise(planes: Tensor, sigma: float) -> Tensor:
        given = pictures.one(planes)
        clean = function(given, sigma)
        if not isinstance(clean, np.ndarray | Tensor) or tuple(clean.shape) != tuple(given.shape):
            fail(call, argument, f"a denoiser that returned {describe(clean)}", f"it must return {describe(given)}")
        tensor = real_tensor(call, argument, clean).to(planes)
        if pictures.numpy and tensor.ndim == 3:
            tensor = tensor.permute(2, 0, 1)
        if not all_finite(tensor):
            fail(call, argument, "a denoiser that returned NaN or infinity", "every value of it must be a number")
        return tensor.reshape(planes.shape)

    return denoise


def result_fits(call: str, result: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a result in the dtype that it is given back in, or say that it exceeds it: nothing is clipped."""
    given = result.to(dtype)
    if not all_finite(given):
        name = str(dtype).removeprefix("torch.")
        if not bool(given.isinf().any()):
            raise ConvpinvError(f"{call}: the result holds NaN, which none of the arguments explains; please report it")
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
