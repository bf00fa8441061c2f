"""Pseudo-inverses of a stack of small matrices: the cheapest way that is accurate enough, frequency by frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.spectrum import CHOLESKY_DAMP, MODERATE, Regularization

# A Gram matrix has the square of the condition number. Up to this square its inverse loses no more than a hundred times
# what the decomposition does; beyond it single precision is left for double, and double for the decomposition.
WELL_CONDITIONED = CHOLESKY_DAMP**-2
# In double precision the same square may be larger for matrices that are in single: ε₆₄·κ² is below ε₃₂·κ up to here.
WELL_CONDITIONED_IN_DOUBLE = 1e12
# Side up to which LAPACK inverts; larger ones are halved, so that most of the work is batched products. Measured on
# one core, 64 matrices of side 64 in complex64: 6.9 ms by LAPACK alone, 4.3 ms by halves.
SIDE_OF_LAPACK = 16
# Entries of the matrices that are worked on together, 2 MB in single precision.
BLOCK = 2**18
# What rounding may add to a bound that is computed.
MARGIN = 1.1


def pseudo_inverses(matrices: Tensor, regularization: Regularization, kernels: int = 1) -> Tensor:
    """Pseudo-inverse of each matrix of a stack (G, F, m, n) → (G, F, n, m), with a rank threshold for each kernel.

    Matrices that certainly have no singular value at or below the threshold are inverted by their Gram matrix, or as
    they are where they are square and undamped; the decomposition is for the rest. Reads numbers back, which stalls
    the stream of an accelerator.
    """
    has_one_threshold = kernels == 1 and regularization.is_default_cut
    if min(matrices.shape[-2:]) == 1 or not has_one_threshold or torch.compiler.is_compiling():
        return spectrum.invert_matrices(matrices, regularization, kernels)
    extremes = torch.aminmax(torch.view_as_real(matrices) if matrices.is_complex() else matrices)
    largest = max(-float(extremes.min), float(extremes.max), regularization.damp)
    if not math.isfinite(largest):
        return torch.full_like(matrices.mH, torch.nan)
    if not 1.0 / MODERATE <= largest <= MODERATE:
        # The squares in a Gram matrix of 1e-25 or 1e30 would leave float32's range.
        scale = spectrum.binary_scale(largest)
        scaled = replace(regularization, damp=regularization.damp / scale)
        return pseudo_inverses(matrices / scale, scaled) / scale if largest else matrices.mH.resolve_conj()
    stack = _Stack.of(matrices.flatten(0, 1), regularization)
    damped = stack.damp >= CHOLESKY_DAMP * stack.bound
    return stack.inverses(damped).unflatten(0, matrices.shape[:2])


@dataclass(frozen=True)
class _Stack:
    """Matrices (F, m, n) whose squares are numbers, a bound on their norms, and what is asked of them."""

    matrices: Tensor
    norms: Tensor
    bound: float
    damp: float
    rtol: float

    @staticmethod
    def of(matrices: Tensor, regularization: Regularization) -> _Stack:
        """Measure Frobenius norms."""
        norms = _norms(matrices)
        return _Stack(matrices, norms, float(norms.max()), regularization.damp, regularization.rtol)

    @property
    def threshold(self) -> float:
        """At least what counts as zero, for σ₁ is at most the bound."""
        return MARGIN * self.rtol * self.bound

    def inverses(self, is_damped: bool) -> Tensor:
        """The cheapest way for each: a block at a time, so that what is intermediate stays in the cache."""
        count, rows, columns = self.matrices.shape
        inverses = self.matrices.new_empty(count, columns, rows)
        step = max(1, BLOCK // (rows * columns))
        left = []
        for start in range(0, count, step):
            place = slice(start, start + step)
            part = replace(self, matrices=self.matrices[place], norms=self.norms[place])
            if is_damped:  # below the threshold σ/(σ² + damp²) is less than rounding, cut or not
                inverses[place] = part._by_gram()[0]
            else:
                left.append(part._certified(inverses[place]) + start)
        if left and len(rest := torch.cat(left)):
            self._decompose(inverses, rest)
        return inverses

    def _certified(self, inverses: Tensor) -> Tensor:
        """Fill in what certainly has no singular value at or below the threshold; return the indices of the others."""
        rows, columns = self.matrices.shape[-2:]
        if rows == columns and self.damp == 0.0:
            found, info = torch.linalg.inv_ex(self.matrices)
            sure = (info == 0) & (_norms(found) * self.threshold < 1.0)
        else:
            found, inner = self._by_gram()
            size = _norms(inner)
            sure = ((self.norms.square() + self.damp**2) * size < WELL_CONDITIONED) & self._is_above(size)
        inverses.copy_(found)
        rest = (~sure).nonzero().flatten()
        if len(rest) and self.matrices.dtype in (torch.float32, torch.complex64):
            rest = self._in_double(inverses, rest)
        return rest

    def _in_double(self, inverses: Tensor, rest: Tensor) -> Tensor:
        """Put in what double precision can certify; return what is left."""
        wide = torch.complex128 if self.matrices.is_complex() else torch.float64
        part = replace(self, matrices=self.matrices[rest].to(wide), norms=self.norms[rest].double())
        # The certificate without damping, which would hide what is small.
        plain = replace(part, damp=0.0)
        found, inner = plain._by_gram()
        size = _norms(inner)
        sure = (part.norms.square() * size < WELL_CONDITIONED_IN_DOUBLE) & plain._is_above(size)
        if self.damp:
            found = part._by_gram()[0]
        inverses[rest[sure]] = found[sure].to(inverses.dtype)
        return rest[~sure]

    def _decompose(self, inverses: Tensor, rest: Tensor) -> None:
        """Put in what only singular values can tell."""
        left, values, right = spectrum.decomposed(self.matrices[rest])
        largest = torch.maximum(values.max(), self._largest(rest))
        regularization = Regularization(self.damp, 0.0, self.rtol, True)
        inverses[rest] = (right.mH * regularization.invert(values, largest).unsqueeze(-2)) @ left.mH

    def _largest(self, known: Tensor) -> Tensor:
        """Largest singular value of all matrices but those that are known: of the few that may hold it."""
        others = torch.ones(len(self.matrices), dtype=torch.bool, device=self.matrices.device)
        others[known] = False
        # At unit scale: the eighth power of 1e-4 would vanish in float32, and that of 1e5 overflow.
        matrices = self.matrices[others] / self.bound
        best = self.matrices.real.new_zeros(())
        if not len(matrices):
            return best
        gram = matrices.mH @ matrices
        for _ in range(2):
            gram = gram @ gram
        # ‖(KᴴK)⁴‖ is at least σ₁⁸, and seldom much more.
        bounds, order = (_norms(gram) ** 0.125).sort(descending=True)
        step, start = 32, 0
        while start < len(order) and bool(bounds[start] * MARGIN > best):
            best = torch.maximum(best, torch.linalg.svdvals(matrices[order[start : start + step]]).max())
            start += step
        return best * self.bound

    def _is_above(self, size: Tensor) -> Tensor:
        """Whether every singular value is surely above the threshold, given the norm of the Gram matrix's inverse."""
        return 1.0 / size > MARGIN * self.damp**2 + self.threshold**2

    def _by_gram(self) -> tuple[Tensor, Tensor]:
        """``(KᴴK + damp²)⁻¹Kᴴ`` by the smaller side, and the inverse in it: NaN where that failed."""
        rows, columns = self.matrices.shape[-2:]
        # A conjugate transpose that is laid out as such: products with a transposed view take three times as long.
        adjoint = _adjoint(self.matrices)
        gram = _products(self.matrices, adjoint) if rows <= columns else _products(adjoint, self.matrices)
        gram.diagonal(dim1=-2, dim2=-1).add_(self.damp**2)
        inverse = _positive_inverse(gram)
        return adjoint @ inverse if rows <= columns else inverse @ adjoint, inverse


def _norms(matrices: Tensor) -> Tensor:
    """Frobenius norm of each matrix of unit scale (F, m, n) → (F,)."""
    flat = matrices.flatten(1)
    return torch.linalg.vector_norm(torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat, dim=1)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """A Hermitian product, of which the lower left quarter is nobody's to read."""
    side = left.shape[1]
    if side <= SIDE_OF_LAPACK:
        return left @ right
    half = side // 2
    gram = left.new_empty(len(left), side, side)
    gram[:, :half] = left[:, :half] @ right
    gram[:, half:, half:] = left[:, half:] @ right[:, :, half:]
    return gram


def _adjoint(matrices: Tensor) -> Tensor:
    transposed = matrices.mT.contiguous()
    return transposed.conj_physical_() if transposed.is_complex() else transposed


def _positive_inverse(gram: Tensor) -> Tensor:
    """Inverse of each Hermitian positive definite matrix (F, s, s) of :func:`_products`; NaN where one is not."""
    side = gram.shape[-1]
    if side <= SIDE_OF_LAPACK:
        factor, info = torch.linalg.cholesky_ex(gram)
        failed = (info != 0)[:, None]
        factor.diagonal(dim1=-2, dim2=-1).masked_fill_(failed, 1.0)  # torch.cholesky_inverse raises on a zero
        return torch.cholesky_inverse(factor).masked_fill_(failed[..., None], torch.nan)
    # By the Schur complement of the first half (Golub and Van Loan, Matrix Computations, 4th ed., section 3.2.11).
    half = side // 2
    first = _positive_inverse(gram[:, :half, :half].contiguous())
    corner = gram[:, :half, half:].contiguous()
    across = first @ corner
    adjoint = _adjoint(across)
    second = _positive_inverse(gram[:, half:, half:] - _adjoint(corner) @ across)
    whole = torch.empty_like(gram)
    outer = across @ second
    whole[:, :half, :half] = torch.baddbmm(first, outer, adjoint)
    whole[:, :half, half:] = outer.neg_()
    whole[:, half:, :half] = outer.mH
    whole[:, half:, half:] = second
    return whole
