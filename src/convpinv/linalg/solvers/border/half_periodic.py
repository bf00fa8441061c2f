"""A convolution that is periodic along columns alone: a Fourier transform leaves one row problem a frequency.

The rows' border is eliminated for each frequency by a matrix as small as the kernel is tall. What is left to eliminate
is the border of the columns: half as many unknowns as all around the picture, so an eighth of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import tap_positions
from convpinv.linalg.solvers.border.elimination import EasySystem, Lookup, split
from convpinv.linalg.solvers.border.layout import lay_out
from convpinv.linalg.solvers.border.systems import AugmentedSystem, Pair, augment, augmented_system

# Entries of the row problems' inverses that are transformed at once.
TRANSFORMED_AT_ONCE = 2**22


@final
class HalfPeriodicSystem(EasySystem):
    """The augmented system of a convolution with its true rows and periodic columns.

    Flat vectors hold lines of ``length`` places: a line for each output channel and output row, then one for each input
    channel, phase along the columns, and input row.
    """

    def __init__(self, operator: Convolution, length: int, damp: float) -> None:
        """Solve the row problem of each frequency."""
        geometry = operator.geometry
        self._length = length
        self._groups = geometry.groups
        self._is_complex = operator.dtype.is_complex
        kernels = _row_kernels(operator, length)
        self._frequencies, outputs, inputs = kernels.shape[1:4]
        count = geometry.groups * self._frequencies
        single = Axis(1, 1, 1, 1, 0, 0, Boundary.CIRCULAR)
        row_geometry = Geometry(geometry.rows, single, count * inputs, count * outputs, count)
        weight = kernels.reshape(count * outputs, inputs, -1, 1)
        self._rows = augmented_system(Convolution(weight, row_geometry), damp)
        self._outputs = (outputs, geometry.rows.out_size)
        self._inputs = (inputs, geometry.rows.size)

    def solve(self, right: Tensor) -> Tensor:
        """Transform along columns, solve each row problem, transform back."""
        lines = right.reshape(*right.shape[:2], -1, self._length)
        transformed = torch.fft.fft(lines) if self._is_complex else torch.fft.rfft(lines)
        outputs, inputs = transformed.split([_count(self._outputs), _count(self._inputs)], 2)
        solved = self._rows.solve(Pair(self._to_rows(outputs, self._outputs), self._to_rows(inputs, self._inputs)))
        joined = torch.cat([self._to_lines(solved.outputs), self._to_lines(solved.inputs)], 2)
        return self._back(joined).reshape(right.shape)

    def solve_adjoint(self, right: Tensor) -> Tensor:
        """The system is Hermitian."""
        return self.solve(right)

    def lookup(self, places: Tensor) -> Lookup:
        """Entries depend on the two lines and on the lag along them; only the lags between ``places`` are kept."""
        positions = (places % self._length).unique()
        lags = ((positions[:, None] - positions) % self._length).unique()
        known = torch.zeros(self._length, dtype=torch.long, device=places.device)
        known[lags] = torch.arange(len(lags), device=places.device)
        response = self._response(lags)

        def entries(rows: Tensor, columns: Tensor) -> Tensor:
            (row_line, row_position), (column_line, column_position) = (
                split(index, self._length) for index in (rows, columns)
            )
            lag = known[(row_position[:, None] - column_position) % self._length]
            return response[:, row_line[:, None], column_line, lag]

        return entries

    def _response(self, lags: Tensor) -> Tensor:
        """(G, lines, lines, lags) of the inverse."""
        places = self._row_places(lags.device)
        entries = self._rows.system.lookup(places)
        step = max(1, TRANSFORMED_AT_ONCE // (self._groups * self._frequencies * len(places)))
        parts = []
        for start in range(0, len(places), step):
            found = entries(places, places[start : start + step])
            spectra = found.unflatten(0, (self._groups, -1)).permute(0, 2, 3, 1)
            parts.append(self._back(spectra).index_select(3, lags))
        return torch.cat(parts, 2)

    def _row_places(self, device: torch.device) -> Tensor:
        """Places of the row problem at which the lines stand."""
        domain = self._rows.domain
        parts = []
        first = 0
        for (channels, rows), lay, places in (
            (self._outputs, domain.lay_outputs, domain.output_places),
            (self._inputs, domain.lay_inputs, domain.input_places),
        ):
            # Numbers laid like data say where each line went; what holds no line holds 0.
            numbers = torch.arange(1, rows + 1, dtype=torch.float64, device=device).reshape(1, 1, rows, 1)
            where = lay(numbers, 1).flatten()
            order = where.argsort()[-rows:]
            parts.append((torch.arange(channels, device=device)[:, None] * places + order).flatten() + first)
            first += channels * places
        return torch.cat(parts)

    def _to_rows(self, lines: Tensor, shape: tuple[int, int]) -> Tensor:
        """(B, G, channels·rows, F) → (B, G·F·channels, rows, 1)."""
        batch = lines.shape[0]
        return lines.unflatten(2, shape).permute(0, 1, 4, 2, 3).reshape(batch, -1, shape[1], 1)

    def _to_lines(self, rows: Tensor) -> Tensor:
        """(B, G·F·channels, rows, 1) → (B, G, channels·rows, F)."""
        unfolded = rows.reshape(len(rows), self._groups, self._frequencies, -1, rows.shape[2])
        return unfolded.permute(0, 1, 3, 4, 2).flatten(2, 3)

    def _back(self, spectra: Tensor) -> Tensor:
        return torch.fft.ifft(spectra) if self._is_complex else torch.fft.irfft(spectra, n=self._length)


def half_periodic_system(operator: Convolution, damp: float) -> AugmentedSystem:
    """The augmented system by two eliminations: the rows' border a frequency at a time, then the columns'."""
    layout = lay_out(operator.geometry, False, operator.device)
    return augment(operator, layout, HalfPeriodicSystem(operator, layout.domain.output_size[1], damp))


def _row_kernels(operator: Convolution, length: int) -> Tensor:
    """Transform a kernel along columns: (G, frequencies, o, c·phases, taps)."""
    weight, axis = operator.weight, operator.geometry.columns
    places = torch.tensor(tap_positions(axis, length), device=weight.device)
    placed = weight.new_zeros(*weight.shape[:3], axis.stride * length).index_add(3, places, weight)
    placed = placed.reshape(operator.geometry.groups, -1, *weight.shape[1:3], axis.stride, length)
    transformed = torch.fft.fft(placed) if weight.is_complex() else torch.fft.rfft(placed)
    return transformed.permute(0, 5, 1, 2, 4, 3).flatten(3, 4)


def _count(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


@dataclass(frozen=True)
class TurnedSystem:
    """The same for an operator whose rows and columns change places."""

    turned: AugmentedSystem

    def solve(self, right: Pair) -> Pair:
        """Transpose, solve, transpose."""
        solved = self.turned.solve(Pair(right.outputs.mT, right.inputs.mT))
        return Pair(solved.outputs.mT, solved.inputs.mT)


def turned(operator: Convolution) -> Convolution:
    """Return the operator on transposed pictures."""
    geometry = operator.geometry
    swapped = Geometry(geometry.columns, geometry.rows, geometry.in_channels, geometry.out_channels, geometry.groups)
    return Convolution(operator.weight.mT.contiguous(), swapped)
