"""The convolution itself, on a picture that is already padded: by torch's kernels, or by FFT where taps are many.

Both ways compute the same numbers to rounding. Measured on two CPU cores, one channel at 256²: a 25×25 kernel takes
125 ms directly and 0.6 ms by FFT in float64 (5.5 ms and 0.5 ms in float32), its adjoint 180 ms and 0.6 ms; a 5×5
kernel in float32 takes 0.6 ms either way, and small pictures are faster directly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from convpinv.arguments import Boundary, beneath_transforms
from convpinv.linalg import spectrum
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import join_phases, split_phases, tap_values


def pad(image: Tensor, geometry: Geometry) -> Tensor:
    """Extend a batch by what its boundary shows, on both axes."""
    for dimension, axis in ((-2, geometry.rows), (-1, geometry.columns)):
        image = _pad_axis(image, axis, dimension)
    return image


def fold(padded: Tensor, geometry: Geometry) -> Tensor:
    """Adjoint of :func:`pad`: each padded pixel is added to the pixel that it shows."""
    for dimension, axis in ((-2, geometry.rows), (-1, geometry.columns)):
        padded = _fold_axis(padded, axis, dimension)
    return padded


def _pad_axis(image: Tensor, axis: Axis, dimension: int) -> Tensor:
    if axis.before == axis.after == 0:
        return image
    sources = _sources(axis, image.device)
    if sources is None:
        return F.pad(image, _both_sides(axis.before, axis.after, dimension))
    return image.index_select(dimension, sources)


def _fold_axis(padded: Tensor, axis: Axis, dimension: int) -> Tensor:
    if axis.before == axis.after == 0:
        return padded
    sources = _sources(axis, padded.device)
    if sources is None:
        return F.pad(padded, _both_sides(-axis.before, -axis.after, dimension))
    shape = list(padded.shape)
    shape[dimension] = axis.size
    return padded.new_zeros(shape).index_add(dimension, sources, padded)


def _sources(axis: Axis, device: torch.device) -> Tensor | None:
    """Input index that each padded position shows; None where padding is zeros, or leaves pixels out."""
    if axis.boundary is Boundary.ZEROS:
        return None
    # Numbers are cached, not tensors: one made in inference mode would be met outside it.
    # Dynamo looks through a cache, and warns that it does.
    numbers = axis.sources() if torch.compiler.is_compiling() else _source_numbers(axis)
    return torch.tensor(numbers, device=device)


@lru_cache(maxsize=256)
def _source_numbers(axis: Axis) -> tuple[int, ...]:
    return tuple(axis.sources())


def _both_sides(before: int, after: int, dimension: int) -> tuple[int, int, int, int]:
    """Arguments of ``F.pad``, which counts axes from the last one backwards."""
    return (0, 0, before, after) if dimension == -2 else (before, after, 0, 0)


def prefers_fft(geometry: Geometry, dtype: torch.dtype) -> bool:
    """Tell whether the FFT is the cheaper way, by the measurements named at the head of this file."""
    taps = geometry.rows.taps * geometry.columns.taps
    pixels = geometry.rows.padded_size * geometry.columns.padded_size
    # Channels that mix cost the FFT Cin·Cout products a frequency; with 16 of them it needs about 15×15 taps to win.
    mixing = min(geometry.in_channels, geometry.out_channels) // geometry.groups
    few = 48 if dtype == torch.float32 else 20
    return pixels >= 1024 and taps > few * max(1.0, mixing / 4)


class Correlator:
    """Valid correlation of a padded picture with a kernel, and its adjoint, by the cheaper of the two ways."""

    def __init__(self, weight: Tensor, geometry: Geometry) -> None:
        self._weight = weight
        self._geometry = geometry
        self._grid = valid_grid(geometry)
        self._symbol = _valid_symbol(weight, geometry, self._grid) if prefers_fft(geometry, weight.dtype) else None

    @property
    def is_transformed(self) -> bool:
        """Whether what was computed from the weight belongs to a transform of torch.func."""
        symbol = self._symbol if self._symbol is not None else self._weight
        return beneath_transforms(symbol) is not symbol

    def apply(self, padded: Tensor) -> Tensor:
        """(B, Cin, padded) → (B, Cout, out)."""
        geometry = self._geometry
        if self._symbol is None:
            return F.conv2d(
                padded, self._weight, stride=geometry.stride, dilation=geometry.dilation, groups=geometry.groups
            )
        rows, columns = geometry.axes
        used = padded[..., : rows.used_size, : columns.used_size]
        # No name for what is used up: for one channel it is as large as the picture, twice in double precision.
        product = multiply(
            self._symbol, spectrum.transform(split_phases(_extend(used, self._fine_grid), geometry.stride))
        )
        result = spectrum.inverse_transform(product, self._grid, padded.is_complex())
        return result[..., : rows.out_size, : columns.out_size]

    def adjoint(self, output: Tensor) -> Tensor:
        """(B, Cout, out) → (B, Cin, padded)."""
        geometry = self._geometry
        rows, columns = geometry.axes
        if self._symbol is None:
            used = F.conv_transpose2d(
                output, self._weight.conj(), stride=geometry.stride, dilation=geometry.dilation, groups=geometry.groups
            )
        else:
            product = multiply(self._symbol.conj().transpose(1, 2), spectrum.transform(_extend(output, self._grid)))
            phases = spectrum.inverse_transform(product, self._grid, output.is_complex())
            used = join_phases(phases, geometry.stride)[..., : rows.used_size, : columns.used_size]
        return _extend(used, (rows.padded_size, columns.padded_size))

    @property
    def _fine_grid(self) -> tuple[int, int]:
        return self._grid[0] * self._geometry.rows.stride, self._grid[1] * self._geometry.columns.stride


def weight_gradient(image: Tensor, output: Tensor, geometry: Geometry) -> Tensor:
    r"""Gradient by the weight of ``Re⟨output, A(weight) image⟩``, for a batch of images and one of outputs.

    .. math:: W_{o,c,t,u} = \sum_{b,i,j} y_{b,o,i,j} \; \overline{\tilde x_{b,c,\; s_1 i + d_1 t,\; s_2 j + d_2 u}}

    with x̃ the padded image: torch's convention for complex weights (the conjugate Wirtinger derivative, doubled).
    Real-bilinear, and made of tensor operations alone: a nested ``torch.autograd.grad`` could not be differentiated
    by ``torch.func``.
    """
    padded = pad(image, geometry)
    if prefers_fft(geometry, image.dtype):
        return _weight_gradient_by_fft(padded, output, geometry)
    if not image.is_complex():
        return _direct_weight_gradient(padded, output, geometry)
    # The sum over the batch adds the two products of which a complex one's real and imaginary part consist.
    real = _direct_weight_gradient(
        torch.cat([padded.real, padded.imag]), torch.cat([output.real, output.imag]), geometry
    )
    imaginary = _direct_weight_gradient(
        torch.cat([padded.real, -padded.imag]), torch.cat([output.imag, output.real]), geometry
    )
    return torch.complex(real, imaginary)


def _direct_weight_gradient(padded: Tensor, output: Tensor, geometry: Geometry) -> Tensor:
    rows, columns = geometry.axes
    shape = (geometry.out_channels, geometry.in_channels // geometry.groups, rows.taps, columns.taps)
    # torch's annotation says int where its code and documentation take pairs.
    strides: Any = geometry.stride
    dilations: Any = geometry.dilation
    return conv2d_weight(padded, shape, output, strides, 0, dilations, geometry.groups)


def _weight_gradient_by_fft(padded: Tensor, output: Tensor, geometry: Geometry) -> Tensor:
    """Correlate image and output at all lags, and read it at the lags of the taps."""
    rows, columns = geometry.axes
    grid = valid_grid(geometry)
    groups, batch = geometry.groups, padded.shape[0]
    used = padded[..., : rows.used_size, : columns.used_size]
    fine = (grid[0] * rows.stride, grid[1] * columns.stride)
    inputs = spectrum.transform(split_phases(_extend(used, fine), geometry.stride))
    outputs = spectrum.transform(_extend(output, grid))
    frequencies = inputs.shape[-2:]
    product = torch.einsum(
        "bgmhw,bgnhw->gmnhw",
        outputs.reshape(batch, groups, -1, *frequencies),
        inputs.reshape(batch, groups, -1, *frequencies).conj(),
    )
    placed = spectrum.inverse_transform(product, grid, padded.is_complex())
    return tap_values(placed, without_padding(geometry))


def multiply(symbol: Tensor, coarse: Tensor) -> Tensor:
    """Apply a symbol (G, m, n, F_h, F_w) to spectra (B, G·n, F_h, F_w), one small matrix a frequency."""
    groups, outputs, inputs = symbol.shape[:3]
    batch, _, height, width = coarse.shape
    if outputs == inputs == 1:
        return coarse * symbol[:, 0, 0]
    grouped = coarse.reshape(batch, groups, inputs, height, width)
    return torch.einsum("gmnhw,bgnhw->bgmhw", symbol, grouped).reshape(batch, -1, height, width)


def valid_grid(geometry: Geometry) -> tuple[int, int]:
    """Coarse periodic grid on which a correlation wraps round no output: FFT-friendly, as large as the used part."""
    return (
        spectrum.fast_size(-(-geometry.rows.used_size // geometry.rows.stride)),
        spectrum.fast_size(-(-geometry.columns.used_size // geometry.columns.stride)),
    )


def _valid_symbol(weight: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    return spectrum.symbol(weight, without_padding(geometry), grid)


def without_padding(geometry: Geometry) -> Geometry:
    """Geometry of the same convolution on the picture after padding."""
    rows, columns = (
        Axis(axis.padded_size, axis.taps, axis.stride, axis.dilation, 0, 0, axis.boundary) for axis in geometry.axes
    )
    return Geometry(rows, columns, geometry.in_channels, geometry.out_channels, geometry.groups)


def _extend(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros after the last row and column, up to the given size."""
    height, width = image.shape[-2:]
    return image if (height, width) == size else F.pad(image, (0, size[1] - width, 0, size[0] - height))
