"""The systems that the border solver factors: the operator itself where it is square, or the augmented system."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.solvers.base import batch_norm
from convpinv.linalg.solvers.border.elimination import (
    BorderedSystem,
    Corrections,
    EasySystem,
    PeriodicSystem,
    Sides,
)
from convpinv.linalg.solvers.border.layout import Domain, Layout, lay_out


@dataclass(frozen=True)
class Pair:
    """A vector of the augmented system: a batch of outputs (what is left over) and one of inputs (pictures)."""

    outputs: Tensor
    inputs: Tensor

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.outputs + other.outputs, self.inputs + other.inputs)

    def norms(self) -> Tensor:
        """Norm of each member of the batch: (B,)."""
        return torch.hypot(batch_norm(self.outputs), batch_norm(self.inputs))


@dataclass(frozen=True)
class SquareSystem:
    """A itself, factored, on its domain."""

    operator: Convolution
    domain: Domain
    system: BorderedSystem

    def solve(self, outputs: Tensor) -> Tensor:
        """``A⁻¹ y``."""
        flat = self.domain.lay_outputs(outputs, self.operator.geometry.groups)
        return self.domain.take_inputs(self.system.solve(flat), self.operator.in_shape)

    def solve_adjoint(self, inputs: Tensor) -> Tensor:
        """``A⁻ᴴ x``."""
        flat = self.domain.lay_inputs(inputs, self.operator.geometry.groups)
        return self.domain.take_outputs(self.system.solve_adjoint(flat), self.operator.out_shape)


@dataclass(frozen=True)
class AugmentedSystem:
    """``damp·r + A x = f₁, Aᴴ r − damp·x = f₂``, factored: Hermitian, of condition number σ₁/damp, not its square.

    With f = (y, 0) it gives x = A⁺y, with f = (0, x) it gives r = (A⁺)ᴴx (Björck, *Numerical Methods for Least Squares
    Problems*, 1996, section 1.3).
    """

    operator: Convolution
    domain: Domain
    system: BorderedSystem

    def solve(self, right: Pair) -> Pair:
        """Solve for both halves."""
        groups = self.operator.geometry.groups
        outputs = self.domain.lay_outputs(right.outputs, groups)
        inputs = self.domain.lay_inputs(right.inputs, groups)
        solved = self.system.solve(torch.cat([outputs, inputs], 2))
        outputs, inputs = solved.split([outputs.shape[2], inputs.shape[2]], 2)
        return Pair(
            self.domain.take_outputs(outputs, self.operator.out_shape),
            self.domain.take_inputs(inputs, self.operator.in_shape),
        )


def is_square(operator: Convolution) -> bool:
    """Whether the operator and its symbol are both square, so that without damping A⁺ may be A⁻¹."""
    geometry = operator.geometry
    square = geometry.out_channels == geometry.in_channels * prod(geometry.stride)
    return square and prod(operator.in_shape) == prod(operator.out_shape)


def periodic_symbol(operator: Convolution, domain: Domain) -> Tensor:
    """Symbol (G, o, c·phases, frequencies) of an operator on the grid of a domain."""
    return spectrum.symbol(operator.weight, operator.geometry, domain.output_size)


def square_system(operator: Convolution) -> SquareSystem:
    """``C x + E a + F μ = y`` with ``a = R x`` and x = 0 on the frame: A itself.

    Where the periodic symbol or the border matrix is singular what it gives is not finite, or wrong: try it.
    """
    layout = lay_out(operator.geometry, True, operator.device)
    symbol = periodic_symbol(operator, layout.domain)
    inverse = _as_symbol(torch.linalg.inv_ex(spectrum.matrices_of(symbol)).inverse, symbol)
    easy = PeriodicSystem(inverse, layout.domain.output_size, operator.dtype.is_complex)
    on_outputs, corrected = _output_places(operator, layout)
    probes = Sides(_input_places(operator, layout), _corrections(operator, layout), 0)
    return SquareSystem(operator, layout.domain, BorderedSystem(easy, Sides(on_outputs, None, 0), probes, corrected))


def augmented_system(operator: Convolution, damp: float) -> AugmentedSystem:
    """Everything near the border eliminated from what is periodic along both axes."""
    layout = lay_out(operator.geometry, True, operator.device)
    inverse = _augmented_inverse(periodic_symbol(operator, layout.domain), damp)
    easy = PeriodicSystem(inverse, layout.domain.output_size, operator.dtype.is_complex)
    return augment(operator, layout, easy)


def augment(operator: Convolution, layout: Layout, easy: EasySystem) -> AugmentedSystem:
    """Eliminate a layout's differences from an easy augmented system on its domain."""
    on_outputs, corrected = _output_places(operator, layout)
    first = operator.weight.shape[0] // operator.geometry.groups * layout.domain.output_places
    single = torch.cat([on_outputs, first + _input_places(operator, layout)])
    corrections = _corrections(operator, layout)
    if corrections is not None:
        corrections = corrections.shifted(first)
    # q = (what R reads of x, what the corrected outputs hold, the multipliers). R is asked of x, and enters the
    # equations by its adjoint: hence the two orders.
    probes, sources = Sides(single, corrections, 0), Sides(single, corrections, corrected)
    return AugmentedSystem(operator, layout.domain, BorderedSystem(easy, sources, probes, 2 * corrected))


def _augmented_inverse(symbol: Tensor, damp: float) -> Tensor:
    """``[[damp, K], [Kᴴ, −damp]]⁻¹`` for each frequency."""
    outputs, inputs = symbol.shape[1:3]
    if outputs == inputs == 1:
        kernel = symbol[:, 0, 0]
        damping = torch.full_like(kernel, damp)
        rows = torch.stack([damping, kernel], 1), torch.stack([kernel.conj(), -damping], 1)
        return torch.stack(rows, 1) / (kernel.abs().square() + damp**2)[:, None, None]
    matrices = spectrum.matrices_of(symbol)
    diagonal = torch.cat([matrices.new_full((outputs,), damp), matrices.new_full((inputs,), -damp)])
    whole = torch.diag(diagonal).repeat(*matrices.shape[:2], 1, 1)
    whole[..., :outputs, outputs:] = matrices
    whole[..., outputs:, :outputs] = matrices.mH
    return _as_symbol(torch.linalg.inv(whole), symbol)


def _as_symbol(matrices: Tensor, like: Tensor) -> Tensor:
    """(G, frequencies, m, n) → (G, m, n, *frequencies of ``like``)."""
    groups, _, rows, columns = matrices.shape
    return matrices.permute(0, 2, 3, 1).reshape(groups, rows, columns, *like.shape[-2:])


def _output_places(operator: Convolution, layout: Layout) -> tuple[Tensor, int]:
    """Corrected outputs, then frame outputs, of every channel of a group; and how many are corrected."""
    channels = operator.weight.shape[0] // operator.geometry.groups
    first = torch.arange(channels, device=operator.device)[:, None] * layout.domain.output_places
    corrected = (first + layout.corrected).flatten()
    return torch.cat([corrected, (first + layout.frame_outputs).flatten()]), len(corrected)


def _input_places(operator: Convolution, layout: Layout) -> Tensor:
    """Frame inputs of every channel of a group."""
    first = torch.arange(operator.weight.shape[1], device=operator.device)[:, None] * layout.domain.input_places
    return (first + layout.frame_inputs).flatten()


def _corrections(operator: Convolution, layout: Layout) -> Corrections | None:
    """Spell out R: for each corrected output of each channel what it reads in truth minus what the grid shows it."""
    count = len(layout.corrected)
    if not count:
        return None
    groups, channels = operator.geometry.groups, operator.weight.shape[1]
    weight = operator.weight.reshape(groups, -1, channels, operator.weight[0, 0].numel())
    outputs = weight.shape[1]
    output = torch.arange(outputs, device=weight.device)[:, None, None] * count
    channel = torch.arange(channels, device=weight.device)[None, :, None] * layout.domain.input_places
    rows = (output + layout.tap_rows).expand(outputs, channels, -1).flatten()
    sources = (channel + layout.tap_sources).expand(outputs, channels, -1).flatten()
    values = (weight[..., layout.tap_numbers] * layout.tap_signs.to(weight.dtype)).flatten(1)
    return Corrections.of(rows, sources, values, outputs * count)
