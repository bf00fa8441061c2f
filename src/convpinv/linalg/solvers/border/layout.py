"""Where a convolution differs from a periodic one: which outputs read wrongly, which pixels exist on one side only.

Every convolution is laid on a periodic grid, stride taken away by the polyphase identity. There it differs from a
periodic convolution in three ways, all of them near the border:

- *frame inputs* are places of the grid that hold no pixel: the unknown must vanish there;
- *frame outputs* are places of the grid that hold no datum: what stands there is free;
- *corrected outputs* read, for some taps, another pixel than the periodic grid shows them.

With zeros outside the picture a frame as wide as the padding of *one* side serves both sides, and no output is left to
be corrected: that makes the system half as long as correcting every output near the border would.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import join_phases, split_phases


@dataclass(frozen=True)
class Domain:
    """Where vectors live: outputs and inputs laid on a grid, inputs split into the phases of a stride."""

    output_size: tuple[int, int]
    input_size: tuple[int, int]
    stride: tuple[int, int]

    @property
    def output_places(self) -> int:
        """Places of one output channel."""
        return self.output_size[0] * self.output_size[1]

    @property
    def input_places(self) -> int:
        """Places of one input channel, all phases counted."""
        return self.input_size[0] * self.input_size[1]

    def lay_outputs(self, outputs: Tensor, groups: int) -> Tensor:
        """(B, G·o, H', W') → (B, G, o·places), zeros where there is no datum."""
        return _padded(outputs, self.output_size).reshape(len(outputs), groups, -1)

    def lay_inputs(self, inputs: Tensor, groups: int) -> Tensor:
        """(B, G·c, H, W) → (B, G, c·places), zeros where there is no pixel."""
        return split_phases(_padded(inputs, self.input_size), self.stride).reshape(len(inputs), groups, -1)

    def take_outputs(self, flat: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Inverse of :meth:`lay_outputs`."""
        return flat.reshape(len(flat), shape[0], *self.output_size)[..., : shape[1], : shape[2]]

    def take_inputs(self, flat: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Inverse of :meth:`lay_inputs`."""
        coarse = (self.input_size[0] // self.stride[0], self.input_size[1] // self.stride[1])
        return join_phases(flat.reshape(len(flat), -1, *coarse), self.stride)[..., : shape[1], : shape[2]]


@dataclass(frozen=True)
class Layout:
    """Index sets on a domain, for one channel each; reads name places of one input channel."""

    domain: Domain
    frame_inputs: Tensor
    frame_outputs: Tensor
    corrected: Tensor
    tap_rows: Tensor  # which of the corrected outputs
    tap_numbers: Tensor  # which tap of the kernel, row-major
    tap_sources: Tensor  # which place
    tap_signs: Tensor  # +1 for what is read in truth, −1 for what the grid shows


def grid_length(axis: Axis) -> int:
    """Smallest coarse grid on which the differences along an axis are as few as they can be."""
    longest = max(axis.size, axis.out_size * axis.stride)
    if axis.boundary is Boundary.ZEROS or axis.is_untouched:
        # Reads before the picture wrap to the frame after it, reads after it end there: nothing wraps to a pixel.
        longest = max(longest, axis.size + axis.before, axis.used_size - axis.before)
    return -(-longest // axis.stride)


def domain_of(geometry: Geometry, periodic_rows: bool) -> Domain:
    """Periodic grid along columns, and along rows too if asked; else rows stay as they are."""
    rows, columns = geometry.axes
    length = grid_length(columns)
    if not periodic_rows:
        return Domain((rows.out_size, length), (rows.size, length * columns.stride), (1, columns.stride))
    height = grid_length(rows)
    return Domain((height, length), (height * rows.stride, length * columns.stride), geometry.stride)


def count_differences(geometry: Geometry, periodic_rows: bool) -> tuple[int, int, int]:
    """Number of frame inputs, frame outputs and corrected outputs of one group, channels counted."""
    rows, columns = geometry.axes
    domain = domain_of(geometry, periodic_rows)
    inputs, outputs = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    right_rows = _count_right(rows, domain.input_size[0]) if periodic_rows else rows.out_size
    right_columns = _count_right(columns, domain.input_size[1])
    return (
        inputs * (domain.input_places - rows.size * columns.size),
        outputs * (domain.output_places - rows.out_size * columns.out_size),
        outputs * (rows.out_size * columns.out_size - right_rows * right_columns),
    )


def lay_out(geometry: Geometry, periodic_rows: bool, device: torch.device) -> Layout:
    """Find the index sets of a geometry."""
    rows, columns = geometry.axes
    domain = domain_of(geometry, periodic_rows)
    data = torch.zeros(1, 1, *domain.output_size)
    data[..., : rows.out_size, : columns.out_size] = 1.0
    pixels = domain.lay_inputs(torch.ones(1, 1, rows.size, columns.size), 1).flatten()
    corrected, taps = _corrections(geometry, domain, periodic_rows)
    parts = ((pixels == 0).nonzero().flatten(), (data.flatten() == 0).nonzero().flatten(), corrected, *taps)
    return Layout(domain, *(part.to(device) for part in parts))


def _reads(axis: Axis, length: int) -> tuple[Tensor, Tensor]:
    """For each output and tap the pixel read in truth, and the one that a periodic grid shows; −1 for none."""
    outputs = torch.arange(axis.out_size)[:, None] * axis.stride
    taps = torch.arange(axis.taps)[None, :] * axis.dilation
    truth = torch.tensor(axis.sources())[outputs + taps]
    shown = (outputs + taps - axis.before) % length
    return truth, torch.where(shown < axis.size, shown, -1)


@lru_cache(maxsize=1024)
def _count_right(axis: Axis, length: int) -> int:
    """Number of outputs that read on a periodic grid what they read in truth.

    Remembered: choosing a solver asks ten times for four axes, which took as long as preparing the one it chose.
    """
    if axis.is_untouched and axis.size <= length:
        return axis.out_size
    truth, shown = _reads(axis, length)
    return int((truth == shown).all(1).sum())


def _corrections(
    geometry: Geometry, domain: Domain, periodic_rows: bool
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Corrected outputs as places of the domain; then output, tap, place and sign of each read to be changed."""
    rows, columns = geometry.axes
    row_truth, row_shown = _reads(rows, domain.input_size[0])
    if not periodic_rows:
        row_shown = row_truth
    column_truth, column_shown = _reads(columns, domain.input_size[1])
    wrong_rows, wrong_columns = (row_truth != row_shown).any(1), (column_truth != column_shown).any(1)
    height, width = (wrong_rows[:, None] | wrong_columns[None, :]).nonzero(as_tuple=True)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for tap in range(rows.taps * columns.taps):
        t, u = divmod(tap, columns.taps)
        truth = row_truth[height, t], column_truth[width, u]
        shown = row_shown[height, t], column_shown[width, u]
        differs = (truth[0] != shown[0]) | (truth[1] != shown[1])
        for (row, column), sign in ((truth, 1.0), (shown, -1.0)):
            found = (differs & (row >= 0) & (column >= 0)).nonzero().flatten()
            place = _place(row[found], column[found], domain)
            parts.append((found, torch.full_like(found, tap), place, torch.full(found.shape, sign)))
    output, number, source, sign = (torch.cat(column) for column in zip(*parts, strict=True))
    return height * domain.output_size[1] + width, (output, number, source, sign)


def _place(row: Tensor, column: Tensor, domain: Domain) -> Tensor:
    """Place of a pixel among the phases of its channel."""
    (down, across), (height, width) = domain.stride, domain.input_size
    phase = (row % down) * across + column % across
    line = torch.div(row, down, rounding_mode="floor")
    place = line * (width // across) + torch.div(column, across, rounding_mode="floor")
    return phase * (height // down * (width // across)) + place


def _padded(image: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = image.shape[-2:]
    return image if (height, width) == size else F.pad(image, (0, size[1] - width, 0, size[0] - height))
