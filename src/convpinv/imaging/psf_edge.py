"""A PSF from a slanted edge, as ISO 12233 measures the sharpness of cameras."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.psf_makers import defocus, gaussian
from convpinv.imaging.psf_solve import non_negative_least_squares

__all__ = ["EdgePsf", "from_edge"]

# Bins of the edge's profile a pixel, as in the standard.
OVERSAMPLING = 4
# Least rows along the edge, and least columns across it.
LEAST_ALONG, LEAST_ACROSS = 16, 12
# Contrast of the edge against the noise.
LEAST_CONTRAST = 5.0
# How far a row's edge may lie from the straight line, in pixels, and how many rows may.
STRAIGHT, BENT_SHARE = 1.0, 0.2
# The edge must cross some pixels' phases, or the bins stay empty; beyond 45 degrees rows become columns.
LEAST_CROSSING = 1.0
# The dictionary of round PSFs: disks and Gaussians up to the size, radii growing by this factor.
FINEST_RADIUS, GROWTH = 0.6, 1.07
FINEST_DEVIATION = 0.3
# Against the largest diagonal entry: neighbours in the dictionary are alike to 1e-4, and without it noise picks one of
# them and leaves the next out: the PSFs came out up to five times less true.
RIDGE = 1e-6
# Parts of the edge that are left out in turn to see how much the answer depends on each.
PARTS = 8


@dataclass(frozen=True)
class EdgePsf:
    """A PSF from an edge.

    ``psf`` (h, w) is round, not rising outwards, and has sum 1; ``uncertainty`` (h, w) is one standard deviation of
    each of its values. ``frequency`` (cycles per pixel, across the edge) and ``mtf`` are the modulation transfer
    function of lens and pixel together, from the profile itself and not from the fit. ``angle`` is by how many degrees
    the edge is turned counter-clockwise from the vertical (from the horizontal if ``horizontal``).
    """

    psf: Tensor
    uncertainty: Tensor
    frequency: Tensor
    mtf: Tensor
    angle: float
    horizontal: bool


def from_edge(image: Any, size: int) -> EdgePsf:
    """Find a round PSF from one straight, slanted edge between two even areas.

    The edge is located in every row, a line is laid through, and each pixel's distance from that line makes one
    profile with four bins a pixel. The PSF is the mixture, with weights of at least 0, of disks
    (:func:`convpinv.psf.defocus`) and Gaussians whose profile across an ideal edge of the same slant, seen by square
    pixels, fits it best.

    Parameters
    ----------
    image
        Array or tensor ``(H, W)`` in linear light, cut so that the edge goes through from top to bottom (or from left
        to right), at least 16 pixels along and 12 across; best slanted by 3 to 15 degrees.
    size
        Rows and columns of the PSF, an odd integer of at least 3. Room for half as much is needed on both sides of the
        edge.

    Returns
    -------
    EdgePsf
        ``psf`` and ``uncertainty`` ``(size, size)``, ``frequency`` and ``mtf`` (from 0 to 1 cycle per pixel), float64,
        on the CPU; ``angle``, ``horizontal``.

    Raises
    ------
    ArgumentError
        If there is no such edge: too little contrast, bent, not slanted, or too near to the border.

    Notes
    -----
    Cost: O(H W), and eleven small non-negative least-squares problems. Assumed: the PSF is round and does not rise
    outwards; an edge tells of the PSF across it and nothing of the rest. Astigmatism, motion and the rings of
    diffraction need points or a pair of pictures. The PSF is that between a camera with the same pixels and an ideal
    lens, and this one. The uncertainty is the jackknife's over eight parts of the edge and that between halves of the
    dictionary: it holds the noise and the choice of the mixture, and not what no round mixture can be. Expect a few
    parts in a hundred of the peak at 0.5 % of noise; rims of disks come out soft. The transfer function is a magnitude,
    to which noise adds where it is small.

    Source: ISO 12233, "Photography: electronic still picture imaging: resolution and spatial frequency responses".

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> across = np.arange(64) - 32 - 0.1 * np.arange(64)[:, None] + 3.2
    >>> sharp = np.clip(across + 0.5, 0, 1)  # an edge, slanted by 5.7 degrees, on square pixels
    >>> seen = imaging.blur(sharp, "gaussian:sigma=1.2", noise=0.002, seed=0)
    >>> found = imaging.psf.from_edge(seen, 9)
    >>> round(found.angle, 1), bool((found.psf - imaging.psf.gaussian(1.2, 9)).abs().max() < 3e-3)
    (5.7, True)
    """
    call = "psf.from_edge"
    pictures = arguments.pictures(call, "image", image, largest_ndim=4)
    if len(pictures.stack) != 1:
        arguments.fail(call, "image", arguments.describe(image), "it must be one plane (H, W); take a channel")
    side = arguments.odd_size(call, "size", size)
    if side < 3:
        arguments.fail(call, "size", side, "it must be at least 3")
    plane = pictures.stack[0].to("cpu", torch.float64)
    horizontal = float(plane.mean(1).diff().abs().sum()) > float(plane.mean(0).diff().abs().sum())
    plane = plane.T if horizontal else plane
    if plane.shape[0] < LEAST_ALONG or plane.shape[1] < LEAST_ACROSS:
        may_be = f"it must have {LEAST_ALONG} pixels along the edge and {LEAST_ACROSS} across it at least"
        arguments.fail(call, "image", arguments.describe(image), may_be)

    edge = _Edge.found(call, plane)
    room = min(edge.column(0.0), edge.column(plane.shape[0] - 1.0))
    room = min(room, plane.shape[1] - 1 - max(edge.column(0.0), edge.column(plane.shape[0] - 1.0)))
    if room < side / 2 + 1:
        was = f"with {max(room, 0.0):.1f} pixels beside its edge"
        arguments.fail(
            call, "image", was, f"a PSF of {side} needs {side / 2 + 1:.1f} on both sides: give a smaller size"
        )
    distance = edge.distance(plane.shape)
    reach = math.floor(room * edge.cosine)
    near = distance.abs() <= reach
    kernels = _dictionary(side)
    profiles = _Profiles.of(kernels, edge, reach)

    def fitted(rows: Tensor, step: int = 1, first: int = 0) -> Tensor:
        used = near & rows[:, None]
        return profiles.fit(distance[used], plane[used], kernels, slice(first, None, step))

    along = torch.arange(plane.shape[0])
    psf = fitted(along >= 0)
    without = torch.stack([fitted(along * PARTS // len(along) != part) for part in range(PARTS)])
    variance = (without - without.mean(0)).square().sum(0) * (PARTS - 1) / PARTS
    # Two dictionaries of every second member differ by what the choice of members does.
    coarser = [fitted(along >= 0, 2, first) - psf for first in (0, 1)]
    spread = (variance + 0.5 * (coarser[0].square() + coarser[1].square())).sqrt()
    frequency, mtf = _transfer(distance[near], plane[near], reach)
    # Transposing turns the sense of rotation as well as the axis.
    degrees = math.degrees(math.atan(edge.slope))
    return EdgePsf(psf, spread, frequency, mtf, -degrees if horizontal else degrees, horizontal)


@dataclass(frozen=True)
class _Edge:
    """The line ``column = start + slope · row`` of an edge, and which way it rises."""

    start: float
    slope: float

    @staticmethod
    def found(call: str, plane: Tensor) -> _Edge:
        """Locate the edge in every row, by the centre of its rise, and lay a line through."""
        height, width = plane.shape
        columns = torch.arange(width - 1, dtype=torch.float64) + 0.5
        rows = torch.arange(height, dtype=torch.float64)
        rise = plane.diff(dim=1)
        edges = plane[:, :3].mean(), plane[:, -3:].mean()
        noise = float((plane[:, :3] - plane[:, :3].mean(1, keepdim=True)).square().mean().sqrt()) * math.sqrt(1.5)
        contrast = float(edges[1] - edges[0])
        scale = float(plane.abs().max()) + 1e-300
        if abs(contrast) <= max(LEAST_CONTRAST * noise, 1e-9 * scale):
            was = f"without an edge: left and right differ by {abs(contrast):.2g}, and the noise is {noise:.2g}"
            arguments.fail(call, "image", was, "it must show two even areas and one straight edge between them")
        rise = rise / contrast
        half = width / 2
        # All of the row at first, then what is near the line: far off, noise only adds to the uncertainty.
        line = _Edge(half, 0.0)
        places = rows
        for window in (width, half / 1.5, half / 2.5, half / 2.5):
            offset = columns - (line.start + line.slope * rows)[:, None]
            weight = torch.cos((offset / window).clamp(-1, 1) * math.pi / 2).square() if window < width else 1.0
            weighted = rise * weight
            total = weighted.sum(1)
            good = total > 0.25
            if int(good.sum()) < height / 2:
                arguments.fail(call, "image", "without an edge through all of its rows", "cut it out along the edge")
            places = (weighted * columns).sum(1)[good] / total[good]
            design = torch.stack([torch.ones_like(rows[good]), rows[good]], 1)
            fit = torch.linalg.pinv(design) @ places
            rest = (places - design @ fit).abs()
            kept = rest <= 3 * rest.median() + 1e-9
            fit = torch.linalg.pinv(design[kept]) @ places[kept]
            line = _Edge(float(fit[0]), float(fit[1]))
            places = (places - design @ fit).abs()
        if float((places > STRAIGHT).double().mean()) > BENT_SHARE:
            arguments.fail(
                call, "image", "with a bent or uncertain edge", "the edge must be straight to a pixel, and clear"
            )
        if abs(line.slope) * height < LEAST_CROSSING:
            was = f"with an edge that crosses {abs(line.slope) * height:.2f} columns"
            arguments.fail(
                call, "image", was, "it must be slanted, by 3 to 15 degrees at best: an upright edge tells less"
            )
        return line

    @property
    def cosine(self) -> float:
        """Cosine of the slant: a step of one column is so far across the edge."""
        return 1 / math.hypot(1.0, self.slope)

    def column(self, row: float) -> float:
        """Return where the edge is in a row."""
        return self.start + self.slope * row

    def distance(self, shape: torch.Size) -> Tensor:
        """Return each pixel's distance from the line, across it."""
        rows, columns = (torch.arange(size, dtype=torch.float64) for size in shape)
        return (columns - (self.start + self.slope * rows)[:, None]) * self.cosine


@dataclass(frozen=True)
class _Profiles:
    """What each PSF of the dictionary makes of an ideal edge: values (profiles, bins) at places across it."""

    values: Tensor
    reach: int

    @staticmethod
    def of(kernels: Tensor, edge: _Edge, reach: int) -> _Profiles:
        """Sum the ideal edge over a PSF's taps: exactly what a discrete convolution of slanted pixels gives."""
        cosine, sine = edge.cosine, -edge.slope * edge.cosine
        places = torch.arange(-reach * OVERSAMPLING * 4, reach * OVERSAMPLING * 4 + 1, dtype=torch.float64)
        places = places / (OVERSAMPLING * 4)
        taps = torch.arange(kernels.shape[-1], dtype=torch.float64) - kernels.shape[-1] // 2
        moves = (taps[:, None] * sine + taps * cosine).flatten()
        steps = _pixel_step(places[:, None] - moves, abs(cosine), abs(sine))
        return _Profiles(kernels.flatten(1) @ steps.T, reach)

    def fit(self, distance: Tensor, seen: Tensor, kernels: Tensor, members: slice) -> Tensor:
        """Return the mixture whose profile fits the pixels at these distances, any two levels beside it."""
        fine = (distance + self.reach) * OVERSAMPLING * 4
        index = fine.long().clamp(0, self.values.shape[1] - 2)
        share = fine - index
        values, kernels = self.values[members], kernels[members]
        columns = values[:, index] * (1 - share) + values[:, index + 1] * share
        # The levels on both sides are free: offset out by the means, contrast as the weights' sum.
        columns = columns - columns.mean(1, keepdim=True)
        target = seen - seen.mean()
        gram, moment = columns @ columns.T, columns @ target
        sign = 1.0 if float(moment.sum()) >= 0 else -1.0
        gram = gram + RIDGE * gram.diagonal().max() * torch.eye(len(gram), dtype=gram.dtype)
        weights = non_negative_least_squares(gram, sign * moment)
        return (weights[:, None, None] * kernels).sum(0) / weights.sum()


def _pixel_step(distance: Tensor, long: float, short: float) -> Tensor:
    """Return how much of a unit square whose centre lies so far beyond a line is beyond it.

    The square seen along the line is a trapezium, the convolution of boxes of widths ``long`` and ``short``.
    """
    if short < 1e-9:
        return (distance / long + 0.5).clamp(0, 1)

    def twice_integrated(value: Tensor) -> Tensor:
        return value.clamp(min=0).square() / 2

    outer, inner = (long + short) / 2, (long - short) / 2
    ramps = twice_integrated(distance + outer) - twice_integrated(distance + inner)
    ramps = ramps - twice_integrated(distance - inner) + twice_integrated(distance - outer)
    return ramps / (long * short)


def _dictionary(side: int) -> Tensor:
    """Return the round PSFs (n, side, side) of the mixture, the point first."""
    kernels = []
    point = torch.zeros(side, side, dtype=torch.float64)
    point[side // 2, side // 2] = 1
    kernels.append(point)
    radius = FINEST_RADIUS
    while radius <= side / 2:
        kernels.append(_framed(defocus(radius), side))
        radius *= GROWTH
    deviation = FINEST_DEVIATION
    while deviation <= side / 4:
        kernels.append(gaussian(deviation, side))
        deviation *= GROWTH
    return torch.stack(kernels)


def _framed(kernel: Tensor, side: int) -> Tensor:
    spare = (side - kernel.shape[0]) // 2
    return torch.nn.functional.pad(kernel, (spare,) * 4)


def _transfer(distance: Tensor, seen: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Return cycles per pixel across the edge, and the modulation transfer, by the standard's way."""
    count = 2 * reach * OVERSAMPLING
    index = ((distance + reach) * OVERSAMPLING).long().clamp(0, count - 1)
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, index, seen)
    number = torch.bincount(index, minlength=count).to(torch.float64)
    filled = torch.nonzero(number > 0)[:, 0]
    # A bin that the slant never reaches takes its neighbour's value.
    nearest = filled[(torch.arange(count)[:, None] - filled).abs().argmin(1)]
    profile = total[nearest] / number[nearest]
    spread = (profile[2:] - profile[:-2]) / 2
    window = torch.hamming_window(len(spread), periodic=False, dtype=torch.float64)
    size = 8 * OVERSAMPLING * reach
    transfer = torch.fft.rfft(window * spread, size).abs()
    frequency = torch.fft.rfftfreq(size, dtype=torch.float64) * OVERSAMPLING
    kept = frequency <= 1.0
    frequency, transfer = frequency[kept], transfer[kept] / transfer[0]
    # The difference over two bins and the bin itself pass less of fine detail; both are known.
    step = torch.special.sinc(2 * frequency / OVERSAMPLING) * torch.special.sinc(frequency / OVERSAMPLING)
    return frequency, transfer / step
