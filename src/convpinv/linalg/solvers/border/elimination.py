"""A system that is easy but for its border, factored: what is not easy is eliminated by one dense matrix.

The system is written with *sources* S (sparse columns, what enters the equations of an easy system C) and *probes* T
(sparse rows, what is asked of its solution z),

    C z + S q = f,        T z = D q,

where D is 1 for corrections (``q`` is then what a correction reads) and 0 for constraints (``q`` is then a multiplier:
whatever makes z vanish at a place). So ``(D + T C⁻¹ S) q = T C⁻¹ f`` and ``z = C⁻¹ (f − S q)``. The entries of
``T C⁻¹ S`` are gathered from impulse responses of C⁻¹; no column of it is ever solved for. This is the
capacitance-matrix method (Buzbee, Dorr, George and Golub, SIAM J. Numer. Anal. 8, 1971).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.correlation import multiply

# Entries of the border matrix that are gathered at once: their index tensors take some forty bytes each.
GATHERED_AT_ONCE = 2**21
# Corrected outputs that are read for in one dense product.
ROWS_OF_A_BLOCK = 256
# Entries of C⁻¹ by their rows and columns.
Lookup = Callable[[Tensor, Tensor], Tensor]


class EasySystem(abc.ABC):
    """C: its inverse applied to flat vectors (B, G, length), and entries of that inverse."""

    @abc.abstractmethod
    def solve(self, right: Tensor) -> Tensor:
        """``C⁻¹ f``."""

    @abc.abstractmethod
    def solve_adjoint(self, right: Tensor) -> Tensor:
        """``C⁻ᴴ f``."""

    @abc.abstractmethod
    def lookup(self, places: Tensor) -> Lookup:
        """Prepare to look up entries of C⁻¹ between these places: (rows, columns) → (G, rows, columns)."""


@final
class PeriodicSystem(EasySystem):
    """A convolution on a periodic grid: its inverse is a symbol (G, c, c, F_h, F_w)."""

    def __init__(self, inverse_symbol: Tensor, grid: tuple[int, int], is_complex: bool) -> None:
        self._symbol = inverse_symbol
        self._grid = grid
        self._is_complex = is_complex

    def solve(self, right: Tensor) -> Tensor:
        """Two FFTs."""
        return self._filter(self._symbol, right)

    def solve_adjoint(self, right: Tensor) -> Tensor:
        """Two FFTs with the conjugate symbol."""
        return self._filter(self._symbol.conj().transpose(1, 2), right)

    def lookup(self, places: Tensor) -> Lookup:
        """Entries are the impulse response at the lag from each column to each row."""
        response = spectrum.inverse_transform(self._symbol, self._grid, self._is_complex)
        groups, channels = response.shape[:2]
        flat = response.reshape(groups, -1)
        size = self._grid[0] * self._grid[1]

        def entries(rows: Tensor, columns: Tensor) -> Tensor:
            (row_channel, row_place), (column_channel, column_place) = (split(index, size) for index in (rows, columns))
            (row_height, row_width), (column_height, column_width) = (
                split(place, self._grid[1]) for place in (row_place, column_place)
            )
            lag = (row_height[:, None] - column_height) % self._grid[0] * self._grid[1]
            lag += (row_width[:, None] - column_width) % self._grid[1]
            lag += (row_channel[:, None] * channels + column_channel) * size
            return flat[:, lag]

        return entries

    def _filter(self, symbol: Tensor, right: Tensor) -> Tensor:
        pictures = right.reshape(right.shape[0], -1, *self._grid)
        product = multiply(symbol, spectrum.transform(pictures))
        return spectrum.inverse_transform(product, self._grid, self._is_complex).reshape(right.shape)


@dataclass(frozen=True)
class Block:
    """Rows ``start`` to ``stop`` of a sparse matrix, dense in the columns that they touch."""

    start: int
    stop: int
    columns: Tensor
    entries: Tensor  # (G, stop − start, columns)


@dataclass(frozen=True)
class Corrections:
    """What corrected outputs read of a system's unknowns at ``support``: a sparse matrix (G, count, support).

    Neighbouring outputs read neighbouring pixels, so a block of rows touches few columns, and dense products of blocks
    take a fraction of the whole dense product (reflect at 256², 15×15 taps: an eighth of the entries), and of torch's
    sparse one, which ran some fifty times slower for each entry.
    """

    support: Tensor
    count: int
    blocks: tuple[Block, ...]

    @staticmethod
    def of(rows: Tensor, places: Tensor, values: Tensor, count: int) -> Corrections:
        """Collect entries (G, n) at their rows and places, those at the same place added up."""
        support, columns = places.unique(return_inverse=True)
        order = rows.argsort()
        rows, columns, values = rows[order], columns[order], values[:, order]
        starts = torch.arange(0, count, ROWS_OF_A_BLOCK, device=rows.device)
        limits = torch.searchsorted(rows, torch.cat([starts, starts.new_tensor([count])])).tolist()
        blocks = []
        for number, start in enumerate(starts.tolist()):
            stop, part = min(start + ROWS_OF_A_BLOCK, count), slice(limits[number], limits[number + 1])
            touched, inner = columns[part].unique(return_inverse=True)
            flat = values.new_zeros(len(values), (stop - start) * len(touched))
            flat.index_add_(1, (rows[part] - start) * len(touched) + inner, values[:, part])
            blocks.append(Block(start, stop, touched, flat.unflatten(1, (stop - start, len(touched)))))
        return Corrections(support, count, tuple(blocks))

    def read(self, values: Tensor) -> Tensor:
        """(G, support, K) → (G, count, K)."""
        return torch.cat([block.entries @ values.index_select(1, block.columns) for block in self.blocks], 1)

    def read_back(self, values: Tensor) -> Tensor:
        """Adjoint of :meth:`read`."""
        result = values.new_zeros(values.shape[0], len(self.support), values.shape[2])
        for block in self.blocks:
            result.index_add_(1, block.columns, block.entries.mH @ values[:, block.start : block.stop])
        return result

    def shifted(self, offset: int) -> Corrections:
        """Return the same for unknowns that stand ``offset`` places further on."""
        return replace(self, support=self.support + offset)


@dataclass(frozen=True)
class Sides:
    """Sources or probes: single places of the equations (unknowns), and corrections at a position among them.

    The order of q is: the places before ``position``, the corrections, the remaining places.
    """

    places: Tensor
    corrections: Corrections | None
    position: int

    @property
    def size(self) -> int:
        """Length of q."""
        return len(self.places) + (self.corrections.count if self.corrections else 0)

    @property
    def looked_at(self) -> Tensor:
        """Places that are touched at all: the support of the corrections, then the single ones."""
        return self.places if self.corrections is None else torch.cat([self.corrections.support, self.places])

    def gather(self, values: Tensor) -> Tensor:
        """Values at :attr:`looked_at` (G, n, K) → (G, q, K)."""
        if self.corrections is None:
            return values
        support = len(self.corrections.support)
        read, single = self.corrections.read(values[:, :support]), values[:, support:]
        return torch.cat([single[:, : self.position], read, single[:, self.position :]], 1)

    def probe(self, unknowns: Tensor) -> Tensor:
        """(G, length, K) → (G, q, K)."""
        return self.gather(unknowns.index_select(1, self.looked_at))

    def spread(self, values: Tensor, length: int) -> Tensor:
        """Adjoint of :meth:`probe`: (G, q, K) → (G, length, K)."""
        unknowns = values.new_zeros(values.shape[0], length, values.shape[2])
        if self.corrections is None:
            return unknowns.index_add_(1, self.places, values)
        count = self.corrections.count
        before, read, after = values.split([self.position, count, values.shape[1] - self.position - count], 1)
        unknowns.index_add_(1, self.places, torch.cat([before, after], 1))
        return unknowns.index_add_(1, self.corrections.support, self.corrections.read_back(read))


@final
class BorderedSystem(EasySystem):
    """An easy system, its sources and probes, and the factors of the border matrix: an easy system in its turn."""

    def __init__(self, easy: EasySystem, sources: Sides, probes: Sides, corrected: int) -> None:
        """Gather the border matrix and factor it; D is 1 for the first ``corrected`` entries of q."""
        self._easy = easy
        self._sources = sources
        self._probes = probes
        if self.unknowns:
            matrix = _border_matrix(easy, sources, probes)
            matrix.diagonal(dim1=1, dim2=2)[:, :corrected] += 1.0
            # Without the check for zero pivots: it stalls an accelerator, and the solver tries its factors anyway.
            self._factors, self._pivots, _ = torch.linalg.lu_factor_ex(matrix)

    @property
    def unknowns(self) -> int:
        """Rows of the border matrix."""
        return self._sources.size

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """Sign and logarithm of the determinant of each group's border matrix."""
        if not self.unknowns:
            return torch.ones(1), torch.zeros(1)
        diagonal = self._factors.diagonal(dim1=1, dim2=2)
        own = torch.arange(1, self.unknowns + 1, device=diagonal.device)
        exchanges = (self._pivots != own).sum(1) % 2
        magnitudes = diagonal.abs()
        signs = (diagonal / torch.where(magnitudes > 0, magnitudes, 1.0)).prod(1)
        return signs * (1 - 2 * exchanges), magnitudes.log().sum(1)

    def solve(self, right: Tensor) -> Tensor:
        """Solve the easy system, eliminate the border, solve the easy system again."""
        return self._eliminate(right, self._easy.solve, self._probes, self._sources, adjoint=False)

    def solve_adjoint(self, right: Tensor) -> Tensor:
        """Solve with the conjugate transpose of the whole system."""
        return self._eliminate(right, self._easy.solve_adjoint, self._sources, self._probes, adjoint=True)

    def lookup(self, places: Tensor) -> Lookup:
        """``C⁻¹ − C⁻¹ S (D + T C⁻¹ S)⁻¹ T C⁻¹`` at the rows and columns."""
        if not self.unknowns:
            return self._easy.lookup(places)
        probed, spread = self._probes.looked_at, self._sources.looked_at
        easy = self._easy.lookup(torch.cat([places, probed, spread]))

        def entries(rows: Tensor, columns: Tensor) -> Tensor:
            into = self._probes.gather(easy(probed, columns))
            out = self._sources.gather(easy(rows, spread).mH).mH
            return easy(rows, columns) - out @ torch.linalg.lu_solve(self._factors, self._pivots, into)

        return entries

    def _eliminate(
        self, right: Tensor, solve: Callable[[Tensor], Tensor], probes: Sides, sources: Sides, adjoint: bool
    ) -> Tensor:
        if not self.unknowns:
            return solve(right)
        probed = probes.probe(solve(right).permute(1, 2, 0))
        values = torch.linalg.lu_solve(self._factors, self._pivots, probed, adjoint=adjoint)
        return solve(right - sources.spread(values, right.shape[2]).permute(2, 0, 1))


def _border_matrix(easy: EasySystem, sources: Sides, probes: Sides) -> Tensor:
    """``T C⁻¹ S`` (G, q, q), gathered a few columns at a time."""
    rows, size = probes.looked_at, sources.size
    entries = easy.lookup(torch.cat([rows, sources.looked_at]))
    first = entries(rows[:1], rows[:1])
    # Stored by columns, as LAPACK wants it: else the factorisation begins with a transposed copy.
    matrix = first.new_empty(first.shape[0], size, size).mT
    count = sources.corrections.count if sources.corrections else 0
    own = torch.arange(size, device=rows.device)
    single = torch.cat([own[: sources.position], own[sources.position + count :]])
    step = max(1, GATHERED_AT_ONCE // max(1, len(rows)))
    for start in range(0, len(sources.places), step):
        part = slice(start, start + step)
        matrix[:, :, single[part]] = probes.gather(entries(rows, sources.places[part]))
    if sources.corrections is not None:
        block = probes.gather(entries(rows, sources.corrections.support))
        # X Rᴴ = (R Xᴴ)ᴴ
        matrix[:, :, sources.position : sources.position + count] = sources.corrections.read(block.mH).mH
    return matrix


def split(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder."""
    return torch.div(index, size, rounding_mode="floor"), index % size
