"""Expectation maximisation for photons behind a blur: the steps of Richardson and Lucy, with total variation.

Everything here counts photons: a plane (H, W) of photons, the scene on a grid that is larger than the picture by the
reach of the PSF. The cost is the negative log-likelihood and the prior,

    F(x) = Σ w (m − t log m) + λ Σ √(|D x|² + ε²),    m = A x + b,

with t the photons seen, w how much a pixel counts, b the background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging.model import UNKNOWN
from convpinv.linalg import fast_size

Progress = Callable[[int, int], None]

# Pixels of the scene that send less of their light than this into the picture are not restored from it: a quotient of
# two numbers that small would be noise.
LEAST_SEEN = 1e-3
# Differences below this share of the mean light count as flat. Smaller ones make the steps tiny: 1e-3 takes twice the
# steps of 2e-2, and restores no better.
FLAT_SHARE = 2e-2
# A cycle that lowers the cost by less than this for each pixel ends the iteration.
TOLERANCE = 1e-5
# An extrapolated scene keeps at least this share of a plain step's: a zero would stay zero.
LEAST_KEPT = 1e-3
# No extrapolation goes further than so many steps: lengths up to 4e3 were taken (36 restorations), and the square of a
# length that rounding alone makes leaves float64's range.
LONGEST = 1e6


@dataclass(frozen=True)
class Photons:
    """Photons seen (H, W), how much each pixel counts, the background in photons, and the blur that made them."""

    seen: Tensor
    weights: Tensor
    background: float
    transfer: Tensor
    grid: tuple[int, int]
    support: Tensor | None

    @staticmethod
    def build(seen: Tensor, weights: Tensor, background: float, psf: Tensor, boundary: str) -> Photons:
        """Choose the grid, and transform the PSF, whose entries are not negative."""
        size, taps = (seen.shape[-2], seen.shape[-1]), (psf.shape[-2], psf.shape[-1])
        circular = boundary == Boundary.CIRCULAR
        grid = size if circular else (fast_size(size[0] + taps[0] - 1), fast_size(size[1] + taps[1] - 1))
        padded = psf.new_zeros(grid, dtype=torch.float64)
        padded[: taps[0], : taps[1]] = psf
        transfer = torch.fft.rfft2(torch.roll(padded, (-(taps[0] // 2), -(taps[1] // 2)), (0, 1)))
        support = None
        if boundary not in (UNKNOWN, Boundary.CIRCULAR):  # dark outside
            support = psf.new_zeros(grid, dtype=torch.float64)
            support[: size[0], : size[1]] = 1.0
        return Photons(seen, weights, background, transfer, grid, support)

    def blurred(self, scene: Tensor) -> Tensor:
        """Return A x: the scene's light in the picture, never below 0 for the rounding of the transforms."""
        return self.window(torch.fft.irfft2(torch.fft.rfft2(scene) * self.transfer, s=self.grid)).clamp(min=0)

    def sent_back(self, picture: Tensor) -> Tensor:
        """Return Aᵀ z on the grid."""
        padded = picture.new_zeros(self.grid)
        padded[: picture.shape[-2], : picture.shape[-1]] = picture
        found = torch.fft.irfft2(torch.fft.rfft2(padded) * self.transfer.conj(), s=self.grid).clamp(min=0)
        return found if self.support is None else found * self.support

    def window(self, scene: Tensor) -> Tensor:
        """Cut the picture out of the grid."""
        return scene[: self.seen.shape[-2], : self.seen.shape[-1]]

    def expected(self, scene: Tensor) -> Tensor:
        """Return m = A x + b, kept above 0 where photons were seen."""
        floor = 1e-12 * max(float(self.seen.amax()), 1e-300)
        return (self.blurred(scene) + self.background).clamp(min=floor)

    def first_scene(self, sensitivity: Tensor) -> Tensor:
        """Return the photons sent back along the PSF, over what a constant scene would have sent.

        A constant scene, the usual start, is where total variation has its edge: steps away from it are tiny.
        """
        mean = float((self.weights * self.seen).sum() / self.weights.sum())
        light = self.sent_back(self.weights * (self.seen - self.background).clamp(min=0))
        level = max(mean - self.background, 1e-3 * mean, 1e-300)
        known = sensitivity > LEAST_SEEN
        scene = torch.where(known, light / sensitivity.clamp(min=LEAST_SEEN), torch.full_like(light, level))
        # A zero would stay zero.
        scene = scene.clamp(min=LEAST_KEPT * level)
        return scene if self.support is None else scene * self.support

    def deviance(self, scene: Tensor, photons: Tensor | None = None, scale: float = 1.0) -> float:
        """Return ``2 Σ w (t log(t / m) − t + m) / Σ w``: about 1 for the true scene where photons are many."""
        seen = self.seen if photons is None else photons
        mean = scale * self.expected(scene)
        each = torch.special.xlogy(seen, seen / mean) - seen + mean
        return 2 * float((self.weights * each).sum() / self.weights.sum())


@dataclass(frozen=True)
class Run:
    """A scene (grid), the steps that it took, and how they ended."""

    scene: Tensor
    steps: int
    converged: bool


def plain_steps(photons: Photons, steps: int, watch: Callable[[int, Tensor], bool]) -> Run:
    """Do at most so many steps of Richardson and Lucy; ``watch(step, scene)`` says after each whether to stop."""
    step = _Step(photons, 0.0)
    scene = photons.first_scene(step.sensitivity)
    for index in range(1, steps + 1):
        scene, _ = step(scene)
        if watch(index, scene):
            return Run(scene, index, True)
    return Run(scene, steps, False)


def minimised(photons: Photons, strength: float, steps: int, progress: Progress | None) -> Run:
    """Minimise F by steps in threes: two plain ones, and one from where they lead to if they go on (SQUAREM).

    Each plain step lowers F or leaves it. The extrapolated scene is taken only if its cost is no higher than after the
    first plain step, so F never rises from cycle to cycle.

    Source: R. Varadhan and C. Roland, "Simple and globally convergent methods for accelerating the convergence of any
    EM algorithm", Scandinavian Journal of Statistics 35 (2008).
    """
    step = _Step(photons, strength)
    scene = photons.first_scene(step.sensitivity)
    count = float(photons.weights.sum())
    former = float("inf")
    done = 0
    while done < steps:
        first, cost = step(scene)
        if former - cost <= TOLERANCE * count:
            return Run(scene, done + 1, True)
        former = cost
        if steps - done < 3:
            scene, done = first, done + 1
            continue
        second, middle = step(first)
        change = first - scene
        bend = second - first - change
        turn = float(bend.norm())
        if turn <= torch.finfo(bend.dtype).eps * float(second.norm()):
            # What bends by less than rounding tells of no way to go on: a constant picture is where it should be.
            scene, done = second, done + 2
            continue
        length = min(max(1.0, float(change.norm()) / turn), LONGEST)
        far = torch.maximum(scene + 2 * length * change + length**2 * bend, LEAST_KEPT * second)
        after, reached = step(far)
        done += 3
        scene = after if reached <= middle else second
        if progress is not None:
            progress(done, steps)
    return Run(scene, done, False)


class _Step:
    """One step of expectation maximisation, with total variation majorised by a separable quadratic.

    The likelihood's part is ``s x − n log x`` with ``s = Aᵀ w`` and ``n = x Aᵀ(w t / m)``: without prior ``x = n / s``.
    Each pair of neighbours adds at most ``¼ c ((2 x_i − x_i' − x_j')² + (2 x_j − x_i' − x_j')²)``, primes for the scene
    before. What is minimised is then a pixel's own: ``2 λ C x² + (s − λ M) x − n = 0`` with ``C = Σ c`` and
    ``M = Σ c (x_i' + x_j')``, whose positive root is the new x. It cannot be negative and divides by nothing that is 0,
    unlike the one-step-late form ``x n / (s − λ div)``.

    Source: A. R. De Pierro, "A modified expectation maximization algorithm for penalized likelihood estimation in
    emission tomography", IEEE Transactions on Medical Imaging 14 (1995).
    """

    def __init__(self, photons: Photons, strength: float) -> None:
        self.photons = photons
        self.strength = strength
        self.sensitivity = photons.sent_back(photons.weights)
        mean = (photons.weights * photons.seen).sum() / photons.weights.sum() - photons.background
        self.flat = FLAT_SHARE * max(float(mean), 1e-6 * float(photons.seen.amax()), 1e-300)

    def __call__(self, scene: Tensor) -> tuple[Tensor, float]:
        """Return the next scene, and the cost of the given one."""
        photons = self.photons
        mean = photons.expected(scene)
        cost = float((photons.weights * (mean - torch.special.xlogy(photons.seen, mean))).sum())
        light = scene * photons.sent_back(photons.weights * photons.seen / mean)
        sensitivity = self.sensitivity
        if not self.strength:
            known = sensitivity > LEAST_SEEN
            return torch.where(known, light / sensitivity.clamp(min=LEAST_SEEN), scene), cost

        below, right = torch.roll(scene, -1, -2), torch.roll(scene, -1, -1)
        length = ((below - scene).square_() + (right - scene).square_()).add_(self.flat**2).sqrt_()
        cost += self.strength * float(length.sum())
        pull = length.reciprocal_()
        above, left = torch.roll(pull, 1, -2), torch.roll(pull, 1, -1)
        weight = self.strength * (2 * pull + above + left)
        middle = weight * scene + self.strength * (
            pull * (below + right) + above * torch.roll(scene, 1, -2) + left * torch.roll(scene, 1, -1)
        )
        slope = sensitivity - middle
        root = (slope.square() + 8 * weight * light).sqrt_()
        # Two forms of one root: each where it subtracts nothing.
        found = torch.where(slope > 0, 2 * light / (slope + root).clamp(min=1e-300), (root - slope) / (4 * weight))
        return (found if photons.support is None else found * photons.support), cost
