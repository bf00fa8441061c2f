"""Circular boundaries: the pseudo-inverse of one small matrix a frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from convpinv.linalg import matrix_inverses, scalar_symbol, spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.polyphase import join_phases, split_phases
from convpinv.linalg.solvers.base import Problem, Solution, Solver, direct
from convpinv.linalg.solvers.block_plan import plan_that_pays

# Matrices of up to this many entries are applied entry by entry, without the two copies that products of matrices need.
MOST_ENTRIES_APART = 16


@dataclass(frozen=True)
class FourierState:
    """The inverse symbol, F frequencies: (G, F, n, m), or (G, n, m, F) where ``has_entries_apart``.

    Where both sides have one channel a group, (G, F_h, F_w).
    """

    inverse: Tensor
    stride: tuple[int, int]
    coarse: tuple[int, int]
    has_entries_apart: bool = False


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
        """Pictures so large, or of sides so awkward, that blocks of them take less time and memory."""
        plan = plan_that_pays(problem)
        if plan is None:
            return None
        return f"blocks of {plan.block[0]} x {plan.block[1]} take less time and memory than the picture as a whole"

    def forecast(self, problem: Problem) -> None:
        """Nothing takes less than two FFTs."""

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
        matrices = spectrum.matrices(operator.weight, operator.geometry, coarse)
        inverse = matrix_inverses.pseudo_inverses(matrices, problem.regularization, operator.geometry.kernels)
        apart = inverse.shape[-1] * inverse.shape[-2] <= MOST_ENTRIES_APART
        if apart:
            inverse = inverse.permute(0, 2, 3, 1)
        return FourierState(inverse.contiguous(), operator.geometry.stride, coarse, apart)

    def apply(self, state: FourierState, batch: Tensor) -> Solution:
        """Transform, multiply by the inverse symbol, transform back, join the phases."""
        return direct(join_phases(_multiply(state, batch, is_adjoint=False), state.stride))

    def adjoint(self, state: FourierState, batch: Tensor) -> Solution:
        """Split into phases, then the same with each matrix's conjugate transpose."""
        return direct(_multiply(state, split_phases(batch, state.stride), is_adjoint=True))


def coarse_size(operator: Convolution) -> tuple[int, int]:
    """Size of the grid on which the frequencies live: the output's."""
    return operator.geometry.rows.out_size, operator.geometry.columns.out_size


def _multiply(state: FourierState, batch: Tensor, is_adjoint: bool) -> Tensor:
    transformed = spectrum.transform(batch)
    factors = state.inverse
    if factors.ndim == 3:
        # In place: a second spectrum would cost a tenth of the whole application in memory traffic.
        product = transformed.mul_(factors.conj() if is_adjoint else factors)
    elif state.has_entries_apart:
        product = _by_entries(factors, transformed, is_adjoint)
    else:
        product = _by_matrices(factors, transformed, is_adjoint)
    return spectrum.inverse_transform(product, state.coarse, batch.is_complex())


def _by_entries(factors: Tensor, transformed: Tensor, is_adjoint: bool) -> Tensor:
    """Few channels: a pass over the spectrum for each entry of the matrices, in the layout of the FFT."""
    groups, outputs, inputs = factors.shape[:3]
    pictures, _, height, width = transformed.shape
    columns = transformed.reshape(pictures, groups, -1, height, width)
    factors = factors.unflatten(-1, (height, width))
    if is_adjoint:
        factors, outputs, inputs = factors.transpose(1, 2).conj(), inputs, outputs
    product = columns.new_zeros(pictures, groups, outputs, height, width)
    for output in range(outputs):
        for entry in range(inputs):
            product[:, :, output].addcmul_(columns[:, :, entry], factors[:, output, entry])
    return product.flatten(1, 2)


def _by_matrices(factors: Tensor, transformed: Tensor, is_adjoint: bool) -> Tensor:
    """Many channels: one matrix product a frequency, all pictures at once, and a copy either way."""
    pictures, _, height, width = transformed.shape
    groups, frequencies = factors.shape[:2]
    rows = transformed.reshape(pictures, groups, -1, frequencies).permute(1, 3, 0, 2).contiguous()
    # For the adjoint the data and the result are conjugated, not the matrices, of which there is more.
    product = (rows.conj_physical_() @ factors).conj_physical_() if is_adjoint else rows @ factors.mT
    return product.permute(2, 0, 3, 1).reshape(pictures, -1, height, width)
