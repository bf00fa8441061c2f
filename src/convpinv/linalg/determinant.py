"""The determinant of a square convolution, as a sign and the logarithm of its absolute value."""

from __future__ import annotations

from math import log, prod
from typing import NamedTuple

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg import spectrum
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Geometry
from convpinv.linalg.leading_values import split_groups
from convpinv.linalg.solvers.base import Problem, double_of
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
    else:
        shapes = f"{operator.in_shape} with boundary '{operator.geometry.boundary}'"
        arguments.fail(call, "the operator", shapes, f"a determinant needs {EXACT_WAYS}")
    logarithm = logarithm + size * log(scaled.scale)
    return SignLogDet(sign.to(operator.dtype), logarithm.to(operator.weight.real.dtype))


def _fourier(operator: Convolution) -> tuple[Tensor, Tensor]:
    """Product over the frequencies, times the sign of the permutation that splits a picture into its phases."""
    symbol = spectrum.symbol(operator.weight, operator.geometry, coarse_size(operator))
    signs, logarithms = torch.linalg.slogdet(spectrum.matrices_of(symbol))
    if operator.dtype.is_complex:
        sign, logarithm = signs.prod(), logarithms.sum()
        sign = sign / sign.abs() if bool(sign != 0) else sign
    else:
        height, width = coarse_size(operator)
        by_column = logarithms.unflatten(1, symbol.shape[-2:])
        # Conjugate frequencies give a positive product. The four that are their own conjugates have real matrices.
        logarithm = by_column.sum() + by_column[:, :, 1 : (width + 1) // 2].sum()
        rows = [0, height // 2] if height % 2 == 0 else [0]
        columns = [0, width // 2] if width % 2 == 0 else [0]
        own = signs.real.unflatten(1, symbol.shape[-2:])[:, rows][:, :, columns]
        sign = own.prod().sign() if bool((signs != 0).all()) else own.new_zeros(())
    return sign * phase_permutation_sign(operator.geometry), logarithm


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
