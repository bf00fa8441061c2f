"""The determinant of a square convolution, as a sign and the logarithm of its absolute value."""

from __future__ import annotations

from collections.abc import Callable
from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Geometry
from convpinv.linalg.leading_values import split_groups
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import Problem
from convpinv.linalg.solvers.border import systems
from convpinv.linalg.solvers.border.cost import eliminations
from convpinv.linalg.solvers.border.layout import Domain
from convpinv.linalg.solvers.border.solver import LARGEST_MEMORY
from convpinv.linalg.solvers.fourier import Fourier, coarse_size
from convpinv.linalg.solvers.separable import factor_matrices
from convpinv.linalg.svd import EXACT_WAYS, is_dense, separable_problem, unit


class SignLogDet(NamedTuple):
    """What ``torch.linalg.slogdet`` returns: ``det = sign · exp(logabsdet)``, tensors of no dimension.

    Attributes
    ----------
    sign : Tensor
        ±1, or a complex number of modulus 1; 0 where the determinant is 0. Of the operator's dtype.
    logabsdet : Tensor
        Natural logarithm of the absolute value, −inf where the determinant is 0. Of the operator's real dtype.
    """

    sign: Tensor
    logabsdet: Tensor


def slogdet(operator: Convolution) -> SignLogDet:
    """Sign and logarithm of the determinant; see :meth:`InvertibleOperator.slogdet`."""
    call, size = "slogdet", prod(operator.in_shape)
    if size != prod(operator.out_shape):
        shapes = f"{operator.in_shape} → {operator.out_shape}"
        arguments.fail(call, "the operator", shapes, "only a square one, with as many outputs as inputs, has one")
    scaled = unit(operator)
    separable = None
    if Fourier().refuses(scaled.problem) is None:
        sign, logarithm = _fourier(scaled.operator)
    elif (separable := separable_problem(scaled)) is not None:
        sign, logarithm = _separable(separable)
    elif is_dense(scaled):
        matrices = torch.stack([group.to_dense() for group in split_groups(scaled.operator)])
        signs, logarithms = torch.linalg.slogdet(matrices)
        sign, logarithm = signs.prod(), logarithms.sum()
    elif (found := _border(scaled.operator)) is not None:
        sign, logarithm = found
    else:
        shapes = f"{operator.in_shape} with boundary '{operator.geometry.boundary}'"
        arguments.fail(
            call, "the operator", shapes, f"a determinant needs {EXACT_WAYS}, or a border matrix that fits and exists"
        )
    logarithm = logarithm + size * log(scaled.scale)
    return SignLogDet(sign.to(operator.dtype), logarithm.to(operator.weight.real.dtype))


def _fourier(operator: Convolution) -> tuple[Tensor, Tensor]:
    """Product over the frequencies, times the sign of the permutation that splits a picture into its phases."""
    symbol = spectrum.symbol(operator.weight, operator.geometry, coarse_size(operator))
    sign, logarithm = _of_symbol(symbol, coarse_size(operator), operator.dtype.is_complex)
    return sign * phase_permutation_sign(operator.geometry), logarithm


def _of_symbol(symbol: Tensor, grid: tuple[int, int], is_complex: bool) -> tuple[Tensor, Tensor]:
    """Determinant of a periodic convolution, pixels split into phases."""
    signs, logarithms = torch.linalg.slogdet(spectrum.matrices_of(symbol))
    if is_complex:
        sign, logarithm = signs.prod(), logarithms.sum()
        return sign / sign.abs() if bool(sign != 0) else sign, logarithm
    height, width = grid
    by_column = logarithms.unflatten(1, symbol.shape[-2:])
    # Conjugate frequencies give a positive product. The four that are their own conjugates have real matrices.
    logarithm = by_column.sum() + by_column[:, :, 1 : (width + 1) // 2].sum()
    rows = [0, height // 2] if height % 2 == 0 else [0]
    columns = [0, width // 2] if width % 2 == 0 else [0]
    own = signs.real.unflatten(1, symbol.shape[-2:])[:, rows][:, :, columns]
    return own.prod().sign() if bool((signs != 0).all()) else own.new_zeros(()), logarithm


def _border(operator: Convolution) -> tuple[Tensor, Tensor] | None:
    """``det A = ± det C · det(D + T C⁻¹ S)``; None where the border matrix does not fit or C has no inverse.

    The bordered matrix [[C, S], [T, −D]] has the determinant ``det C · det(−D − T C⁻¹ S)``. Corrections eliminated, and
    what belongs to frames moved to the end, it is that of A times the signs of the two orders. Jacobi's identity for
    complementary minors is the case without corrections.
    """
    operator = structure.trimmed(operator)
    way = eliminations(operator, False)[0]
    if way.way != "square" or way.peak > LARGEST_MEMORY:
        return None
    square = systems.square_system(operator)
    symbol = systems.periodic_symbol(operator, square.domain)
    signs, logarithms = square.system.slogdet()
    sign, logarithm = _of_symbol(symbol, square.domain.output_size, operator.dtype.is_complex)
    sign, logarithm = sign * signs.prod() * _order_sign(operator, square.domain), logarithm + logarithms.sum()
    return (sign, logarithm) if bool(torch.isfinite(logarithm)) else None


def _order_sign(operator: Convolution, domain: Domain) -> int:
    """Sign of moving the frames of one group behind what is kept, and of the pixels' split into phases, all groups."""
    groups = operator.geometry.groups
    outputs = _kept_first(lambda numbers: domain.lay_outputs(numbers, 1), operator.out_shape, groups)
    inputs = _kept_first(lambda numbers: domain.lay_inputs(numbers, 1), operator.in_shape, groups)
    return (permutation_sign(outputs) * permutation_sign(inputs)) ** groups


def _kept_first(lay: Callable[[Tensor], Tensor], shape: tuple[int, int, int], groups: int) -> Tensor:
    """Places of a domain in the order of the operator's own, those of frames behind."""
    channels, height, width = shape
    own = torch.arange(1, channels // groups * height * width + 1, dtype=torch.float64)
    numbers = lay(own.reshape(1, -1, height, width)).flatten()
    frames = numbers == 0
    return torch.cat([numbers.masked_fill(frames, torch.inf).argsort()[: len(own)], frames.nonzero().flatten()])


def permutation_sign(order: Tensor) -> int:
    """Sign of a permutation, from the number of its cycles: each place learns the least of its cycle, by doubling."""
    least = torch.arange(len(order), device=order.device)
    jump = order
    for _ in range(max(1, (len(order) - 1).bit_length())):
        least = torch.minimum(least, least[jump])
        jump = jump[jump]
    cycles = len(least.unique())
    return -1 if (len(order) - cycles) % 2 else 1


def phase_permutation_sign(geometry: Geometry) -> int:
    """Sign of the permutation of pixels that :func:`~convpinv.linalg.polyphase.split_phases` is.

    It moves axes: (channel, i, a, j, b) → (channel, a, b, i, j), in two exchanges of neighbours. Exchanging axes of p
    and q entries has p(p−1)/2 · q(q−1)/2 inversions, as often as the axes around them have entries.
    """
    rows, columns = geometry.axes
    height, width = rows.size // rows.stride, columns.size // columns.stride
    first = _inversions(height, rows.stride) * geometry.in_channels * columns.size
    second = _inversions(height * width, columns.stride) * geometry.in_channels * rows.stride
    return -1 if (first + second) % 2 else 1


def _inversions(left: int, right: int) -> int:
    return (left * (left - 1) // 2) * (right * (right - 1) // 2)


def _separable(problem: Problem) -> tuple[Tensor, Tensor]:
    """``det(C ⊗ R ⊗ S)``: each factor's to the power of the sizes of the others; 0 where the factors are not square."""
    factors = [matrix.to(double_of(matrix.dtype)) for matrix in factor_matrices(problem)]
    if any(matrix.shape[-2] != matrix.shape[-1] for matrix in factors):
        zero = factors[0].new_zeros(())
        return zero, zero.real.log()
    sizes = [matrix.shape[-1] for matrix in factors]
    sign, logarithm = factors[0].new_ones(()), factors[0].real.new_zeros(())
    for matrix, size in zip(factors, sizes, strict=True):
        power = prod(sizes) // size
        signs, logarithms = torch.linalg.slogdet(matrix)
        sign = sign * signs.prod() ** power
        logarithm = logarithm + power * logarithms.sum()
    modulus = sign.abs()
    return (sign / modulus if bool(modulus > 0) else sign), logarithm
