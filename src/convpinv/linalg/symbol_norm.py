"""The largest norm of a symbol over many frequencies, and over all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import coarse_kernel

# Certificates in single precision leave this margin: what Cholesky and the product round is below n²·ε of the norm,
# 2.5e-4 for 64 channels; beyond SINGLE_SIDE that no longer fits, and they are made in double precision at once.
SINGLE_MARGIN = 2e-3
SINGLE_SIDE = 128
# Matrices whose norm is computed outright before the first certificate, and at the least between two.
PROBES = 64
# Entries of the matrices that are looked at together: 128 MB in single precision.
LARGEST_CHUNK = 2**24
# Up to this many taps, and from this many entries a matrix, a product with the taps is cheaper than an FFT. Measured
# for 64 → 64 channels, 3×3, 64²: 0.05 s against 0.25 s.
DIRECT_TAPS, DIRECT_ENTRIES = 64, 64
# Sampling points an axis, as a multiple of the degree: the supremum is then known to 0.5 % an axis; where channels are
# many the coarsest is used, 8.2 % an axis.
FINEST_SAMPLING, COARSEST_SAMPLING = 16, 4
LARGEST_SAMPLE = 2**23


@dataclass(frozen=True)
class SampledSymbol:
    """The matrices K(w) of one group at the frequencies of a periodic grid, half of them where the kernel is real.

    Matrices are given up to unitary factors: the same singular values, and nothing else that is asked here.
    """

    taps: Tensor  # (q_h, q_w, m, n): what stands at each coarse offset
    grid: tuple[int, int]
    table: Tensor | None  # (F, m, n), where the FFT has made all of them

    @property
    def count(self) -> int:
        """Number of frequencies."""
        width = self.grid[1] if self.taps.is_complex() else self.grid[1] // 2 + 1
        return self.grid[0] * width

    def parts(self) -> tuple[Tensor, ...]:
        """Indices of all frequencies, in parts whose matrices fit in memory together."""
        every = torch.arange(self.count, device=self.taps.device)
        return every.split(self.step)

    @property
    def step(self) -> int:
        """Number of frequencies whose matrices are looked at together."""
        return max(1, LARGEST_CHUNK // (self.taps.shape[-2] * self.taps.shape[-1]))

    def matrices(self, indices: Tensor, precision: torch.dtype) -> Tensor:
        """K at some of the frequencies: (len(indices), m, n), complex."""
        if self.table is not None:
            return self.table[indices].to(precision.to_complex())
        heights, widths, outputs, inputs = self.taps.shape
        columns = self.count // self.grid[0]
        phases = []
        for place, size, offsets in (
            (indices // columns, self.grid[0], heights),
            (indices % columns, self.grid[1], widths),
        ):
            # Reduced before it is multiplied by 2π/N: exact integers keep every digit of the angle.
            turns = (place[:, None] * torch.arange(offsets, device=place.device)) % size
            angle = turns.to(torch.float64) * (2.0 * math.pi / size)
            phases.append(torch.polar(torch.ones_like(angle), angle))
        waves = (phases[0][:, :, None] * phases[1][:, None, :]).flatten(1).to(precision.to_complex())
        taps = self.taps.reshape(heights * widths, -1)
        if taps.is_complex():
            product = waves @ taps.to(waves.dtype)
        else:
            real = taps.to(precision)
            product = torch.complex(waves.real.contiguous() @ real, waves.imag.contiguous() @ real)
        return product.reshape(-1, outputs, inputs)


def sample(operator: Convolution, grid: tuple[int, int]) -> list[SampledSymbol]:
    """Sample the symbol of an operator on a periodic coarse grid, one for each group."""
    geometry = _plain(operator.geometry)
    spans = [_degree(axis) + 1 for axis in geometry.axes]
    # On a grid just as long as the offsets, position −q holds offset q; turned round, they stand in order.
    placed = coarse_kernel(operator.weight, geometry, (spans[0], spans[1]))
    ordered = placed.roll((-1, -1), (-2, -1)).flip(-2, -1).permute(0, 3, 4, 1, 2)
    entries = ordered.shape[-2] * ordered.shape[-1]
    tables: list[Tensor | None] = [None] * len(ordered)
    if spans[0] * spans[1] > DIRECT_TAPS or entries < DIRECT_ENTRIES:
        symbol = spectrum.symbol(operator.weight, geometry, grid)
        tables = [stack.to(stack.dtype.to_complex()) for stack in spectrum.matrices_of(symbol)]
    return [SampledSymbol(taps, grid, table) for taps, table in zip(ordered, tables, strict=True)]


def largest_norm(symbol: SampledSymbol) -> float:
    r"""Largest spectral norm of a symbol over its frequencies, to rounding (n·ε); the kernel is near unit scale.

    Not every matrix is decomposed. With μ the largest norm found so far, ``μ² I − K Kᴴ`` has a Cholesky factor where
    ``‖K‖ < μ`` and nowhere else, and it costs a tenth of the singular values. So a few are decomposed, the factor, in
    single precision with a margin, clears most of the others, and those that remain are decomposed or cleared in
    double precision.
    """
    outputs, inputs = symbol.taps.shape[-2:]
    side = min(outputs, inputs)
    if side == 1:
        return max(float(spectrum.frobenius_norms(_precise(symbol, part)).max()) for part in symbol.parts())
    step = symbol.step
    every = torch.cat(symbol.parts())
    best = float(_norms(_precise(symbol, every[:: max(1, symbol.count // PROBES)])).max())
    if side <= SINGLE_SIDE and best > 0.0:
        bound = best * math.sqrt(1.0 - SINGLE_MARGIN)
        every = torch.cat([part[_exceeding(symbol.matrices(part, torch.float32), bound)] for part in every.split(step)])
    margin = 1.0 + 8.0 * side * torch.finfo(torch.float64).eps
    batch = PROBES
    while len(every):
        stride = -(-len(every) // batch)
        best = max(best, *(float(_norms(_precise(symbol, part)).max()) for part in every[::stride].split(step)))
        if stride == 1:
            break
        every = torch.cat([part[_exceeding(_precise(symbol, part), best * margin)] for part in every.split(step)])
        batch *= 2
    return best


def _precise(symbol: SampledSymbol, indices: Tensor) -> Tensor:
    return symbol.matrices(indices, torch.float64)


def _norms(matrices: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrices)[..., 0]


def _exceeding(matrices: Tensor, bound: float) -> Tensor:
    """Mark the matrices (F, m, n) that are not certified to have a norm below the bound."""
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    shifted = torch.matmul(matrices, matrices.mH).neg_()
    shifted.diagonal(dim1=-2, dim2=-1).add_(bound**2)
    return torch.linalg.cholesky_ex(shifted)[1] != 0


def supremum(operator: Convolution) -> list[float]:
    r"""Upper bounds of ``sup_w ‖K(w)‖`` over all real frequencies, one for each group, from samples.

    ``u* K(w) v`` is a trigonometric polynomial along each axis, whose exponents span D. Centred, its real part is of
    exponential type D/2, and N equispaced samples bound it: ``sup ≤ max / cos(π D / (2 N))`` for N > D (Ehlich and
    Zeller, *Mathematische Zeitschrift* 86, 1964; for half-integer type by the comparison theorem of Duffin and
    Schaeffer). With the u, v of the supremum that bounds the norm of the matrix, one axis after the other.
    """
    # At stride 1 a dilation only rescales the frequency: the supremum is that of the kernel without it.
    rows, columns = (replace(axis, dilation=1) if axis.stride == 1 else axis for axis in operator.geometry.axes)
    geometry = replace(operator.geometry, rows=rows, columns=columns)
    operator = Convolution(operator.weight, geometry)
    degrees = [_degree(axis) for axis in _plain(geometry).axes]
    entries = operator.weight.shape[0] * operator.weight.shape[1] * geometry.stride[0] * geometry.stride[1]
    sampling = FINEST_SAMPLING
    while sampling > COARSEST_SAMPLING and entries * math.prod(sampling * d + 1 for d in degrees) > LARGEST_SAMPLE:
        sampling //= 2
    grid = [spectrum.fast_size(sampling * degree) if degree else 1 for degree in degrees]
    factor = math.prod(1.0 / math.cos(math.pi * d / (2 * points)) for d, points in zip(degrees, grid, strict=True))
    return [factor * largest_norm(symbol) for symbol in sample(operator, (grid[0], grid[1]))]


def _degree(axis: Axis) -> int:
    """Span of the exponents of the symbol along an axis of a plain geometry."""
    return axis.reach // axis.stride


def _plain(geometry: Geometry) -> Geometry:
    """The same convolution with offsets counted from 0: that multiplies the symbol by unitary factors."""
    rows, columns = (replace(axis, before=0, after=0) for axis in geometry.axes)
    return replace(geometry, rows=rows, columns=columns)
