"""Facts about an operator that decide which solver serves it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis


def why_not_circular(operator: Convolution) -> str | None:
    """Say why the discrete Fourier transform does not diagonalise the operator; None where it does.

    It does where every output reads a full turn: the boundary wraps (or plays no part) and there are exactly
    H/stride outputs along each axis.
    """
    geometry = operator.geometry
    wraps = geometry.boundary is Boundary.CIRCULAR
    for name, axis in (("rows", geometry.rows), ("columns", geometry.columns)):
        if not wraps and not axis.is_untouched:
            return f"boundary is '{axis.boundary}'; the DFT diagonalises circular boundaries only"
        if axis.size % axis.stride:
            return f"the stride {axis.stride} does not divide the {axis.size} {name}"
        if axis.out_size * axis.stride != axis.size:
            turns = axis.size // axis.stride
            return f"{axis.out_size} output {name} are not the {turns} of a full turn (padding='same' gives them)"
    return None


def is_valid(operator: Convolution) -> bool:
    """Whether no output reads outside the picture, so that ``A Aᴴ`` is exactly Toeplitz."""
    return all(axis.is_untouched for axis in operator.geometry.axes)


def is_full(operator: Convolution) -> bool:
    """Whether every product of a pixel and a tap is kept, so that ``AᴴA`` is exactly Toeplitz (stride 1)."""
    return operator.geometry.boundary is Boundary.ZEROS and all(
        axis.stride == 1 and min(axis.before, axis.after) >= axis.reach for axis in operator.geometry.axes
    )


def is_wide(operator: Convolution) -> bool:
    """Whether there are no more outputs than inputs: then the data space is the smaller one to solve in."""
    return prod(operator.out_shape) <= prod(operator.in_shape)


def trimmed(operator: Convolution) -> Convolution:
    """Return the same map without the kernel's outer rows and columns that hold nothing but zeros.

    A point spread function comes in a frame of zeros as often as not, and the frame reaches over the border, too.
    """
    geometry = operator.geometry
    used = operator.weight.detach() != 0
    weight, axes = operator.weight, []
    for dimension, axis, others in ((2, geometry.rows, (0, 1, 3)), (3, geometry.columns, (0, 1, 2))):
        taps = used.any(dim=others).nonzero().flatten().tolist() or [0]
        before, after = axis.before - axis.dilation * taps[0], axis.after - axis.dilation * (axis.taps - 1 - taps[-1])
        if min(before, after) <= -axis.size:  # the outputs would read from a picture of which nothing is left
            axes.append(axis)
            continue
        weight = weight.narrow(dimension, taps[0], taps[-1] - taps[0] + 1)
        axes.append(dataclasses.replace(axis, taps=taps[-1] - taps[0] + 1, before=before, after=after))
    return Convolution(weight, dataclasses.replace(geometry, rows=axes[0], columns=axes[1]))


@dataclass(frozen=True)
class SeparableFactors:
    """A kernel as a product of three, a group at a time: ``k[o, c, t, u] = channels[o, c]·rows[t]·columns[u]``."""

    channels: Tensor  # (G, Cout/G, Cin/G)
    rows: Tensor  # (G, kH)
    columns: Tensor  # (G, kW)


def separable_factors(operator: Convolution) -> SeparableFactors | None:
    """Factors of a kernel that is a product of a channel matrix and two one-dimensional kernels, else None.

    The test is to rounding: what is left over must be below ``8·ε·taps`` of the kernel's norm, so that the factors
    stand for the kernel wherever a pseudo-inverse of it has digits.
    """
    geometry = operator.geometry
    groups = geometry.groups
    weight = operator.weight.detach()
    weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    # At unit scale: the norms of a kernel of 1e-25 or 1e25 in float32 would be 0 or infinite, and anything separable.
    largest = weight.abs().amax((1, 2, 3, 4), keepdim=True)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    weight = weight / scale
    # Factors by higher-order SVD: the leading left vector of each unfolding (De Lathauwer et al., 2000).
    rows = _leading_vector(weight.permute(0, 3, 1, 2, 4).flatten(2))
    columns = _leading_vector(weight.permute(0, 4, 1, 2, 3).flatten(2))
    channels = torch.einsum("goctu,gt,gu->goc", weight, rows.conj(), columns.conj())
    rebuilt = torch.einsum("goc,gt,gu->goctu", channels, rows, columns)
    norm = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    left_over = torch.linalg.vector_norm((weight - rebuilt).flatten(1), dim=1)
    tolerance = 8 * torch.finfo(weight.dtype).eps * max(weight.shape[-2:])
    if not bool((left_over <= tolerance * norm).all()):
        return None
    return SeparableFactors(channels * scale[..., 0, 0], rows, columns)


def _leading_vector(unfolding: Tensor) -> Tensor:
    return torch.linalg.svd(unfolding, full_matrices=False)[0][..., 0]


def axis_matrices(taps: Tensor, axis: Axis) -> Tensor:
    """Matrices (G, out, in) of one-dimensional convolutions (G, taps) along an axis, boundary included."""
    sources = axis.sources()
    matrices = taps.new_zeros(taps.shape[0], axis.out_size, axis.size)
    outputs = torch.arange(axis.out_size, device=taps.device)
    lookup = torch.tensor(sources, device=taps.device)
    for tap in range(axis.taps):
        source = lookup[axis.stride * outputs + axis.dilation * tap]
        inside = source >= 0
        values = taps[:, tap, None].expand(-1, int(inside.sum()))
        matrices[:, outputs[inside], source[inside]] += values
    return matrices
