"""Kernel → symbol per frequency; the rank threshold and the inverse of a singular value; FFT-friendly sizes.

Each number that decides what counts as zero is defined here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.polyphase import coarse_kernel

# Where damp ≥ CHOLESKY_DAMP·σ₁, a Cholesky factor of the Gram matrix loses at most ε·(σ₁/damp)² ≤ 100·ε·(σ₁/damp):
# as good as the singular value decomposition within the bound that this package promises, and several times faster.
CHOLESKY_DAMP = 1e-2
# Largest magnitude of kernel and damping whose squares need no rescaling, and the reciprocal of the smallest: what is
# kept is at least 1e-6 of σ₁, and the squares of 2⁻³⁰·1e-6 are within float32.
MODERATE = 2.0**30
# Up to this many taps the matrices of all frequencies come from one product with the taps: no FFT, and no copy into the
# layout that one matrix a frequency needs.
MOST_TAPS = 32
# Entries of a table of waves that is remembered. Each of the two memories holds 16 pairs of them: 16 MB at most in
# single precision, for kernels of many rows on large grids.
LARGEST_REMEMBERED = 2**17
MOST_REMEMBERED = 16


def default_rtol(dtype: torch.dtype, input_size: tuple[int, int]) -> float:
    """Relative rank threshold where none is given: ``4·ε·log2(H·W)``.

    An FFT of N points rounds by about ε·log2(N), not by ε·N: torch's own ``max(m, n)·ε`` would drop 63 % of the
    frequencies of a 4×4 box in float32 at 1024², all of which are known to several digits.
    """
    return 4.0 * torch.finfo(dtype).eps * max(1.0, math.log2(input_size[0] * input_size[1]))


@dataclass(frozen=True)
class Regularization:
    """What stands between a singular value σ and 1/σ: the damping and the rank threshold.

    ``damp`` as in LSQR (minimise ‖Ax − y‖² + damp²‖x‖²); singular values at or below ``max(atol, rtol·σ₁)``, with σ₁
    the largest of the whole operator, count as zero.
    """

    damp: float
    atol: float
    rtol: float
    is_default_cut: bool

    @classmethod
    def resolve(
        cls, damp: float, atol: float | None, rtol: float | None, dtype: torch.dtype, input_size: tuple[int, int]
    ) -> Regularization:
        """Fill in the defaults: torch's rule for ``atol`` and ``rtol``.

        The default threshold stands with damping too. Singular values below it are rounding; without it a kernel of
        deficient rank in float32 came out 490 % wrong at damp = 1e-4·σ₁, as ε·(σ₁/damp)² says.
        """
        default = 0.0 if atol else default_rtol(dtype, input_size)
        return cls(
            damp=damp,
            atol=atol or 0.0,
            rtol=default if rtol is None else rtol,
            is_default_cut=not atol and (rtol is None or (damp > 0.0 and rtol == 0.0)),
        )

    def threshold(self, largest: Tensor) -> Tensor:
        """Value at or below which a singular value counts as zero."""
        # torch refuses bounds beyond the dtype, where an infinite one says the same.
        atol = self.atol if self.atol <= torch.finfo(largest.dtype).max else math.inf
        return torch.clamp(self.rtol * largest, min=atol)

    def invert(self, values: Tensor, largest: Tensor) -> Tensor:
        """σ → σ/(σ² + damp²) above the threshold, 0 at and below it."""
        kept = ~self.is_cut(values, largest)
        safe = torch.where(kept, values, torch.ones_like(values))
        # 1/(σ + damp·(damp/σ)) rather than σ/(σ² + damp²): squares of σ = 1e-30 would vanish in float32.
        return torch.where(kept, 1.0 / (safe + self.damp * (self.damp / safe)), torch.zeros_like(values))

    def is_cut(self, values: Tensor, largest: Tensor) -> Tensor:
        """Mark the singular values that count as zero."""
        return values <= self.threshold(largest)

    def __str__(self) -> str:
        parts = []
        if self.damp:
            parts.append(f"damp {self.damp:.3g}")
        if (self.atol or self.rtol) and not (self.damp and self.is_default_cut):
            words = [f"rtol {self.rtol:.3g}"] if self.rtol else []
            words += [f"atol {self.atol:.3g}"] if self.atol else []
            parts.append("singular values cut at " + ", ".join(words))
        return "; ".join(parts) or "none"


# See :func:`fast_size`.
FARTHEST = 32


def fast_size(size: int) -> int:
    """Even number of at least ``size`` (and at least 2) that costs least: products of 2, 3, 5, 7 and one 11 or 13.

    FFT libraries have kernels for these primes (FFTW's manual names the same products). On two threads a round trip
    took 5.3 ns a pixel at 1056² = (2⁵·3·11)² and 5.0 at 1040² = (2⁴·5·13)², 4.9 at 1024² and 5.7 at 1080².

    A side that is not a multiple of 8 makes a transform slower than a somewhat longer one that is: measured from 250²
    to 2250² on two cores, a pixel took 3.0 to 3.4 ns where 8 divides the sides, 3.5 to 3.9 where 4 does and 4.2 to 4.5
    where only 2 does. What else is done to a picture is counted in, so that the weights are less than that.
    """
    best, least, last = 0, math.inf, math.inf
    candidate = max(2, size + size % 2)
    while candidate < min(least, last):
        if _largest_cofactor(candidate) in (1, 11, 13):
            last = min(last, candidate + FARTHEST)
            cost = candidate * (1.0 if candidate % 8 == 0 else 1.05 if candidate % 4 == 0 else 1.1)
            if cost < least:
                best, least = candidate, cost
        candidate += 2
    return best


def _largest_cofactor(number: int) -> int:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number


def binary_scale(largest: float) -> float:
    """Power of two by which values of this size come to lie between ½ and 1, without rounding; 1 for zero.

    Both ends keep the scale and its reciprocal finite: some digits are lost of kernels that have hardly any.
    """
    exponent = math.frexp(largest)[1] if largest > 0.0 and math.isfinite(largest) else 0
    return 2.0 ** min(max(exponent, -1021), 1023)


def transform(image: Tensor) -> Tensor:
    """Discrete Fourier transform over the last two axes, half of it where the image is real."""
    return torch.fft.fft2(image) if image.is_complex() else torch.fft.rfft2(image)


def inverse_transform(spectrum: Tensor, size: tuple[int, int], is_complex: bool) -> Tensor:
    """Inverse of :func:`transform` for an image of the given size."""
    if is_complex:
        return torch.fft.ifft2(spectrum, s=size)
    return torch.fft.irfft2(spectrum, s=size)


def symbol(weight: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    """Matrix-valued symbol of a convolution on a coarse periodic grid: (G, Cout/G, Cin/G·s_h·s_w, frequencies).

    ``K(w) = Σ_q k_q exp(+i w·q)``: multiply the transform of the polyphase picture by it and transform back.
    """
    return transform(coarse_kernel(weight, geometry, grid))


def waves(axis: Axis, grid: int, count: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``w·q`` for the first frequencies of a grid and each tap, offset q: (count, taps) each."""
    places = torch.arange(axis.taps, device=device) * axis.dilation - axis.before
    turns = torch.outer(torch.arange(count, device=device), places) % grid
    angles = turns.to(torch.float64) * (2.0 * math.pi / grid)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def may_remember(like: Tensor, entries: int) -> bool:
    """Whether a table for calls with such a tensor may be kept: it is small, and holds numbers for whoever meets it.

    For a picture of 256² making the waves of a kernel is a sixth of a round trip.
    """
    # A graph, or a mode that traces without numbers, would leave its own kind of tensor behind.
    is_plain = type(like) is Tensor and not torch.compiler.is_compiling()
    # On an accelerator the first of its kind may be recorded into a graph, not computed.
    return is_plain and like.device.type == "cpu" and entries <= LARGEST_REMEMBERED


@contextmanager
def out_of_modes() -> Iterator[None]:
    """Make what is remembered: what inference mode makes could not be met outside it."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@lru_cache(maxsize=MOST_REMEMBERED)
def _remembered_phases(*args: Any) -> tuple[Tensor, Tensor]:
    with out_of_modes():
        return waves(*args)


def _phases(axis: Axis, grid: int, count: int, weight: Tensor) -> tuple[Tensor, Tensor]:
    make = _remembered_phases if may_remember(weight, count * axis.taps) else waves
    return make(axis, grid, count, weight.real.dtype, weight.device)


def products_are_exact(tensor: Tensor) -> bool:
    """Whether products of matrices keep single precision: TF32 and its like leave 1e-3, which an inverse magnifies."""
    if tensor.dtype in (torch.float64, torch.complex128):
        return True
    # A graph of torch.compile cannot ask.
    return not torch.compiler.is_compiling() and torch.get_float32_matmul_precision() == "highest"


def matrices(weight: Tensor, geometry: Geometry, grid: tuple[int, int]) -> Tensor:
    """Symbol with one matrix a frequency: (G, F_h·F_w, Cout/G, Cin/G·s_h·s_w)."""
    taps = weight.shape[2] * weight.shape[3]
    if geometry.stride != (1, 1) or taps > MOST_TAPS or not products_are_exact(weight):
        return matrices_of(symbol(weight, geometry, grid))
    groups, inputs = geometry.groups, weight.shape[1]
    counts = grid[0], grid[1] if weight.is_complex() else grid[1] // 2 + 1
    rows, columns = (
        torch.complex(*_phases(axis, points, count, weight))
        for axis, points, count in zip(geometry.axes, grid, counts, strict=True)
    )
    phases = (rows[:, None, :, None] * columns[None, :, None, :]).reshape(-1, taps)
    table = weight.reshape(groups, -1, taps).mT.to(phases.dtype)
    return (phases @ table).unflatten(-1, (-1, inputs))


def singular_values(matrices: Tensor) -> Tensor:
    """Singular values of a stack of matrices (..., m, n), largest first; a norm where one side is 1."""
    if min(matrices.shape[-2:]) == 1:
        return frobenius_norms(matrices).flatten(-2)
    return torch.linalg.svdvals(matrices)


def largest_of_kernels(values: Tensor, kernels: int) -> Tensor:
    """Largest of values (G, ...) ≥ 0 for each of the kernels that share out the groups, shaped to meet the values."""
    if kernels == 1:
        return values.max()
    largest = values.reshape(kernels, -1).amax(1).repeat_interleave(len(values) // kernels)
    return largest.reshape(-1, *[1] * (values.ndim - 1))


def frobenius_norms(matrices: Tensor, kernels: int = 1) -> Tensor:
    """Frobenius norm of each matrix of a stack (..., m, n) → (..., 1, 1), safe for entries of any scale."""
    magnitudes = matrices.abs()
    scale = largest_of_kernels(magnitudes, kernels)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    # By hand: torch.linalg.vector_norm over axes this short runs some twenty times slower.
    return (magnitudes / scale).square_().sum((-2, -1), keepdim=True).sqrt_() * scale


def decomposed(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, σ and Vᴴ of matrices (..., m, n), as many as the shorter side.

    LAPACK's gesdd gives up on some matrices of repeated singular values, well-conditioned ones too (one in 800 rows of
    taps with several channels on small pictures, where each value comes as often as the picture has rows). What defeats
    it in A does not in Aᴴ.
    """
    try:
        return torch.linalg.svd(matrices, full_matrices=False)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        right, values, left = torch.linalg.svd(matrices.mH, full_matrices=False)
        return left.mH, values, right.mH


def invert_matrices(matrices: Tensor, regularization: Regularization, kernels: int = 1) -> Tensor:
    """Pseudo-inverse of each matrix of a stack (G, ..., m, n) → (G, ..., n, m), with a threshold for each kernel."""
    rows, columns = matrices.shape[-2:]
    if min(rows, columns) == 1:
        norms = frobenius_norms(matrices, kernels)
        inverses = regularization.invert(norms, largest_of_kernels(norms, kernels))
        # k ᴴ/‖k‖ first, then 1/‖k‖: neither can overflow before the product does.
        direction = matrices.mH / torch.where(norms > 0, norms, torch.ones_like(norms))
        return direction * inverses
    # A graph of torch.compile cannot branch on the bound: there the decomposition serves every damping.
    branches = regularization.is_default_cut and regularization.damp > 0.0 and not torch.compiler.is_compiling()
    bound = float(frobenius_norms(matrices).max()) if branches else 0.0
    # Below the default threshold σ/(σ² + damp²) is less than rounding here, so that cutting or not is the same.
    if bound > 0.0 and regularization.damp >= CHOLESKY_DAMP * bound:
        # At unit scale: the squares in a Gram matrix of 1e-25 or 1e30 would leave float32's range.
        return _damped_inverse(matrices / bound, regularization.damp / bound) / bound
    left, values, right = decomposed(matrices)
    inverses = regularization.invert(values, largest_of_kernels(values, kernels))
    return (right.mH * inverses.unsqueeze(-2)) @ left.mH


def _damped_inverse(matrices: Tensor, damp: float) -> Tensor:
    """``(KᴴK + damp²I)⁻¹Kᴴ``, by a Cholesky factor on the smaller side."""
    rows, columns = matrices.shape[-2:]
    if rows <= columns:
        return torch.cholesky_solve(matrices, cholesky_gram(matrices.mH, damp)).mH
    return torch.cholesky_solve(matrices.mH, cholesky_gram(matrices, damp))


def cholesky_gram(matrices: Tensor, damp: float) -> Tensor:
    """Cholesky factor of ``KᴴK + damp²I`` for each matrix K of a stack."""
    gram = matrices.mH @ matrices
    gram.diagonal(dim1=-2, dim2=-1).add_(damp**2)
    return torch.linalg.cholesky(gram)


def matrices_of(spectrum: Tensor) -> Tensor:
    """(G, m, n, F_h, F_w) → (G, F_h·F_w, m, n), so that batched linear algebra sees one matrix a frequency."""
    return spectrum.flatten(-2).permute(0, 3, 1, 2)
