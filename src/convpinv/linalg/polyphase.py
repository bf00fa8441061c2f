"""Stride, dilation and groups taken away: every convolution as a stride-1 one with more channels.

Output i of a convolution with stride s reads ``x[s·i + o]`` for the offsets o of its taps. With ``o = s·q + r``,
0 ≤ r < s, that is ``x_r[i + q]``, where ``x_r[j] = x[s·j + r]`` is phase r of the picture. So the Cin pictures become
Cin·s² coarse ones, and the kernel a stride-1 kernel over them (Vaidyanathan, *Multirate Systems and Filter Banks*,
1993, chapter 4). Dilation is zeros between taps, which offsets express by themselves; groups are a batch axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv.linalg.geometry import Axis, Geometry


def split_phases(image: Tensor, stride: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, C·s_h·s_w, H/s_h, W/s_w): the phases of each channel, rows first."""
    rows, columns = stride
    if stride == (1, 1):
        return image
    batch, channels, height, width = image.shape
    phases = image.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return phases.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height // rows, width // columns)


def join_phases(phases: Tensor, stride: tuple[int, int]) -> Tensor:
    """Inverse of :func:`split_phases`."""
    rows, columns = stride
    if stride == (1, 1):
        return phases
    batch, _, height, width = phases.shape
    image = phases.reshape(batch, -1, rows, columns, height, width)
    return image.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, height * rows, width * columns)


def tap_positions(axis: Axis, grid: int) -> list[int]:
    """For each tap its place in (phase, coarse position), flattened, on a coarse periodic grid of ``grid`` points.

    The tap that reads ``x_r[i + q]`` stands at position −q: then the discrete Fourier transform of the placed taps is
    the factor by which the transform of ``x_r`` is multiplied (a correlation, not a convolution).
    """
    places = []
    for tap in range(axis.taps):
        quotient, phase = divmod(axis.dilation * tap - axis.before, axis.stride)
        places.append(phase * grid + (-quotient) % grid)
    return places


def coarse_kernel(weight: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    """Place the taps of a kernel on a coarse periodic grid: (G, Cout/G, Cin/G·s_h·s_w, *grid).

    Taps that meet at one place, as when the kernel is larger than the grid, add up. That is what wrapping means.
    """
    rows, columns = geometry.axes
    row_places = torch.tensor(tap_positions(rows, grid[0]), device=weight.device)
    column_places = torch.tensor(tap_positions(columns, grid[1]), device=weight.device)
    outputs, inputs = weight.shape[:2]
    tall = weight.new_zeros(outputs, inputs, rows.stride * grid[0], columns.taps).index_add(2, row_places, weight)
    placed = weight.new_zeros(outputs, inputs, rows.stride * grid[0], columns.stride * grid[1])
    placed = placed.index_add(3, column_places, tall)
    placed = placed.reshape(outputs, inputs, rows.stride, grid[0], columns.stride, grid[1]).permute(0, 1, 2, 4, 3, 5)
    return placed.reshape(geometry.groups, outputs // geometry.groups, -1, *grid)


def tap_values(placed: Tensor, geometry: Geometry) -> Tensor:
    """Adjoint of :func:`coarse_kernel`: read what stands at the place of each tap, (Cout, Cin/G, kH, kW)."""
    rows, columns = geometry.axes
    groups, outputs = placed.shape[:2]
    grid = placed.shape[-2:]
    phases = placed.reshape(groups * outputs, -1, rows.stride, columns.stride, *grid).permute(0, 1, 2, 4, 3, 5)
    phases = phases.reshape(groups * outputs, -1, rows.stride * grid[0], columns.stride * grid[1])
    row_places = torch.tensor(tap_positions(rows, grid[0]), device=placed.device)
    column_places = torch.tensor(tap_positions(columns, grid[1]), device=placed.device)
    return phases.index_select(2, row_places).index_select(3, column_places)


def kernel_of_coarse(placed: Tensor, geometry: Geometry) -> Tensor:
    """Kernel (Cout, Cin/G, kH, kW) that comes nearest to a placed one: what stands where its taps do.

    The pseudo-inverse of :func:`coarse_kernel`: taps that share a place share what stands there.
    """
    shares = []
    for axis, points in zip(geometry.axes, placed.shape[-2:], strict=True):
        places = tap_positions(axis, points)
        counts = [places.count(place) for place in places]
        shares.append(torch.tensor(counts, device=placed.device, dtype=placed.real.dtype))
    return tap_values(placed, geometry) / (shares[0][:, None] * shares[1])
