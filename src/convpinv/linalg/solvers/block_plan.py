"""Whether a pseudo-inverse reaches so little far that blocks of the picture can be solved each by itself, and which.

The response of ``A⁺`` on a circular picture is cut off at a halo h. By Young's inequality that changes the answer by
at most ``Σ |r| outside · ‖y‖``, so the sum outside, relative to the norm of ``A⁺``, is the certificate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.precision import double_of
from convpinv.linalg.response import halo_within, sums_outside
from convpinv.linalg.solvers.base import Problem, UnsuitableError
from convpinv.linalg.spectrum import Regularization

# Sides of blocks: on two cores (1 MB of second-level and 32 MB of third-level cache) the round trip of a block costs
# 3.3 to 4 ns a pixel from 384² to 1536², 11 ns that of 4096² and 8192². Powers of two beyond 256 collide in the cache,
# and those with a factor of seven take a fifth longer.
BLOCK_SIDES = (16, 24, 32, 48, 64, 96, 128, 160, 192, 240, 256, 320, 384, 480, 576, 640, 768, 960, 1152)
LARGEST_BLOCK = BLOCK_SIDES[-1]
SMALLEST_PICTURE = 16
LARGEST_HALO = 256
# With 168 pixels the largest block transforms two pixels for one; to look no farther keeps the grid at 512².
AUTOMATIC_HALO = 128
# What the cut may leave out, relative to the norm of the pseudo-inverse. In single precision it is the rounding of the
# whole picture's transform. In double the sum itself is known to 1e-13 only, for each pixel of the response rounds.
SINGLE_TOLERANCE = 1e-6
DOUBLE_TOLERANCE = 1e-12
# Pixels from which on the automatic choice takes blocks: below, the whole picture's transform stays in the cache.
LEAST_PIXELS = 3600**2
# The same where a side has a prime factor that no fast transform knows: such a picture takes 3 to 5 times as long.
LEAST_PIXELS_AWKWARD = 2**19
LARGEST_FAST_PRIME = 23
# Pixels transformed for each pixel of the picture: with 1.7 to 2.0 blocks took 0.8 to 0.9 round trips of the picture.
MOST_WORK = 2.0
# Each block is a handful of parallel steps, and cores that are busy otherwise are waited for at each: among blocks that
# transform about as much the larger ones are taken.
STEPS_AS_PIXELS = 64


@dataclass(frozen=True)
class BlockPlan:
    """How a picture is cut up.

    Attributes
    ----------
    halo : int
        Pixels around each part that the pseudo-inverse looks at.
    left_out : float
        Sum of the response beyond the halo, relative to the norm of the pseudo-inverse.
    block : tuple of int
        Sides of a block, halo included.
    counts : tuple of int
        Blocks along the rows' axis and the columns'.
    response : Tensor
        The response on a grid at least four times as wide as the halo, in double precision: (G, n, m, size, size).
    """

    halo: int
    left_out: float
    block: tuple[int, int]
    counts: tuple[int, int]
    response: Tensor

    def work(self, size: tuple[int, int]) -> float:
        """Pixels transformed for each pixel of a picture."""
        transformed = (count * side / whole for count, side, whole in zip(self.counts, self.block, size, strict=True))
        return math.prod(transformed)


def why_no_blocks(problem: Problem) -> str | None:
    """Say what in the shape, not in the numbers, keeps a picture from being cut into blocks; None where it can be."""
    geometry = problem.operator.geometry
    reason = structure.why_not_circular(problem.operator)
    if reason is not None:
        return reason
    if geometry.stride != (1, 1):
        return "the stride is not 1"
    shorter = min(axis.size for axis in geometry.axes)
    if shorter < SMALLEST_PICTURE:
        return f"a side of {shorter} pixels, under the {SMALLEST_PICTURE} of the smallest block"
    if max(axis.reach for axis in geometry.axes) >= LARGEST_HALO:
        return f"the kernel is longer than {LARGEST_HALO} pixels"
    regularization = problem.regularization
    if regularization.damp and not regularization.is_default_cut:
        return "damp meets a threshold of your own, at which the inverse singular values jump: the response has no end"
    return None


def plan_blocks(problem: Problem, farthest: int = LARGEST_HALO) -> BlockPlan:
    """Find the halo and the blocks; raise :class:`UnsuitableError` where the response goes on too far."""
    geometry = problem.operator.geometry
    size = geometry.rows.size, geometry.columns.size
    limit = DOUBLE_TOLERANCE if problem.operator.dtype == double_of(problem.operator.dtype) else SINGLE_TOLERANCE
    responses: list[Tensor] = []

    def sums(grid: int) -> Tensor:
        response, norms = _response(problem, grid)
        responses[:] = [response]
        return _relative_sums(response, norms)

    support = 1 + max(axis.reach for axis in geometry.axes)
    # A response as wide as the picture leaves nothing to cut up.
    halo, left_out = halo_within(sums, support, limit, min(farthest, (min(size) - 1) // 2))
    if left_out > limit:
        raise UnsuitableError(
            f"{left_out:.0e} of the response lies more than {halo} pixels away, over the limit of {limit:.0e}"
        )
    response = responses[0]
    _check_threshold(problem, response)
    channels = max(response.shape[1:3])
    largest = max(LARGEST_BLOCK / math.sqrt(channels), min(LARGEST_BLOCK, max(64, 4 * halo)))
    rows, columns = (_best_side(pixels, halo, largest) for pixels in size)
    counts = (-(-size[0] // (rows - 2 * halo)), -(-size[1] // (columns - 2 * halo)))
    return BlockPlan(halo, left_out, (rows, columns), counts, response)


def could_pay(operator: Convolution) -> bool:
    """Whether a picture is large or awkward enough for blocks to be faster, its kernel apart."""
    size = operator.geometry.rows.size, operator.geometry.columns.size
    pixels = size[0] * size[1]
    # In double precision the cut would show, on other devices nothing was measured.
    if pixels < LEAST_PIXELS_AWKWARD or operator.device.type != "cpu" or operator.dtype == double_of(operator.dtype):
        return False
    return pixels >= LEAST_PIXELS or max(map(_largest_prime, size)) > LARGEST_FAST_PRIME


def plan_that_pays(problem: Problem) -> BlockPlan | None:
    """Return the blocks if they are faster than the transform of the whole picture and as exact, else None.

    Asks for numbers only where the picture is so large that they cost little beside it.
    """
    size = problem.operator.geometry.rows.size, problem.operator.geometry.columns.size
    if torch.compiler.is_compiling() or not could_pay(problem.operator):
        return None
    if why_no_blocks(problem) is not None:
        return None
    try:
        plan = plan_blocks(problem, AUTOMATIC_HALO)
    except UnsuitableError:
        return None
    return plan if plan.work(size) <= MOST_WORK else None


def _response(problem: Problem, grid: int) -> tuple[Tensor, Tensor]:
    """Response of the pseudo-inverse on a periodic grid in double precision, nothing cut; the norm of each group."""
    operator, damp = problem.operator, problem.regularization.damp
    weight = operator.weight.to(double_of(operator.dtype))
    matrices = spectrum.matrices_of(spectrum.symbol(weight, operator.geometry, (grid, grid)))
    if damp:
        bound = float(spectrum.frobenius_norms(matrices).max())
        if damp < spectrum.CHOLESKY_DAMP * bound:
            raise UnsuitableError(
                f"damp is below {spectrum.CHOLESKY_DAMP:g} of the largest singular value, where the rank threshold "
                "shows: the response has no end"
            )
    inverse = spectrum.invert_matrices(matrices, Regularization(damp, 0.0, 0.0, is_default_cut=True))
    groups, _, inputs, outputs = inverse.shape
    # The Frobenius norm of a matrix of rank k is at most √k times the spectral norm.
    norms = spectrum.frobenius_norms(inverse).amax((1, 2, 3)) / math.sqrt(min(inputs, outputs))
    transformed = inverse.permute(0, 2, 3, 1).reshape(groups, inputs, outputs, grid, -1)
    return spectrum.inverse_transform(transformed, (grid, grid), operator.dtype.is_complex), norms


def _relative_sums(response: Tensor, norms: Tensor) -> Tensor:
    """Sums outside each halo, each group relative to the norm of its own pseudo-inverse; the largest of the groups."""
    sums = [
        sums_outside(magnitudes) / (norm if norm > 0 else 1.0)
        for magnitudes, norm in zip(_magnitudes(response), norms, strict=True)
    ]
    return torch.stack(sums).amax(0)


def _magnitudes(response: Tensor) -> Tensor:
    """Frobenius norm of the matrix (n, m) at each place: (G, size, size). It is no less than the spectral norm."""
    return spectrum.frobenius_norms(response.permute(0, 3, 4, 1, 2))[..., 0, 0]


def _check_threshold(problem: Problem, response: Tensor) -> None:
    """Raise where the rank threshold may cut: undamped, no singular value of A lies below 1/Σ|r|."""
    if problem.regularization.damp:
        return
    largest = problem.operator.weight.to(response.dtype).abs().sum((2, 3)).square().sum().sqrt()
    total = _magnitudes(response).sum((1, 2)).max()
    if not bool(total * problem.regularization.threshold(largest) < 1.0):
        raise UnsuitableError("singular values may lie below the rank threshold: the response has no end")


def _best_side(pixels: int, halo: int, largest: float) -> int:
    """Return the side of the blocks that cost least: they transform few pixels, and are few."""
    sides = [side for side in BLOCK_SIDES if 2 * halo < side <= largest]
    return min(sides, key=lambda side: -(-pixels // (side - 2 * halo)) * (side + STEPS_AS_PIXELS))


def _largest_prime(number: int) -> int:
    """Largest prime factor."""
    factor, largest = 2, 1
    while factor * factor <= number:
        while number % factor == 0:
            number, largest = number // factor, factor
        factor += 1
    return max(largest, number)
