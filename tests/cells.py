"""The grid on which every law is proved: kernels × boundaries × strides × channels × paddings × dtypes.

The oracle owes nothing to this package: the matrix comes from ``torch.nn.Conv2d`` applied to the identity in double
precision, its pseudo-inverse from ``torch.linalg``.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

import convpinv
from convpinv.linalg.spectrum import default_rtol

SIZE = (4, 6)
KERNELS = ("random", "even", "separable", "null", "deficient", "dilated")
BOUNDARIES = ("zeros", "circular", "reflect", "replicate")
STRIDES = ((1, 1), (2, 2), (1, 2))
CHANNELS = ((1, 1, 1), (2, 3, 1), (4, 2, 2))  # Cin, Cout, groups
PADDINGS = ("inside", "around")
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SOLVERS = ("fourier", "blocks", "separable", "dense", "border", "krylov")


@dataclass(frozen=True)
class Cell:
    """One operator of the grid."""

    kernel: str
    boundary: str
    stride: tuple[int, int]
    channels: tuple[int, int, int]
    padding: str
    dtype: torch.dtype

    def __str__(self) -> str:
        stride = "x".join(map(str, self.stride))
        channels = "-".join(map(str, self.channels))
        return f"{self.kernel}-{self.boundary}-s{stride}-c{channels}-{self.padding}-{str(self.dtype)[6:]}"

    @property
    def dilation(self) -> int:
        return 2 if self.kernel == "dilated" else 1

    @property
    def taps(self) -> tuple[int, int]:
        return {"random": (3, 3), "even": (2, 4), "separable": (3, 2), "null": (2, 2), "dilated": (2, 3)}.get(
            self.kernel, (3, 1)
        )

    @property
    def pads(self) -> tuple[int, int]:
        if self.padding == "inside":
            return 0, 0
        return self.dilation * (self.taps[0] - 1) // 2, self.dilation * (self.taps[1] - 1) // 2

    def weight(self, seed: int) -> Tensor:
        inputs, outputs, groups = self.channels
        generator = torch.Generator().manual_seed(seed)
        shape = (outputs, inputs // groups)
        dtype = torch.complex128 if self.dtype.is_complex else torch.float64

        def normal(*sizes: int) -> Tensor:
            return torch.randn(*sizes, generator=generator, dtype=dtype)

        if self.kernel == "separable":
            channels, rows, columns = normal(*shape), normal(self.taps[0]), normal(self.taps[1])
            if groups > 1:  # every group a product of its own
                scale = torch.arange(1.0, groups + 1, dtype=torch.float64).repeat_interleave(outputs // groups)
                channels = channels * scale[:, None]
            return torch.einsum("oc,t,u->octu", channels, rows, columns)
        if self.kernel == "null":  # a box of even sides: its spectrum has exact zeros
            return normal(*shape)[:, :, None, None] * torch.ones(self.taps, dtype=dtype)
        if self.kernel == "deficient":  # all outputs of a group alike: rank at most one a frequency
            return normal(1, shape[1], *self.taps).repeat(outputs, 1, 1, 1)
        return normal(*shape, *self.taps)

    def operator(self, factor: float = 1.0) -> convpinv.Conv2dOperator:
        return convpinv.Conv2dOperator(
            oracle(self).weight.to(self.dtype) * factor,
            SIZE,
            stride=self.stride,
            padding=self.pads,
            dilation=self.dilation,
            groups=self.channels[2],
            padding_mode=self.boundary,
        )


@dataclass(frozen=True)
class Oracle:
    """The dense matrix of a cell in double precision, its singular values, and its rank at the default threshold."""

    weight: Tensor
    matrix: Tensor
    values: Tensor
    rtol: float

    @property
    def condition(self) -> float:
        """Ratio of the largest to the smallest singular value that is kept."""
        kept = self.values[self.values > self.rtol * self.values[0]]
        return float(self.values[0] / kept[-1])

    @property
    def gap(self) -> float:
        """How far, as a factor, the nearest singular value lies from the threshold; the rank is clear where large."""
        ratios = self.values / (self.rtol * self.values[0])
        ratios = torch.where(ratios > 1, ratios, 1.0 / ratios.clamp(min=1e-30))
        return float(ratios.min())

    def inverse(self, damp: float) -> Tensor:
        if not damp:
            return torch.linalg.pinv(self.matrix, rtol=self.rtol)
        gram = self.matrix.mH @ self.matrix
        return torch.linalg.solve(gram + damp**2 * torch.eye(len(gram), dtype=gram.dtype), self.matrix.mH)


@cache
def oracle(cell: Cell) -> Oracle:
    """Of four drawn kernels the one of clearest rank and best condition: the laws are tested, not luck."""
    draws = [_oracle(cell, cell.weight(seed).to(cell.dtype)) for seed in range(4)]
    clear = [draw for draw in draws if draw.gap > 8] or draws
    return min(clear, key=lambda draw: draw.condition)


def _oracle(cell: Cell, weight: Tensor) -> Oracle:
    inputs, outputs, groups = cell.channels
    precise = torch.complex128 if cell.dtype.is_complex else torch.float64
    layer = torch.nn.Conv2d(
        inputs,
        outputs,
        cell.taps,
        stride=cell.stride,
        padding=cell.pads,
        dilation=cell.dilation,
        groups=groups,
        bias=False,
        padding_mode=cell.boundary,  # pyright: ignore[reportArgumentType]
        dtype=precise,
    )
    pixels = inputs * SIZE[0] * SIZE[1]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer.weight.copy_(weight)
        matrix = layer(torch.eye(pixels, dtype=precise).reshape(pixels, inputs, *SIZE)).reshape(pixels, -1).mT
    return Oracle(weight, matrix, torch.linalg.svdvals(matrix), default_rtol(cell.dtype, SIZE))


CELLS = tuple(Cell(*parts) for parts in itertools.product(KERNELS, BOUNDARIES, STRIDES, CHANNELS, PADDINGS, DTYPES))
PRECISE_CELLS = tuple(cell for cell in CELLS if torch.finfo(cell.dtype).eps < 1e-10)
