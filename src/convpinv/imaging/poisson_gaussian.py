"""Noise whose variance grows with the light: photons, and what the electronics add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.noise_patches import Level, level_of, patches_of, strata_of, unit_range

__all__ = ["PoissonGaussianNoise", "poisson_gaussian_of_planes"]

# Iterations of the reweighted line, and the standard errors beyond which a stratum loses its weight.
ITERATIONS = 20
BELIEVED_ERRORS = 2.5
# Fewer strata than these tell of no line.
FEWEST_STRATA = 3
# Where holes leave no patches: levels of brightness, and the triples of pixels that each needs.
LEVELS_OF_TRIPLES = 16
FEWEST_TRIPLES = 100


@dataclass(frozen=True)
class PoissonGaussianNoise:
    """Noise of variance ``gain · value + intercept``, as :func:`convpinv.estimate_noise` finds it.

    With n photons behind a pixel, ``value = gain · n + offset + read noise``, so ``gain`` is the value of one photon
    (more exactly, of one electron) and ``intercept = read noise² − gain · offset``. The two parts of the intercept
    cannot be told apart in a picture: an ``offset`` (black level) makes it negative, and must be known to find the read
    noise. Where the electronics clip, the variance is less than said.

    ``gain`` and ``intercept`` are floats for one plane ``(H, W)``, arrays ``(C,)`` for ``(H, W, C)``, tensors ``(...)``
    for tensors ``(..., H, W)``, in the picture's units and their square. ``strata`` says on how many levels of
    brightness the line stands; where there were fewer than three without texture, the gain is 0, the intercept the
    variance of the white model, and ``strata`` 0.

    Source: A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting
    for single-image raw-data", IEEE Transactions on Image Processing 17 (2008): their a and b.

    Examples
    --------
    >>> import numpy as np
    >>> from convpinv.imaging import estimate_noise
    >>> light = np.linspace(10, 200, 300)[:, None] * np.ones(300)
    >>> photons = np.random.default_rng(0).poisson(light)
    >>> noise = estimate_noise(photons, model="poisson-gaussian")
    >>> abs(noise.deviation(100.0) / 10 - 1) < 0.1, abs(noise.gain - 1) < 0.1
    (True, True)
    """

    gain: Any
    intercept: Any
    strata: Any

    def variance(self, value: Any) -> Any:
        """Return the variance of the noise where the picture without noise has this value; never below 0.

        ``value`` is a number, or a picture of the layout that was measured.
        """
        gain, intercept = self.gain, self.intercept
        if isinstance(gain, Tensor) and isinstance(value, Tensor) and value.ndim >= gain.ndim + 2:
            gain, intercept = gain[..., None, None], intercept[..., None, None]
        found = gain * value + intercept
        return found.clamp(min=0) if isinstance(found, Tensor) else _plain(np.maximum(found, 0.0))

    def deviation(self, value: Any) -> Any:
        """Return the standard deviation of the noise where the picture without noise has this value."""
        found = self.variance(value)
        return found.sqrt() if isinstance(found, Tensor) else _plain(np.sqrt(found))

    def read_noise(self, offset: float = 0.0) -> Any:
        """Return the standard deviation in the dark, where the black level is ``offset``."""
        return self.deviation(arguments.finite("PoissonGaussianNoise.read_noise", "offset", offset))


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value


def poisson_gaussian_of_planes(planes: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain, intercept and number of strata (N,) of checked floating planes (N, H, W), in float64.

    ``seen`` (N, H, W) marks the pixels that count.
    """
    lines = []
    for index, plane in enumerate(planes):
        unit, largest = unit_range(plane)
        counts = None if seen is None or bool(seen[index].all()) else seen[index]
        patches = patches_of(unit, counts)
        strata = [] if patches is None else strata_of(patches)
        if counts is not None and len(strata) < FEWEST_STRATA:
            # Too many holes for patches.
            strata = _strata_of_triples(unit.to(torch.float64), counts)
        if patches is not None:
            overall = level_of(patches).variance
        else:
            overall = min((level.variance for level in strata), default=0.0)
        gain, intercept, count = _line(overall, strata)
        lines.append((gain * largest, intercept * largest**2, float(count)))
    gain, intercept, count = (
        torch.tensor(column, dtype=torch.float64, device=planes.device) for column in zip(*lines, strict=True)
    )
    return gain, intercept, count


def _strata_of_triples(plane: Tensor, seen: Tensor) -> list[Level]:
    """Return the noise at levels of brightness from three seen pixels in a row, where holes leave no patch.

    ``(a − 2 b + c)² / 6`` is blind to slopes, and independent of the mean that sorts the triples. Texture it takes for
    noise, as the median over all triples does of a level.
    """
    means, squares = [], []
    for axis in (0, 1):
        if plane.shape[axis] >= 3:
            pixels = plane.unfold(axis, 3, 1)[seen.unfold(axis, 3, 1).all(-1)]
            means.append(pixels.mean(-1))
            squares.append((pixels[:, 0] - 2 * pixels[:, 1] + pixels[:, 2]).square() / 6)
    if not means:
        return []
    mean, square = torch.cat(means), torch.cat(squares)
    count = min(LEVELS_OF_TRIPLES, len(mean) // FEWEST_TRIPLES)
    order = mean.argsort()
    # Of n squares of normal numbers, the median has the relative error 2.3 / √n; triples share pixels.
    return [
        Level(float(mean[which].mean()), float(square[which].median()) / 0.4549, 2.3 / (len(which) / 2) ** 0.5, 1.0)
        for which in (order.tensor_split(count) if count else ())
    ]


def _line(overall: float, strata: list[Level]) -> tuple[float, float, int]:
    """Fit variance = gain · brightness + intercept to the strata that hold white noise.

    Weighted least squares, as a stratum's error is a share of its variance; a stratum far off the line, one with
    texture say, weighs as little as it is far. Slopes below 0 are no light's: the noise then counts as constant.
    """
    # Where nothing varies at all (a dark sky of whole counts, clipped light) there is no noise to tell of light.
    white = [level for level in strata if level.white and level.variance > 0]
    if len(white) < FEWEST_STRATA:
        return 0.0, overall, 0
    brightness, variance, error = (
        np.array([getattr(level, name) for level in white]) for name in ("brightness", "variance", "error")
    )
    fitted, trust = variance, np.ones(len(white))
    gain, intercept = 0.0, overall
    for _ in range(ITERATIONS):
        scale = error * np.maximum(fitted, 1e-3 * variance.max()) + 1e-300
        weight = trust / scale**2
        weight /= weight.sum()
        middle, level = weight @ brightness, weight @ variance
        spread = weight @ (brightness - middle) ** 2
        gain = max(float(weight @ ((brightness - middle) * (variance - level))) / max(float(spread), 1e-300), 0.0)
        intercept = float(level - gain * middle)
        fitted = np.maximum(gain * brightness + intercept, 0.0)
        off = np.abs(variance - fitted) / scale
        trust = np.minimum(1.0, BELIEVED_ERRORS / np.maximum(off, 1e-300)) ** 2
    return gain, intercept, len(white)
