"""Singular values of a convolution, exact where structure gives them."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg import spectrum
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.precision import in_full_precision
from convpinv.linalg.solvers.base import Problem
from convpinv.linalg.solvers.dense import Dense
from convpinv.linalg.solvers.fourier import Fourier, coarse_size
from convpinv.linalg.solvers.separable import Separable, factor_matrices, product_values


@in_full_precision
def svdvals(operator: Convolution) -> Tensor:
    """All singular values of an operator, largest first.

    Exact for circular boundaries (Sedghi, Gupta and Long, ICLR 2019), separable kernels and small operators.

    Parameters
    ----------
    operator : Convolution
        At most 4096 unknowns where it is neither circular nor separable.

    Returns
    -------
    Tensor
        ``min(prod(in_shape), prod(out_shape))`` real values (those that structure makes zero included).

    Raises
    ------
    ArgumentError
        Where no exact way serves.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 1, 1) * 2.0, (2, 2))
    >>> A.svdvals()
    tensor([2., 2., 2., 2.])
    """
    operator = operator.detach()
    problem = Problem(operator, spectrum.Regularization(0.0, 0.0, 0.0, True), 0.0, 0.0, 1, 1)
    if Fourier().refuses(problem) is None:
        values = _fourier(operator)
    elif Separable().refuses(problem) is None:
        values = product_values([torch.linalg.svdvals(matrix) for matrix in factor_matrices(problem)]).flatten()
    elif Dense().refuses(problem) is None:
        values = torch.linalg.svdvals(operator.to_dense())
    else:
        arguments.fail(
            "svdvals",
            "the operator",
            f"{operator.in_shape} → {operator.out_shape} with boundary '{operator.geometry.boundary}'",
            "exact values need a circular boundary, a separable kernel, or at most 4096 unknowns",
        )
    # Kronecker factors of different orientation leave out values that are zero by structure.
    missing = min(prod(operator.in_shape), prod(operator.out_shape)) - values.numel()
    return torch.cat([values.sort(descending=True).values, values.new_zeros(missing)])


def _fourier(operator: Convolution) -> Tensor:
    """Singular values of every matrix of the full spectrum, each frequency counted once."""
    weight = operator.weight.to(operator.dtype.to_complex())
    matrices = spectrum.symbol(weight, operator.geometry, coarse_size(operator))
    return spectrum.singular_values(spectrum.matrices_of(matrices)).flatten()


def cond(operator: Convolution) -> float:
    """Ratio of the largest to the smallest singular value of an operator; infinite where the smallest is 0.

    Examples
    --------
    >>> import torch, convpinv
    >>> convpinv.Conv2dOperator(torch.tensor([[[[3.0, 1.0]]]]), (1, 2), padding="same", padding_mode="circular").cond()
    2.0
    """
    values = svdvals(operator)
    return float(values[0] / values[-1]) if float(values[-1]) > 0 else float("inf")


def matrix_rank(operator: Convolution, atol: float | None, rtol: float | None) -> int:
    """Count the singular values above the threshold that a pseudo-inverse would use."""
    call = "matrix_rank"
    regularization = spectrum.Regularization.resolve(
        0.0,
        arguments.optional_non_negative(call, "atol", atol),
        arguments.optional_non_negative(call, "rtol", rtol),
        operator.dtype,
        operator.in_shape[1:],
    )
    values = svdvals(operator)
    return int((~regularization.is_cut(values, values[0])).sum())
