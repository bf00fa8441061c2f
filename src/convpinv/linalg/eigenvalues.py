"""The largest eigenvalues of a Hermitian positive semi-definite map, by a restarted block method with a stated error.

Block Davidson (Davidson 1975; Stathopoulos and Saad 1998): the basis grows by the residuals of the leading Ritz pairs,
preconditioned where a preconditioner is given. Without one the basis is that of block Lanczos with full
reorthogonalisation, and the restart, which keeps the leading Ritz vectors, is the thick restart of Wu and Simon (2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv import arguments

# Residuals below this part of the largest eigenvalue are rounding of the map itself, not of the iteration.
ROUNDING = 1e-13
# Vectors beyond those asked for: they keep the gap to what is not sought wide, and so the convergence fast.
GUARD = 4
# Vectors by which the basis grows at once, at most.
BLOCK = 8
# Directions of a block whose share of its Gram matrix is below this are rounding of the others.
DEPENDENT = 1e-12


@dataclass(frozen=True)
class HermitianMap:
    """A Hermitian positive semi-definite map on vectors of ``size`` entries, rows of a batch (B, size).

    ``precondition`` is a positive definite approximation of ``(μ − map)⁻¹`` for a μ just above ``bulk``, the largest
    value of the bulk of the spectrum. Ritz vectors above the bulk belong to the border of the picture, of which the
    preconditioner knows nothing: they are iterated on without (measured at 192² with replicating padding: 50 steps
    against 331 with it; below the bulk, with zero padding, 280 steps without and 43 with).
    """

    multiply: Callable[[Tensor], Tensor]
    size: int
    dtype: torch.dtype
    device: torch.device
    precondition: Callable[[Tensor], Tensor] | None = None
    bulk: float = 0.0


@dataclass(frozen=True)
class Eigenpairs:
    """Leading Ritz pairs: values (k,) largest first, orthonormal vectors (k, size), residual norms (k,)."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    iterations: int
    is_converged: bool


def largest_eigenpairs(
    problem: HermitianMap, count: int, tolerance: float, max_iterations: int, seed: int = 0
) -> Eigenpairs:
    r"""Largest eigenpairs, each residual at most ``2·max(tolerance·θ, 1e-13·θ₁)``, multiple eigenvalues included.

    For every Ritz value θ with residual r there is an eigenvalue within r of it (Parlett, *The Symmetric Eigenvalue
    Problem*, theorem 4.5.1). The start has more random vectors than pairs are sought, and so room for every copy of a
    multiple eigenvalue. That none was missed all the same is checked by a second iteration from a fresh random start in
    the complement of what was found: what it finds above the last value joins the basis, and the first iteration goes
    on. A random start has a part in every eigenspace with probability one.
    """
    count = min(count, problem.size)
    generator = torch.Generator().manual_seed(seed)
    start = _random(problem, min(problem.size, count + GUARD), generator)
    used = 0
    while True:
        found = _iterate(problem, start, None, count, tolerance, max_iterations - used, 0.0)
        used += found.iterations
        if not found.is_converged or count == problem.size:
            return Eigenpairs(found.values, found.vectors, found.residuals, used, found.is_converged)
        fresh = _random(problem, min(problem.size - count, GUARD), generator)
        # Half the digits of the answer are enough to tell a value that is larger from one that is not.
        scale = float(found.values[0])
        missed = _iterate(problem, fresh, found.vectors, 1, max(tolerance, 1e-6), max_iterations - used, scale)
        used += missed.iterations
        bound = found.values[-1] + found.residuals[-1] + _allowed(found.values, tolerance, scale)[-1]
        if not bool(missed.values[0] - missed.residuals[0] > bound):
            return Eigenpairs(found.values, found.vectors, found.residuals, used, missed.is_converged)
        start = torch.cat([found.vectors, missed.vectors, _random(problem, GUARD, generator)])


def _iterate(
    problem: HermitianMap,
    start: Tensor,
    deflated: Tensor | None,
    count: int,
    tolerance: float,
    max_iterations: int,
    scale: float,
) -> Eigenpairs:
    """Run until ``count`` leading pairs have converged, in the complement of ``deflated`` where that is given.

    ``scale`` is the largest eigenvalue as far as it is known: what rounding is measured by.
    """
    wanted = min(problem.size - (0 if deflated is None else len(deflated)), count + GUARD)
    largest_basis = min(problem.size, max(4 * wanted, wanted + 48))
    basis = _orthonormal(start, deflated)
    image = _image(problem, basis, deflated)
    iteration = 0
    while True:
        iteration += 1
        values, rotation = torch.linalg.eigh(_inner(basis, image))
        values, rotation = values.flip(0).clamp(min=0.0), rotation.flip(1)
        leading = min(wanted, len(basis))
        ritz, ritz_image = rotation[:, :leading].mT @ basis, rotation[:, :leading].mT @ image
        remainder = ritz_image - values[:leading, None] * ritz
        residuals = torch.linalg.vector_norm(remainder, dim=1)
        open_ones = residuals > _allowed(values[:leading], tolerance, scale)
        done = not bool(open_ones[:count].any()) and leading >= count
        if done or iteration >= max_iterations or len(basis) == problem.size:
            return _verified(problem, ritz[:count], deflated, tolerance, iteration, scale)
        if len(basis) + BLOCK > largest_basis:
            kept = min(len(basis), wanted + wanted // 2 + BLOCK)
            basis, image = rotation[:, :kept].mT @ basis, rotation[:, :kept].mT @ image
        # The first open pairs in order: guard vectors join only where the wanted ones leave room.
        chosen = torch.nonzero(open_ones).flatten()[:BLOCK]
        directions = remainder[chosen] / residuals[chosen, None]
        in_bulk = values[chosen] <= problem.bulk
        if problem.precondition is not None and bool(in_bulk.any()):
            directions = torch.cat([directions[~in_bulk], problem.precondition(directions[in_bulk])])
        fresh = _orthonormal(directions, deflated, basis)
        if len(fresh) == 0:  # the basis is invariant to rounding: nothing can be won along the residuals
            return _verified(problem, ritz[:count], deflated, tolerance, iteration, scale)
        basis = torch.cat([basis, fresh])
        image = torch.cat([image, _image(problem, fresh, deflated)])


def _verified(
    problem: HermitianMap, vectors: Tensor, deflated: Tensor | None, tolerance: float, iterations: int, scale: float
) -> Eigenpairs:
    """Ritz pairs of the span of these vectors, image and residuals computed anew: restarts let the kept ones drift."""
    basis = torch.linalg.qr(vectors.mT)[0].mT
    image = _image(problem, basis, deflated)
    values, rotation = torch.linalg.eigh(_inner(basis, image))
    values, rotation = values.flip(0).clamp(min=0.0), rotation.flip(1)
    ritz = rotation.mT @ basis
    residuals = torch.linalg.vector_norm(rotation.mT @ image - values[:, None] * ritz, dim=1)
    converged = bool((residuals <= 2.0 * _allowed(values, tolerance, scale)).all())
    return Eigenpairs(values, ritz, residuals, iterations, converged)


def _allowed(values: Tensor, tolerance: float, scale: float) -> Tensor:
    return torch.clamp(tolerance * values, min=ROUNDING * max(float(values[0]), scale))


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Gram matrix of two bases, its Hermitian part."""
    product = left.conj() @ right.mT
    return 0.5 * (product + product.mH)


def _image(problem: HermitianMap, basis: Tensor, deflated: Tensor | None) -> Tensor:
    return _without(problem.multiply(basis), deflated)


def _without(vectors: Tensor, basis: Tensor | None) -> Tensor:
    """Subtract the part in the span of an orthonormal basis."""
    return vectors if basis is None else vectors - (vectors @ basis.mH) @ basis


def _orthonormal(vectors: Tensor, deflated: Tensor | None, basis: Tensor | None = None) -> Tensor:
    """Orthonormal rows that span what the vectors have beyond both bases.

    By the Gram matrix of the block, which is short and wide; twice is enough (Kahan; Parlett, section 6.9).
    """
    for _ in range(2):
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        vectors = vectors[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0]
        if len(vectors) == 0:
            return vectors
        vectors = _without(_without(vectors, deflated), basis)
        values, rotation = torch.linalg.eigh(_inner(vectors, vectors))
        kept = values > DEPENDENT
        vectors = (rotation[:, kept].mT @ vectors) / values[kept].sqrt()[:, None]
    return vectors


def _random(problem: HermitianMap, count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, problem.size, generator=generator, dtype=problem.dtype).to(problem.device)


def fail_unconverged(call: str, pairs: Eigenpairs, remedy: str) -> None:
    """Raise where an iteration ended before its tolerance."""
    if not pairs.is_converged:
        worst = float((pairs.residuals / pairs.values.clamp(min=torch.finfo(pairs.values.dtype).tiny)).max())
        raise arguments.ConvergenceError(
            f"{call}: the iteration stopped after {pairs.iterations} steps at a relative residual of {worst:.1e}; "
            f"{remedy}"
        )
