"""A PSF from the pictures of points: beads under a microscope, stars in the sky."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.psf_symmetry import NORMAL_MEDIAN

__all__ = ["PointsPsf", "from_points"]

# A spot counts where it stands out of the smoothed picture by so many times its noise.
SIGNIFICANT = 8.0
# Another spot disturbs if it is closer than this share of the size and brighter than this share of the spot.
ISOLATION = 0.75
DISTURBING = 0.05
# So many neighbours at the very maximum of the picture make a plateau: the camera was saturated.
PLATEAU = 3
# Frame around the size: two pixels to see the background on, two more for the interpolation to run out on.
RING, MARGIN = 2, 2
# A spot whose residual is so many times the usual one is no single point.
ODD = 3.0
CLIP = 4.0
ALIGNMENTS = 6
SMALLEST_SIZE = 5


@dataclass(frozen=True)
class PointsPsf:
    """A PSF averaged over points.

    ``psf`` (h, w) has sum 1; ``uncertainty`` (h, w) is one standard deviation of each of its values; ``positions``
    (n, 2) are the rows and columns of the points used, to a part of a pixel; ``rejected`` says why how many were not.
    """

    psf: Tensor
    uncertainty: Tensor
    positions: Tensor
    rejected: dict[str, int]

    @property
    def count(self) -> int:
        """How many points were used."""
        return len(self.positions)


def from_points(image: Any, size: int, *, saturation: float | None = None) -> PointsPsf:
    """Average the PSF from isolated points in a picture.

    Spots that stand out by 8 times the noise are looked for. Those at the border, saturated, or with a neighbour are
    left out. From each the plane through its surroundings is subtracted; all are moved onto each other by
    Fourier interpolation, to a small part of a pixel, and averaged with weights ``(brightness / noise)²``, values
    that deviate by more than 4 robust deviations left out. Their common centre of mass is put on the centre pixel.

    Parameters
    ----------
    image
        Array or tensor ``(H, W)``, in linear light.
    size
        Rows and columns of the PSF, an odd integer of at least 5, wide enough for all the light of a point: what
        lies beyond is taken for background.
    saturation
        Value from which a pixel is overexposed; None takes the largest value of the picture where three neighbours
        share it.

    Returns
    -------
    PointsPsf
        ``psf`` and ``uncertainty``, ``(size, size)``, float64, on the CPU; ``positions``, ``count``, ``rejected``.

    Raises
    ------
    ArgumentError
        If no point will do; the message says why.

    Notes
    -----
    Cost: a few passes over the picture, and O(count · size² log size). Assumed: points smaller than the PSF (a bead
    of diameter d widens it by the variance d² / 16 an axis), one PSF for all, and no undersampling: below two pixels
    of full width at half maximum the interpolation rings. The uncertainty is that of the noise and of the
    scatter between points; from fewer than four it is that of the noise alone.

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> sky = np.zeros((96, 96))
    >>> sky[20, 24], sky[60, 30], sky[40, 70] = 300, 500, 400
    >>> seen = 10 + imaging.blur(sky, "gaussian:sigma=1.5", noise=0.1, seed=0, boundary="zeros")
    >>> found = imaging.psf.from_points(seen, 13)
    >>> found.count, bool((found.psf - imaging.psf.gaussian(1.5, 13)).abs().max() < 1e-3)
    (3, True)
    """
    call = "psf.from_points"
    planes = arguments.pictures(call, "image", image, largest_ndim=4)
    if len(planes.stack) != 1:
        arguments.fail(call, "image", arguments.describe(image), "it must be one plane (H, W); take a channel")
    side = arguments.odd_size(call, "size", size)
    if side < SMALLEST_SIZE:
        arguments.fail(call, "size", side, f"it must be at least {SMALLEST_SIZE}")
    level = None if saturation is None else arguments.finite(call, "saturation", saturation)
    plane = planes.stack[0].to("cpu", torch.float64)
    reach = side // 2 + RING + MARGIN
    if min(plane.shape) < 2 * reach + 1:
        may_be = f"it must have {2 * reach + 1} rows and columns at least, for a PSF of {side} and its surroundings"
        arguments.fail(call, "image", arguments.describe(image), may_be)

    spots, heights = _spots(plane)
    kept, rejected = _usable(plane, spots, heights, side, level)
    if not len(kept):
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        was = f"without a usable point: {len(spots)} bright spots" + (f" ({reasons})" if reasons else "")
        may_be = "it must show single points, isolated, not saturated, on an even ground; or give a smaller size"
        arguments.fail(call, "image", was, may_be)

    patches, noise = _patches(plane, kept, reach)
    aligned = _Aligned.of(patches, side)
    single = aligned.single()
    if not bool(single.any()):
        was = f"without a usable point: the {len(kept)} isolated bright spots are no points"
        arguments.fail(call, "image", was, "it must show single points on an even ground; or give another size")
    if not bool(single.all()):
        rejected["not like the others"] = int((~single).sum())
        kept, noise, patches = kept[single], noise[single], patches[single]
        aligned = _Aligned.of(patches, side)
    psf, uncertainty = aligned.average(noise, side)
    return PointsPsf(psf, uncertainty, kept.to(torch.float64) + aligned.shifts, dict(rejected))


def _smoothed(plane: Tensor) -> Tensor:
    """Smooth lightly (a binomial of deviation 1), so that noise makes no maxima."""
    taps = plane.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = torch.nn.functional.pad(plane[None, None], (2, 2, 2, 2), mode="replicate")
    rows = torch.nn.functional.conv2d(padded, taps.reshape(1, 1, -1, 1))
    return torch.nn.functional.conv2d(rows, taps.reshape(1, 1, 1, -1))[0, 0]


def _spots(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Return the significant maxima (n, 2) of the smoothed picture and their heights over its median."""
    smooth = _smoothed(plane)
    ground = smooth.median()
    # Half of the pixels and more are ground, or there are no isolated points; the lower half is never light.
    below = (ground - smooth[smooth <= ground]).square().mean().sqrt()
    rounding = torch.finfo(torch.float32).eps * plane.abs().max()
    highest = torch.nn.functional.max_pool2d(smooth[None, None], 5, 1, 2)[0, 0]
    maxima = (smooth == highest) & (smooth - ground > SIGNIFICANT * torch.maximum(below, rounding))
    spots = torch.nonzero(maxima)
    heights = (smooth - ground)[maxima]
    order = torch.argsort(heights, descending=True, stable=True)
    return spots[order], heights[order]


def _usable(
    plane: Tensor, spots: Tensor, heights: Tensor, side: int, saturation: float | None
) -> tuple[Tensor, Counter[str]]:
    """Return the spots that are inside, not saturated and alone, and why the others are not."""
    reach = side // 2 + RING + MARGIN
    overexposed = _overexposed(plane, saturation)
    rejected: Counter[str] = Counter()
    kept = []
    for index, (row, column) in enumerate(spots.tolist()):
        apart = (spots - spots[index]).abs().amax(1)
        disturbing = (apart > 0) & (apart < ISOLATION * side) & (heights > DISTURBING * heights[index])
        inside = reach <= row < plane.shape[0] - reach and reach <= column < plane.shape[1] - reach
        half = side // 2
        if not inside:
            rejected["at the border"] += 1
        elif bool(overexposed[row - half : row + half + 1, column - half : column + half + 1].any()):
            rejected["saturated"] += 1
        elif bool(disturbing.any()):
            rejected["with a neighbour"] += 1
        else:
            kept.append(index)
    return spots[kept], rejected


def _overexposed(plane: Tensor, saturation: float | None) -> Tensor:
    if saturation is not None:
        return plane >= saturation
    top = plane == plane.max()
    neighbours = torch.nn.functional.avg_pool2d(top.to(plane.dtype)[None, None], 3, 1, 1)[0, 0] * 9
    return top & (float((neighbours * top).max()) > PLATEAU - 0.5)


def _patches(plane: Tensor, spots: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Cut out the surroundings of each spot, less the plane through their border; and the noise on that border."""
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inner = reach - RING - MARGIN
    border = torch.maximum(axis.abs()[:, None], axis.abs()) > inner
    slopes = torch.stack(
        [torch.ones(len(axis), len(axis), dtype=axis.dtype), *torch.meshgrid(axis, axis, indexing="ij")]
    )
    design = slopes[:, border].T
    design_inverse = torch.linalg.pinv(design)
    patches, noise = [], []
    near = torch.ones(len(design), dtype=torch.bool)
    for row, column in spots.tolist():
        patch = plane[row - reach : row + reach + 1, column - reach : column + reach + 1]
        values = patch[border]
        fit = design_inverse @ values
        for _ in range(2):  # once more without what shines in from beyond
            rest = (values - design @ fit).abs()
            # A ground of few levels has a deviation of next to nothing: half of it at least stays in.
            near = rest <= CLIP * rest.median() / NORMAL_MEDIAN
            fit = torch.linalg.pinv(design[near]) @ values[near]
        rest = (values - design @ fit)[near]
        patches.append(patch - (fit[:, None, None] * slopes).sum(0))
        noise.append(rest.square().mean().sqrt())
    return torch.stack(patches), torch.stack(noise)


@dataclass(frozen=True)
class _Aligned:
    """Patches (n, p, p) moved onto each other, divided by their brightness (n,), and by how much each was off."""

    patches: Tensor
    brightness: Tensor
    shifts: Tensor

    @staticmethod
    def of(patches: Tensor, side: int) -> _Aligned:
        """Align: centres of mass first, then least squares against the mean, whose centre of mass is held."""
        axis = torch.arange(patches.shape[-1], dtype=torch.float64) - patches.shape[-1] // 2
        inner = axis.abs() <= side // 2
        # The bright part of a point says where it is; the sum over a wide array says where the noise is.
        bright = (patches - 0.2 * patches.amax((-2, -1), keepdim=True)).clamp(min=0) * (inner[:, None] & inner)
        total = bright.sum((-2, -1))
        shifts = torch.stack([(bright.sum(2) @ axis) / total, (bright.sum(1) @ axis) / total], 1)
        spectra = torch.fft.fft2(patches)
        frequencies = 2j * math.pi * torch.fft.fftfreq(patches.shape[-1], dtype=torch.float64)
        brightness, moved = total, patches
        for _ in range(ALIGNMENTS):
            turns = torch.exp(shifts[:, :1, None] * frequencies[:, None] + shifts[:, 1:, None] * frequencies)
            moved = torch.fft.ifft2(spectra * turns).real
            mean = moved[brightness > 0].mean(0)
            mean = mean / mean[inner][:, inner].abs().sum()
            slope = torch.fft.fft2(mean)
            down, right = (torch.fft.ifft2(slope * ramp).real for ramp in (frequencies[:, None], frequencies[None, :]))
            # moved ≈ brightness · (mean − d · slope): linear in brightness and in brightness · d.
            design = torch.stack([part[inner][:, inner].flatten() for part in (mean, -down, -right)], 1)
            fit = torch.linalg.pinv(design) @ moved[:, inner][:, :, inner].flatten(1).T
            # What is no point may ask for any shift; it is found out at the end.
            step = (fit[1:] / fit[0]).T.nan_to_num().clamp(-1.0, 1.0)
            brightness, shifts = fit[0], shifts + step
            if not bool((brightness > 0).any()):
                brightness = total
            # All of them may drift together: the mean's own centre of mass says where.
            core = (mean - 0.05 * mean.max()).clamp(min=0) * (inner[:, None] & inner)
            drift = torch.stack([core.sum(1) @ axis, core.sum(0) @ axis]) / core.sum()
            shifts = shifts + drift
        turns = torch.exp(shifts[:, :1, None] * frequencies[:, None] + shifts[:, 1:, None] * frequencies)
        return _Aligned(torch.fft.ifft2(spectra * turns).real / brightness[:, None, None], brightness, shifts)

    def single(self) -> Tensor:
        """Tell which patches look like the others (n,); of one or two, all do."""
        fine = (self.brightness > 0) & (self.shifts.abs().amax(1) < 2.0)
        if len(self.patches) < 3:
            return fine
        middle = self.patches[fine].median(0).values if bool(fine.any()) else self.patches[0]
        rest = (self.patches - middle).square().mean((-2, -1)).sqrt() * self.brightness.abs()
        # Noise is the same for all, and the error of a wrong shape grows with brightness: either may be usual.
        relative = rest / self.brightness.abs()
        return fine & ((rest <= ODD * rest.median()) | (relative <= ODD * relative.median()))

    def average(self, noise: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return the weighted mean without outliers, of sum 1, and its standard deviation."""
        margin = (self.patches.shape[-1] - side) // 2
        values = self.patches[:, margin : margin + side, margin : margin + side]
        # A ground of few levels may show no noise at all around some of the points, which are no better for that.
        visible = noise[noise > torch.finfo(torch.float32).eps * self.brightness.abs()]
        noise = noise.clamp(min=float(visible.min())) if len(visible) else noise
        deviation = (noise / self.brightness.abs()).clamp(min=torch.finfo(torch.float32).eps)[:, None, None]
        weight = deviation.square().reciprocal().expand_as(values) * deviation.square().min()
        if len(values) >= 4:
            middle = values.median(0).values
            usual = (values - middle).abs().median(0).values / NORMAL_MEDIAN
            weight = weight * ((values - middle).abs() <= CLIP * torch.maximum(usual, deviation))
        total = weight.sum(0).clamp(min=1e-300)
        mean = (weight * values).sum(0) / total
        variance = (weight * deviation).square().sum(0) / total.square()
        if len(values) >= 4:
            scatter = (weight * (values - mean)).square().sum(0) / total.square() * len(values) / (len(values) - 1)
            variance = torch.maximum(variance, scatter)
        light = mean.sum()
        return mean / light, variance.sqrt() / light
