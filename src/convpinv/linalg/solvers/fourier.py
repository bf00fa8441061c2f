"""Circular boundaries: the pseudo-inverse of one small matrix a frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import scalar_symbol, spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.polyphase import join_phases, split_phases
from convpinv.linalg.solvers.base import Problem, Solution, Solver, direct


@dataclass(frozen=True)
class FourierState:
    """The inverse symbol: (G, frequencies, n, m), or (G, F_h, F_w) where both sides have one channel a group."""

    inverse: Tensor
    stride: tuple[int, int]
    coarse: tuple[int, int]


@final
class Fourier(Solver):
    """The discrete Fourier transform makes a circular convolution one matrix Cout × Cin·s² a frequency.

    Preparing takes one FFT of the kernel and a small pseudo-inverse a frequency (half of them where the kernel is
    real); applying two FFTs and one small product a frequency.
    """

    name = "fourier"
    title = "Fourier (per-frequency pseudo-inverse)"
    serves_kernels_side_by_side = True
    spreads_what_is_not_finite = True  # every pixel is a sum over all frequencies, each a sum over all pixels

    def refuses(self, problem: Problem) -> str | None:
        """Anything whose outputs are not a full turn of a periodic picture."""
        return structure.why_not_circular(problem.operator)

    def declines(self, problem: Problem) -> str | None:
        """Never: nothing is cheaper where it serves."""
        return None

    def describe(self, problem: Problem) -> str:
        """Name the matrices and what they cost."""
        geometry = problem.operator.geometry
        rows, columns = coarse_size(problem.operator)
        outputs = geometry.out_channels // geometry.groups
        inputs = geometry.in_channels // geometry.groups * geometry.stride[0] * geometry.stride[1]
        groups = f" in {geometry.groups} groups" if geometry.groups > 1 else ""
        return f"{rows} x {columns} frequencies, one {outputs} x {inputs} matrix each{groups}; exact; two FFTs to apply"

    def prepare(self, problem: Problem) -> FourierState:
        """Invert the symbol."""
        operator = problem.operator
        coarse = coarse_size(operator)
        if scalar_symbol.serves(operator.geometry):
            inverse = scalar_symbol.inverse_symbol(operator.weight, operator.geometry, coarse, problem.regularization)
            return FourierState(inverse, operator.geometry.stride, coarse)
        matrices = spectrum.symbol(operator.weight, operator.geometry, coarse)
        inverse = spectrum.invert_matrices(
            spectrum.matrices_of(matrices), problem.regularization, operator.geometry.kernels
        )
        if inverse.shape[-2:] == (1, 1):
            inverse = inverse.reshape(-1, *matrices.shape[-2:])
        return FourierState(inverse.contiguous(), operator.geometry.stride, coarse)

    def apply(self, state: FourierState, batch: Tensor) -> Solution:
        """Transform, multiply by the inverse symbol, transform back, join the phases."""
        phases = _multiply(state.inverse, batch, state.coarse)
        return direct(join_phases(phases, state.stride))

    def adjoint(self, state: FourierState, batch: Tensor) -> Solution:
        """Split into phases, then the same with each matrix's conjugate transpose."""
        adjoint = state.inverse.conj() if state.inverse.ndim == 3 else state.inverse.mH
        return direct(_multiply(adjoint, split_phases(batch, state.stride), state.coarse))


def coarse_size(operator: Convolution) -> tuple[int, int]:
    """Size of the grid on which the frequencies live: the output's."""
    return operator.geometry.rows.out_size, operator.geometry.columns.out_size


def _multiply(factors: Tensor, batch: Tensor, size: tuple[int, int]) -> Tensor:
    transformed = spectrum.transform(batch)
    if factors.ndim == 3:
        # In place: a second spectrum would cost a tenth of the whole application in memory traffic.
        return spectrum.inverse_transform(transformed.mul_(factors), size, batch.is_complex())
    pictures, _, height, width = transformed.shape
    groups, inputs = factors.shape[0], factors.shape[-1]
    columns = transformed.reshape(pictures, groups, inputs, height * width).permute(1, 3, 2, 0)
    product = torch.matmul(factors, columns).permute(3, 0, 2, 1).reshape(pictures, -1, height, width)
    return spectrum.inverse_transform(product, size, batch.is_complex())
