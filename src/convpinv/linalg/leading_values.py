"""The k largest singular values of a convolution by iteration, where no decomposition serves."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.eigenvalues import HermitianMap, fail_unconverged, largest_eigenpairs
from convpinv.linalg.solvers.krylov import NormalSystem
from convpinv.linalg.symbol_norm import largest_norm, sample

# Residual of AᴴA, relative to the square of the value: when the iteration stops; twice that is accepted when the
# residual is computed anew. It is also a bound of the value's own relative error.
TOLERANCE = 1e-8
MAX_ITERATIONS = 3000
# The preconditioner is (μ² − K Kᴴ)⁻¹ with μ² this much above the largest value of the symbol. Measured at 64² and 256²,
# zero padding: 1e-2, 1e-3 and 1e-4 take the same number of steps to within a tenth.
SHIFT = 1e-3


def leading_values(call: str, operator: Convolution, count: int) -> Tensor:
    """``count`` largest singular values of an operator in double precision, largest first.

    Groups do not mix, so each is an operator of its own; equal groups, as in a blur of every channel, are solved once.
    """
    found: list[tuple[Tensor, Tensor]] = []
    values = []
    for group in split_groups(operator):
        known = next((result for weight, result in found if torch.equal(weight, group.weight)), None)
        if known is None:
            known = _of_group(call, group, count)
            found.append((group.weight, known))
        values.append(known)
    return torch.cat(values).sort(descending=True).values[:count]


def split_groups(operator: Convolution) -> list[Convolution]:
    """Split a grouped convolution into its groups."""
    geometry = operator.geometry
    groups = geometry.groups
    if groups == 1:
        return [operator]
    inputs, outputs = geometry.in_channels // groups, geometry.out_channels // groups
    part = replace(geometry, in_channels=inputs, out_channels=outputs, groups=1)
    return [Convolution(weight, part) for weight in operator.weight.chunk(groups)]


def _of_group(call: str, operator: Convolution, count: int) -> Tensor:
    problem = normal_map(operator)
    pairs = largest_eigenpairs(problem, min(count, problem.size), TOLERANCE, MAX_ITERATIONS)
    fail_unconverged(call, pairs, "ask for fewer values, or take norm_bounds(), which needs no iteration to converge")
    return pairs.values.sqrt()


def normal_map(operator: Convolution) -> HermitianMap:
    """``A Aᴴ`` or ``AᴴA``, the smaller of the two, preconditioned by its symbol on a periodic grid."""
    geometry = operator.geometry
    on_outputs = structure.is_wide(operator)
    shape = operator.out_shape if on_outputs else operator.in_shape
    coarse = []
    for axis in geometry.axes:
        length = axis.out_size * axis.stride if on_outputs else axis.size
        coarse.append(spectrum.fast_size(-(-(length + axis.reach) // axis.stride)))
    grid = (coarse[0], coarse[1])
    matrices = spectrum.matrices_of(spectrum.symbol(operator.weight, geometry, grid))
    matrices = matrices.to(matrices.dtype.to_complex())
    if not on_outputs:
        matrices = matrices.mH
    # Not quite the supremum, which may lie between two frequencies of the grid; SHIFT covers most of that, and a
    # preconditioner need not be more than positive definite.
    bulk = largest_norm(sample(operator, grid)[0]) ** 2
    shifted = -(matrices @ matrices.mH)
    shifted.diagonal(dim1=-2, dim2=-1).add_((1.0 + SHIFT) * bulk if bulk else 1.0)
    inverse = 1.0 / shifted.real if shifted.shape[-1] == 1 else torch.linalg.inv(shifted)
    width = grid[1] if operator.dtype.is_complex else grid[1] // 2 + 1
    inverse = inverse.permute(0, 2, 3, 1).unflatten(-1, (grid[0], width)).contiguous()
    system = NormalSystem(operator, on_outputs, 0.0, grid, inverse, None, [])
    return HermitianMap(
        multiply=lambda rows: system.multiply(rows.reshape(-1, *shape)).flatten(1),
        precondition=lambda rows: system.precondition(rows.reshape(-1, *shape)).flatten(1),
        size=prod(shape),
        dtype=operator.dtype,
        device=operator.device,
        bulk=bulk,
    )
