"""Rank-1 kernels, any boundary and stride: the singular value decompositions of two small matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import spectrum, structure
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import Forecast, Problem, Solution, Solver, direct

# A dense SVD of a side this long takes about half a minute on two cores, and its factors 128 MB.
LARGEST_SIDE = 4096
# Seconds, fitted to 37 solves and to sides of 2048 and 4096: for calling, an entry of the matrices and an operation.
PREPARE_SECONDS = 2.2e-3, 1.5e-7, 1.7e-10
APPLY_SECONDS = 1.0e-3, 5.6e-11


@dataclass(frozen=True)
class SeparableState:
    """Singular vectors of the channel, row and column matrices a group, and the inverted products of their values."""

    left: tuple[Tensor, Tensor, Tensor]  # (G, outputs, rank) each
    right: tuple[Tensor, Tensor, Tensor]  # (G, inputs, rank) each
    inverse: Tensor  # (G, ranks of the three)


@final
class Separable(Solver):
    """``A = C ⊗ R ⊗ S``: the pseudo-inverse of a Kronecker product has the products of the singular values.

    The threshold cuts the products: cut on each axis alone, a product of two kept values can lie far below it, and
    of one kept and one dropped far above (errors up to 450 % measured at rtol = 3e-2).
    """

    name = "separable"
    title = "Separable (singular values of rows and columns)"
    serves_kernels_side_by_side = True

    def refuses(self, problem: Problem) -> str | None:
        """Kernels of higher rank, and sides too long for a dense decomposition."""
        longest = _longest(problem)
        if longest > LARGEST_SIDE:
            return f"a side of {longest} pixels, over the limit of {LARGEST_SIDE} for a dense decomposition"
        if structure.separable_factors(problem.operator) is None:
            return "the kernel is not a product of a row, a column and a channel factor (rank 1)"
        return None

    def forecast(self, problem: Problem) -> Forecast:
        """Two decompositions that grow with the cube of the side, and products of matrices."""
        outputs, inputs = problem.operator.out_shape, problem.operator.in_shape
        groups = problem.operator.geometry.groups
        outputs, inputs = (outputs[0] // groups, *outputs[1:]), (inputs[0] // groups, *inputs[1:])
        sides = list(zip(outputs, inputs, strict=True))
        calls, entry, operation = PREPARE_SECONDS
        decompositions = sum(rows * columns * min(rows, columns) for rows, columns in sides)
        entries = sum(rows * columns for rows, columns in sides)
        prepare = calls + groups * (entry * entries + operation * decompositions)
        products = groups * (prod(outputs) * sum(outputs) + prod(inputs) * sum(inputs))
        times = 4 if problem.operator.dtype.is_complex else 1
        return Forecast(times * prepare, APPLY_SECONDS[0] + times * APPLY_SECONDS[1] * products)

    def describe(self, problem: Problem) -> str:
        """Name the matrices and what they cost."""
        rows, columns = problem.operator.geometry.axes
        return (
            f"matrices {rows.out_size} x {rows.size} and {columns.out_size} x {columns.size}; exact; "
            "two SVDs to prepare, four matrix products to apply"
        )

    def prepare(self, problem: Problem) -> SeparableState:
        """Decompose the three factors and invert the products of their singular values."""
        operator = problem.operator
        precise = double_of(operator.dtype)
        matrices = [matrix.to(precise) for matrix in factor_matrices(problem)]
        decompositions = [spectrum.decomposed(matrix) for matrix in matrices]
        products = product_values([values for _, values, _ in decompositions])
        left, right = zip(
            *((u.to(operator.dtype), vh.mH.to(operator.dtype)) for u, _, vh in decompositions), strict=True
        )
        largest = spectrum.largest_of_kernels(products, operator.geometry.kernels)
        inverse = problem.regularization.invert(products, largest)
        return SeparableState(left, right, inverse.to(operator.dtype))

    def apply(self, state: SeparableState, batch: Tensor) -> Solution:
        """``V (S⁻¹ ∘ (Uᴴ y))``, three factors at a time."""
        return direct(_sandwich(state.left, state.inverse, state.right, batch))

    def adjoint(self, state: SeparableState, batch: Tensor) -> Solution:
        """``U (S⁻¹ ∘ (Vᴴ x))``."""
        return direct(_sandwich(state.right, state.inverse, state.left, batch))


def _longest(problem: Problem) -> int:
    return max(*problem.operator.in_shape[1:], *problem.operator.out_shape[1:])


def factor_matrices(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Channel, row and column matrices (G, outputs, inputs) of an operator that is separable."""
    factors = structure.separable_factors(problem.operator)
    assert factors is not None, "choose asks refuses() first"
    rows, columns = problem.operator.geometry.axes
    return (
        factors.channels,
        structure.axis_matrices(factors.rows, rows),
        structure.axis_matrices(factors.columns, columns),
    )


def product_values(values: list[Tensor]) -> Tensor:
    """(G, a), (G, b), (G, c) → (G, a, b, c): the singular values of the Kronecker product."""
    return torch.einsum("ga,gb,gc->gabc", *values)


def _sandwich(
    analysis: tuple[Tensor, Tensor, Tensor], middle: Tensor, synthesis: tuple[Tensor, Tensor, Tensor], batch: Tensor
) -> Tensor:
    groups, inputs = analysis[0].shape[:2]
    pictures = batch.reshape(batch.shape[0], groups, inputs, *batch.shape[-2:])
    analysed = _along_three([matrix.mH for matrix in analysis], pictures)
    return _along_three(list(synthesis), analysed * middle).flatten(1, 2)


def _along_three(matrices: list[Tensor], pictures: Tensor) -> Tensor:
    """Multiply (B, G, C, H, W) along C, H and W."""
    channels, rows, columns = matrices
    pictures = torch.matmul(pictures, columns[:, None].mT)
    pictures = torch.matmul(rows[:, None], pictures)
    return torch.einsum("gdc,bgchw->bgdhw", channels, pictures)
