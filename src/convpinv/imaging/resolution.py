"""What a restoration can know: how loud it makes the noise, and which details it resolves.

A restoration with a quadratic prior is linear: ``x = R y``. White noise of deviation 1 in the picture becomes noise of
deviation ``√(R Rᵀ)_pp`` at pixel p, and of the true scene ``R A`` is left: where a frequency passes R A with less than
one half, more than half of what stands there was invented (or left out) by the prior.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceError
from convpinv.imaging import observing, psf_parse
from convpinv.imaging.model import UNKNOWN
from convpinv.linalg import fast_size

__all__ = ["Resolution", "resolution"]

PRIORS = ("gradient", "tikhonov", "tv")
BOUNDARIES = (UNKNOWN, str(Boundary.CIRCULAR))
# Directions of the half-response curve, over half a turn.
DIRECTIONS = 180
# Conjugate gradients for the maps: relative residual, and the limit of iterations.
TOLERANCE = 1e-5
ITERATIONS = 2000
# Probes that are solved for together: about 256 MiB of double precision.
PIXELS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Resolution:
    """What :func:`resolution` found; lengths in pixels, frequencies in cycles a pixel, angles as PSFs have them.

    Attributes
    ----------
    prior, strength
        The quadratic prior, "gradient" or "tikhonov", and its weight.
    response
        ``|R K|`` of the shift-invariant restoration (H, W), from 0 to 1, zero frequency in the middle (``fftshift``).
    noise_gain
        Standard deviation of a restored pixel for white noise of deviation 1 in the picture, far from any border.
    cell
        Side of the square that one independent value of the restoration stands for, far from any border:
        ``1 / √mean(|R K|)``; 1 is every pixel by itself.
    angles, half_response
        Directions in degrees, counter-clockwise from horizontal (180,), and the frequency at which the response along
        them first falls under one half; where it never does, the end of the frequency plane.
    noise_gain_map, cell_map
        The same two numbers at every pixel (H, W), with the border and the mask; None where they are the same
        everywhere, or were not asked for.
    """

    prior: str
    strength: float
    response: NDArray[np.float64]
    noise_gain: float
    cell: float
    angles: NDArray[np.float64]
    half_response: NDArray[np.float64]
    noise_gain_map: NDArray[np.float64] | None
    cell_map: NDArray[np.float64] | None

    @property
    def detail(self) -> tuple[float, float]:
        """Width of the finest lines that pass with one half or more, in the best direction and in the worst.

        Half a period, ``1 / (2 f)``; infinite where no frequency passes.
        """
        lengths = 0.5 / np.maximum(self.half_response, 1e-300)
        lengths = np.where(self.half_response > 0, lengths, np.inf)
        return float(lengths.min()), float(lengths.max())


def resolution(
    psf: Any,
    size: Any,
    *,
    strength: float,
    prior: str = "gradient",
    contrast: float | None = None,
    boundary: str = UNKNOWN,
    mask: Any = None,
    maps: bool = True,
    spacing: int = 8,
    seed: int = 0,
) -> Resolution:
    """Say how loud a restoration makes noise, and which details it resolves, over frequencies and over the picture.

    The restoration is ``R = (Aᵀ W A + λ P)⁻¹ Aᵀ W``, as :func:`convpinv.deblur` does with a quadratic prior: A the
    blur, W the mask, ``P = DᵀD`` of the differences ("gradient") or 1 ("tikhonov"). Far from borders its response is
    ``|K|² / (|K|² + λ |P|)`` and its noise gain ``√mean(|K|² / (|K|² + λ |P|)²)``, exact by the spectrum. The maps are
    ``√diag(R Rᵀ)`` and ``1 / √diag(R A)``.

    Parameters
    ----------
    psf
        ``(h, w)`` array or tensor, or a text as :func:`psf.parse` reads; scaled to sum 1.
    size
        Rows and columns of the picture; not smaller than the PSF.
    strength
        The prior's weight, above 0, as in :func:`convpinv.deblur` (whose report tells what it took).
    prior
        ``"gradient"``, ``"tikhonov"``, or ``"tv"``: total variation is not linear, and is replaced by the "gradient"
        prior that pulls as hard at differences of the size ``contrast``: ``λ = strength / contrast``. Stronger edges
        are then resolved better than said, weaker ones worse.
    contrast
        For ``"tv"``: the size of the differences of neighbouring pixels that are asked about, in the picture's units.
    boundary
        ``"unknown"``, or ``"circular"``, where every pixel is like every other.
    mask
        1 or True where a pixel is seen, 0 or False where not, ``(H, W)``; None for all.
    maps
        Whether the maps are computed; they cost by far the most.
    spacing
        Pixels that share a probe lie this far apart, with random signs: what they tell of each other is the error of
        the maps. From the longer side of the picture on, the maps are exact.
    seed
        Of the random signs.

    Returns
    -------
    Resolution
        NumPy arrays, float64.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above.
    ConvergenceError
        If the strength is so small that the maps' linear systems cannot be solved; without maps none are.

    Notes
    -----
    Cost: one FFT; with maps, ``2 · spacing²`` linear systems by preconditioned conjugate gradients of 10 to 200
    iterations and four FFTs each: some seconds for 64 by 64 pixels, so ask for the maps of a small picture; borders are
    alike. The probes are combs (C. Bekas, E. Kokiopoulou, Y. Saad, "An estimator for the diagonal of a matrix", Applied
    Numerical Mathematics 57 (2007)); 8 pixels apart the noise gain scattered by 2 % to 15 % of itself, most where the
    strength is small, the cell by less.

    Assumed: noise that is white and of one strength. The response says what the *linear* restoration keeps; a prior
    that guesses well may show more, and that is invented.

    Source: G. Backus and F. Gilbert, "The resolving power of gross Earth data", Geophysical Journal International 16
    (1968), for the resolution matrix R A and its diagonal.

    Examples
    --------
    >>> from convpinv.imaging import resolution
    >>> found = resolution("gaussian:sigma=2", (64, 64), strength=0.01, maps=False)
    >>> print(f"noise times {found.noise_gain:.2f}, lines down to {found.detail[0]:.1f} pixels")
    noise times 1.29, lines down to 2.9 pixels
    """
    call = "resolution"
    rows, columns = arguments.integer_pair(call, "size", size, 1)
    blank = torch.zeros(rows, columns, dtype=torch.float64)
    pictures = arguments.pictures(call, "size", blank)
    weights = observing.weights(call, pictures, mask)
    kernel, seen = psf_parse.for_pictures(call, psf, pictures)[0], torch.ones_like(blank)
    if weights is not None:
        seen = weights[0].to(torch.float64)
    weight = arguments.positive(call, "strength", strength)
    prior = arguments.choice(call, "prior", prior, PRIORS)
    if prior == "tv":
        if contrast is None:
            arguments.fail(
                call, "contrast", "None", "prior 'tv' needs the size of the differences that are asked about"
            )
        weight, prior = weight / arguments.positive(call, "contrast", contrast), "gradient"
    elif contrast is not None:
        arguments.fail(call, "contrast", contrast, "it is for prior 'tv'; leave it out")
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    seed = arguments.seed(call, "seed", seed)
    apart = arguments.positive_integer(call, "spacing", spacing)

    transfer, penalty = _spectra(kernel, (rows, columns), prior)
    # As in deblur, the strength refers to a PSF scaled to a largest transfer of 1.
    weight = weight * float(transfer.abs().square().amax())
    power = transfer.abs().square()
    response = power / (power + weight * penalty).clamp(min=1e-300)
    gain = math.sqrt(float((power / (power + weight * penalty).clamp(min=1e-300).square()).mean()))
    angles = np.linspace(0.0, 180.0, DIRECTIONS, endpoint=False, dtype=np.float64)
    noise_map = cell_map = None
    if maps and (boundary == UNKNOWN or bool((seen < 1).any())):
        noise_map, cell_map = _maps(kernel, seen, prior, weight, boundary, (apart, seed))
    return Resolution(
        prior=prior,
        strength=weight,
        response=torch.fft.fftshift(response).numpy(),
        noise_gain=gain,
        cell=1 / math.sqrt(max(float(response.mean()), 1e-300)),
        angles=angles,
        half_response=_half_response(kernel, angles, prior, weight),
        noise_gain_map=noise_map,
        cell_map=cell_map,
    )


def _spectra(kernel: Tensor, grid: tuple[int, int], prior: str) -> tuple[Tensor, Tensor]:
    """Return K and |P| at all frequencies of a grid; K with its centre at the origin."""
    height, width = kernel.shape
    padded = kernel.new_zeros(grid)
    padded[:height, :width] = kernel
    transfer = torch.fft.fft2(torch.roll(padded, (-(height // 2), -(width // 2)), (0, 1)))
    down, right = (torch.fft.fftfreq(n, dtype=torch.float64) for n in grid)
    return transfer, _penalty(down[:, None], right, prior)


def _penalty(down: Tensor, right: Tensor, prior: str) -> Tensor:
    """Return |P| at frequencies in cycles a pixel: |D|² = 4 sin² + 4 sin², or 1."""
    if prior == "tikhonov":
        return torch.ones_like(down + right)
    return 4 * (torch.sin(math.pi * down).square() + torch.sin(math.pi * right).square())


def _half_response(kernel: Tensor, angles: NDArray[np.float64], prior: str, weight: float) -> NDArray[np.float64]:
    """Return the frequency along each direction at which the response first falls under one half."""
    steps = 1024
    height, width = kernel.shape
    rows = torch.arange(height, dtype=torch.float64) - height // 2
    columns = torch.arange(width, dtype=torch.float64) - width // 2
    found = []
    for angle in np.deg2rad(angles):
        # Rows count downward, angles counter-clockwise. A ray ends where the square of frequencies does.
        up, along = -math.sin(angle), math.cos(angle)
        end = 0.5 / max(abs(up), abs(along))
        frequency = torch.linspace(0, end, steps, dtype=torch.float64)
        down, right = up * frequency, along * frequency
        row_waves = torch.exp(-2j * math.pi * down[:, None] * rows)
        column_waves = torch.exp(-2j * math.pi * right[:, None] * columns)
        transfer = ((row_waves @ kernel.to(row_waves.dtype)) * column_waves).sum(1)
        power = transfer.abs().square()
        response = power / (power + weight * _penalty(down, right, prior)).clamp(min=1e-300)
        below = torch.nonzero(response < 0.5)[:, 0]
        found.append(end if not len(below) else float(frequency[below[0]]))
    return np.array(found)


def _maps(
    kernel: Tensor, seen: Tensor, prior: str, weight: float, boundary: str, probing: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return √diag(R Rᵀ) and 1 / √diag(R A) over the picture.

    With ``N = Aᵀ W A + λ P`` on the grid and a comb z, ``u = N⁻¹ z`` tells both: ``diag(R A) = 1 − λ diag(P N⁻¹)`` by
    one solve, ``R Rᵀ = N⁻¹ Aᵀ W² A N⁻¹`` by a second one.
    """
    apart, seed = probing
    rows, columns = seen.shape
    grid = (rows, columns)
    if boundary == UNKNOWN:
        grid = tuple(fast_size(n + k - 1) for n, k in zip(seen.shape, kernel.shape, strict=True))
    transfer, penalty = (full[:, : grid[1] // 2 + 1] for full in _spectra(kernel, (grid[0], grid[1]), prior))
    weights = seen.new_zeros(grid)
    weights[:rows, :columns] = seen
    system = _System(transfer, weight * penalty, weights)

    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (rows, columns), generator=generator).to(torch.float64) * 2 - 1
    combs = [(top, left) for top in range(min(apart, rows)) for left in range(min(apart, columns))]
    noise, share = torch.zeros(rows, columns, dtype=torch.float64), torch.zeros(rows, columns, dtype=torch.float64)
    at_once = max(1, PIXELS_AT_ONCE // weights.numel())
    for first in range(0, len(combs), at_once):
        chosen = combs[first : first + at_once]
        probes = weights.new_zeros(len(chosen), *grid)
        for probe, (top, left) in zip(probes, chosen, strict=True):
            probe[top:rows:apart, left:columns:apart] = signs[top::apart, left::apart]
        solved = system.solved(probes)
        prior_part = system.filtered(solved, system.prior)
        variance = system.solved(system.data_part(solved, squared=True))
        for index, (top, left) in enumerate(chosen):
            teeth = (slice(top, rows, apart), slice(left, columns, apart))
            share[teeth] = 1 - prior_part[index][teeth] * signs[teeth]
            noise[teeth] = variance[index][teeth] * signs[teeth]
    # Rounding and what the teeth tell of each other may leave a little less than nothing.
    smallest = 1e-12
    return noise.clamp(min=0).sqrt().numpy(), share.clamp(min=smallest).rsqrt().numpy()


@dataclass(frozen=True)
class _System:
    """``N = Kᵀ W K + λ P`` on a periodic grid, and its solution for many right sides at once."""

    transfer: Tensor
    prior: Tensor
    weights: Tensor

    def filtered(self, planes: Tensor, response: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(planes) * response, s=self.weights.shape)

    def data_part(self, planes: Tensor, *, squared: bool = False) -> Tensor:
        """Return ``Kᵀ W K`` of planes, or ``Kᵀ W² K``."""
        weights = self.weights.square() if squared else self.weights
        return self.filtered(weights * self.filtered(planes, self.transfer), self.transfer.conj())

    def solved(self, right: Tensor) -> Tensor:
        """Solve by conjugate gradients, preconditioned by the periodic system of the mean weight."""
        condition = 1 / (float(self.weights.mean()) * self.transfer.abs().square() + self.prior).clamp(min=1e-300)
        found = torch.zeros_like(right)
        residual = right.clone()
        conditioned = self.filtered(residual, condition)
        direction = conditioned.clone()
        energy = (residual * conditioned).sum((-2, -1), keepdim=True)
        goal = TOLERANCE**2 * energy
        for _ in range(ITERATIONS):
            if bool((energy <= goal).all()):
                return found
            step = self.data_part(direction) + self.filtered(direction, self.prior)
            curvature = (direction * step).sum((-2, -1), keepdim=True)
            length = torch.where(curvature > 0, energy / curvature.clamp(min=1e-300), torch.zeros_like(energy))
            found += length * direction
            residual -= length * step
            conditioned = self.filtered(residual, condition)
            former, energy = energy, (residual * conditioned).sum((-2, -1), keepdim=True)
            direction = conditioned + (energy / former.clamp(min=1e-300)) * direction
        raise ConvergenceError(
            f"resolution: the maps' systems did not converge in {ITERATIONS} iterations; give a larger strength, or "
            "maps=False"
        )
