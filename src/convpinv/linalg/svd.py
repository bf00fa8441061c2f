"""Singular values of a convolution: exact where structure gives them, by iteration with a stated error elsewhere.

Everything is computed in double precision from the kernel at unit scale, so that no square of it over- or underflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.eigenvalues import HermitianMap, fail_unconverged, largest_eigenpairs
from convpinv.linalg.leading_values import leading_values, split_groups
from convpinv.linalg.pinv import Request, prepare_pinv
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.base import Problem
from convpinv.linalg.solvers.dense import LARGEST, larger_side
from convpinv.linalg.solvers.fourier import Fourier, coarse_size
from convpinv.linalg.solvers.separable import Separable, factor_matrices, product_values
from convpinv.linalg.symbol_norm import largest_norm, sample

# Unknowns up to which a dense decomposition is the first choice; it takes about 0.2 s of one core.
DENSE_PREFERRED = 1024
# Unknowns up to which it is preferred to an iteration on the pseudo-inverse, for the smallest value.
DENSE_PATIENT = 2048
# A basis of some four times as many vectors is held in memory.
MOST_ITERATED = 512
# Relative error of 1/σ² that is asked of the iteration on the pseudo-inverse, and its steps: two applications each.
SMALLEST_TOLERANCE = 1e-7
SMALLEST_ITERATIONS = 300
# Random pictures on which full rank is tried, and the part of what one missing dimension would show that counts.
RANK_TRIALS, RANK_SHARE = 4, 1e-2
EXACT_WAYS = f"a circular boundary, a separable kernel, or at most {LARGEST} unknowns (a group)"


@dataclass(frozen=True)
class Unit:
    """An operator divided by a power of two, so that its largest tap is between ½ and 1.

    ``problem`` holds it in double precision, ``own`` in its own dtype: a kernel may be a product of three to the
    rounding of the one and not of the other.
    """

    problem: Problem
    own: Problem
    scale: float

    @property
    def operator(self) -> Convolution:
        """The operator at unit scale, in double precision."""
        return self.problem.operator

    @property
    def count(self) -> int:
        """Number of singular values."""
        return min(prod(self.operator.in_shape), prod(self.operator.out_shape))


def unit(operator: Convolution) -> Unit:
    """Bring an operator to unit scale and double precision; a zero kernel stays."""
    weight = operator.weight.detach()
    scale = spectrum.binary_scale(float(weight.abs().max()))
    precise = weight.to(double_of(weight.dtype)) / scale
    return Unit(_problem(precise, operator), _problem(precise.to(weight.dtype), operator), scale)


def _problem(weight: Tensor, operator: Convolution) -> Problem:
    cut_nothing = spectrum.Regularization(0.0, 0.0, 0.0, True)
    return Problem(Convolution(weight, operator.geometry), cut_nothing, 0.0, 0.0, 1, 1)


def separable_problem(scaled: Unit) -> Problem | None:
    """The problem as the separable solver takes it: to double precision, or to that of the operator's dtype.

    In its own dtype only where the dense matrix is not small: that one knows the values to full precision.
    """
    if Separable().refuses(scaled.problem) is None:
        return scaled.problem
    if not is_dense(scaled, DENSE_PREFERRED) and Separable().refuses(scaled.own) is None:
        return scaled.own
    return None


def is_dense(scaled: Unit, limit: int = LARGEST) -> bool:
    """Whether the matrix of each group is small enough to be written down."""
    return larger_side(scaled.problem) <= limit * scaled.operator.geometry.groups


def svdvals(operator: Convolution, count: int | None = None) -> Tensor:
    """All singular values of an operator, or the ``count`` largest; see :meth:`InvertibleOperator.svdvals`."""
    call = "svdvals"
    scaled = unit(operator)
    if count is not None:
        count = arguments.positive_integer(call, "k", count)
        if count > scaled.count:
            arguments.fail(call, "k", count, f"it may be at most {scaled.count}, the number of singular values")
    few = count is not None and count <= MOST_ITERATED
    values = exact_values(scaled, DENSE_PREFERRED if few else LARGEST)
    if values is None:
        shapes = f"{operator.in_shape} → {operator.out_shape} with boundary '{operator.geometry.boundary}'"
        if count is None:
            arguments.fail(
                call, "the operator", shapes, f"exact values need {EXACT_WAYS}; svdvals(k=10) iterates for the largest"
            )
        if not few:
            arguments.fail(call, "k", count, f"it may be at most {MOST_ITERATED} here; more values need {EXACT_WAYS}")
        values = leading_values(call, scaled.operator, count)
    return (values[:count] * scaled.scale).to(operator.weight.real.dtype)


def exact_values(scaled: Unit, dense_limit: int) -> Tensor | None:
    """All singular values by a decomposition, at unit scale, largest first; None where none serves."""
    if Fourier().refuses(scaled.problem) is None:
        values = _fourier(scaled.operator)
    elif (separable := separable_problem(scaled)) is not None:
        precise = double_of(separable.operator.dtype)
        factors = [torch.linalg.svdvals(matrix.to(precise)) for matrix in factor_matrices(separable)]
        values = product_values(factors).flatten()
    elif is_dense(scaled, dense_limit):
        values = torch.cat([torch.linalg.svdvals(group.to_dense()) for group in split_groups(scaled.operator)])
    else:
        return None
    # Kronecker factors of different orientation leave out values that are zero by structure.
    missing = scaled.count - values.numel()
    return torch.cat([values.sort(descending=True).values, values.new_zeros(missing)])


def _fourier(operator: Convolution) -> Tensor:
    """Singular values of every matrix of the spectrum; where the kernel is real, half of them stand for two."""
    height, width = coarse_size(operator)
    values = []
    for symbol in sample(operator, (height, width)):
        by_frequency = torch.cat(
            [spectrum.singular_values(symbol.matrices(part, torch.float64)) for part in symbol.parts()]
        ).unflatten(0, (height, -1))
        values.append(by_frequency.flatten())
        if not operator.dtype.is_complex:
            values.append(by_frequency[:, 1 : (width + 1) // 2].flatten())
    return torch.cat(values)


def norm(operator: Convolution) -> float:
    """Largest singular value; see :meth:`InvertibleOperator.norm`."""
    scaled = unit(operator)
    return _unit_norm("norm", scaled) * scaled.scale


def _unit_norm(call: str, scaled: Unit) -> float:
    operator = scaled.operator
    if Fourier().refuses(scaled.problem) is None:
        return max(largest_norm(symbol) for symbol in sample(operator, coarse_size(operator)))
    values = exact_values(scaled, DENSE_PREFERRED)
    return float((leading_values(call, operator, 1) if values is None else values)[0])


def cond(operator: Convolution) -> float:
    """Ratio of the largest to the smallest singular value; see :meth:`InvertibleOperator.cond`."""
    return _cond("cond", operator, unit(operator))


def _cond(call: str, operator: Convolution, scaled: Unit) -> float:
    values = exact_values(scaled, DENSE_PATIENT)
    if values is None:
        largest = _unit_norm(call, scaled)
        try:
            smallest = min(_smallest(call, group) for group in split_groups(scaled.operator))
        except arguments.ConvergenceError:
            dense = exact_values(scaled, LARGEST)
            if dense is None:
                raise
            smallest = float(dense[-1])
    else:
        largest, smallest = float(values[0]), float(values[-1])
    # In double precision whatever the dtype: the values are those of the kernel as it is, not of its rounding.
    rounding = spectrum.default_rtol(scaled.operator.dtype, operator.in_shape[1:])
    return largest / smallest if smallest > rounding * largest else float("inf")


def _smallest(call: str, operator: Convolution) -> float:
    """Smallest of the ``min(m, n)`` singular values: 0, or the inverse of the largest value of the pseudo-inverse."""
    try:
        pinv = prepare_pinv(Request.of(operator, applications=100))
        there, back = (pinv, operator) if structure.is_wide(operator) else (pinv.H, operator.H)
        domain = there.in_shape
        generator = torch.Generator().manual_seed(0)
        trial = torch.randn(RANK_TRIALS, *domain, generator=generator, dtype=operator.dtype).to(operator.device)
        with torch.no_grad():
            projected = back(there(trial))
            # One missing dimension of N takes 1/√N of a random picture's length.
            share = RANK_SHARE / prod(domain) ** 0.5
            if float((projected - trial).norm()) > share * float(trial.norm()):
                if float((back(there(projected)) - projected).norm()) > share * float(trial.norm()):
                    raise arguments.ConvergenceError(
                        "the pseudo-inverse is too inaccurate, the condition number too large"
                    )
                return 0.0
            inverse = HermitianMap(
                multiply=lambda rows: there.H(there(rows.reshape(-1, *domain))).flatten(1),
                size=prod(domain),
                dtype=operator.dtype,
                device=operator.device,
            )
            pairs = largest_eigenpairs(inverse, 1, SMALLEST_TOLERANCE, SMALLEST_ITERATIONS)
        fail_unconverged(call, pairs, "no remedy")
    except (arguments.ConvergenceError, arguments.SolverRefusedError) as error:
        raise arguments.ConvergenceError(
            f"{call}: the smallest singular value was not found ({str(error).split(';')[0]}); it is served exactly by "
            f"{EXACT_WAYS}"
        ) from None
    return float(pairs.values[0]) ** -0.5


def matrix_rank(operator: Convolution, atol: float | None, rtol: float | None) -> int:
    """Count the singular values above the threshold; see :meth:`InvertibleOperator.matrix_rank`."""
    call = "matrix_rank"
    regularization = spectrum.Regularization.resolve(
        0.0,
        arguments.optional_non_negative(call, "atol", atol),
        arguments.optional_non_negative(call, "rtol", rtol),
        operator.dtype,
        operator.in_shape[1:],
    )
    scaled = unit(operator)
    values = exact_values(scaled, LARGEST)
    if values is not None:
        values = values * scaled.scale
        return int((~regularization.is_cut(values, values[0])).sum())
    # No way to count; but where the smallest value stands above the threshold, all do.
    try:
        ratio = 1.0 / _cond(call, operator, scaled)
        largest = torch.tensor(norm(operator), dtype=torch.float64)
        if not bool(regularization.is_cut(largest * ratio, largest)):
            return scaled.count
        found = "its smallest singular value is below the threshold, and no iteration counts how many are"
    except arguments.ConvergenceError as error:
        found = str(error).partition(": ")[2].split(";")[0]
    shapes = f"{operator.in_shape} → {operator.out_shape} with boundary '{operator.geometry.boundary}'"
    arguments.fail(call, "the operator", shapes, f"{found}; the rank of a deficient operator needs {EXACT_WAYS}")
