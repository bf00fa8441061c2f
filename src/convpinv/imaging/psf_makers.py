"""The makers of point spread functions; :mod:`convpinv.imaging.psf` is where they are public."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from convpinv import arguments

__all__ = ["airy", "box", "defocus", "gaussian", "moffat", "motion"]

# First zero of the Bessel function J1: the first dark ring of the Airy pattern.
AIRY_FIRST_ZERO = 3.8317059702075123
# Beyond this argument the Bessel function's own argument reduction gives out, and its light is nothing.
AIRY_FARTHEST = 1e8
# The Moffat PSF is cut where this share of its light lies outside.
MOFFAT_LOST_LIGHT = 0.01
# A maker's PSF is never wider than this: a slip of the keyboard should not fill the memory.
LARGEST_SIZE = 4097


def gaussian(sigma: float, size: int | None = None) -> Tensor:
    """Return the Gaussian PSF.

    ``psf(r) ∝ exp(−r² / (2 sigma²))``, sampled at the pixel centres and normalised to sum 1.

    Parameters
    ----------
    sigma
        Standard deviation in pixels, above 0.
    size
        Rows and columns, an odd integer; by default ``2 ceil(4 sigma) + 1``, which leaves out 6e-5 of each axis.

    Returns
    -------
    Tensor
        ``(size, size)``, float64, on the CPU, sum 1, centred at ``size // 2``.

    Raises
    ------
    ArgumentError
        If ``sigma`` is not above 0 or ``size`` not an odd integer of at least 1.

    Notes
    -----
    Cost: O(size²). Sampling, not integration over the pixel's area, as in ``scipy.ndimage.gaussian_filter``.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.gaussian(1.6).shape
    torch.Size([15, 15])
    """
    sigma = arguments.positive("psf.gaussian", "sigma", sigma)
    radius = odd_grid("psf.gaussian", size, math.ceil(4 * sigma), f"sigma {sigma:g}")
    profile = torch.exp(-0.5 * (radius / sigma) ** 2)
    return normalised(profile[:, None] * profile[None, :])


def motion(length: float, angle: float = 0.0) -> Tensor:
    """Return the PSF of a straight, even motion during the exposure.

    A segment of the given length through the centre; each pixel holds the share of the segment that crosses it, found
    exactly: ``psf[p] = |segment ∩ pixel p| / length``. It has no jagged steps and no light is lost.

    Parameters
    ----------
    length
        Way of the motion in pixels, above 0. Up to 1 it stays within one pixel.
    angle
        In degrees, counter-clockwise from the x-axis as seen in the picture: 0 is horizontal, 90 vertical, and 30
        runs from the lower left to the upper right.

    Returns
    -------
    Tensor
        ``(h, w)``, both odd and as small as the segment allows, float64, on the CPU, sum 1, point-symmetric.

    Raises
    ------
    ArgumentError
        If ``length`` is not above 0 or ``angle`` is not finite.

    Notes
    -----
    Cost: O(length log length) for the segment, O(h w) for the picture of it.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.motion(5)
    tensor([[0.2000, 0.2000, 0.2000, 0.2000, 0.2000]], dtype=torch.float64)
    """
    length = arguments.positive("psf.motion", "length", length)
    check_extent("psf.motion", math.ceil(length), f"length {length:g}")
    direction = math.radians(arguments.finite("psf.motion", "angle", angle) % 180.0)
    if length <= 1:
        return torch.ones(1, 1, dtype=torch.float64)
    # Rows count downwards in a picture, hence the minus.
    row_step, column_step = -math.sin(direction), math.cos(direction)
    # Where the segment crosses from one pixel to the next, along each axis.
    cuts = [np.array([-length / 2, length / 2])]
    for step in (row_step, column_step):
        if abs(step) * length > 1e-9:
            reach = math.floor(abs(step) * length / 2 + 0.5)
            cuts.append((np.arange(-reach, reach) + 0.5) / step)
    positions = np.sort(np.clip(np.concatenate(cuts), -length / 2, length / 2))
    pieces, middles = np.diff(positions), (positions[1:] + positions[:-1]) / 2
    # Where the segment runs through a corner, rounding leaves a piece of 1e-16 in a third pixel.
    kept = pieces > 1e-12 * length
    pieces, middles = pieces[kept], middles[kept]
    rows, columns = (np.rint(middles * step).astype(int) for step in (row_step, column_step))
    half_height, half_width = int(np.abs(rows).max()), int(np.abs(columns).max())
    picture = np.zeros((2 * half_height + 1, 2 * half_width + 1))
    np.add.at(picture, (rows + half_height, columns + half_width), pieces)
    # Rounding may send a corner's light to one side only; the segment itself is point-symmetric.
    return normalised(torch.from_numpy(picture + picture[::-1, ::-1]))


def defocus(radius: float) -> Tensor:
    """Return the PSF of a lens out of focus: an evenly lit disk.

    Each pixel holds the share of the disk that covers it, by the exact area of the circle within the pixel:
    ``psf[p] = |disk ∩ pixel p| / (π radius²)``.

    Parameters
    ----------
    radius
        Of the disk, in pixels, above 0. Up to 0.5 it stays within one pixel.

    Returns
    -------
    Tensor
        ``(n, n)`` with ``n = 2 ceil(radius − 1/2) + 1``, float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If ``radius`` is not above 0.

    Notes
    -----
    Cost: O(n²). Geometrical optics: diffraction at the aperture's edge is left out.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.defocus(5).shape
    torch.Size([11, 11])
    """
    radius = arguments.positive("psf.defocus", "radius", radius)
    if radius <= 0.5:
        return torch.ones(1, 1, dtype=torch.float64)
    pixels = odd_grid("psf.defocus", None, max(0, math.ceil(radius - 0.5)), f"radius {radius:g}")
    edges = torch.cat([pixels - 0.5, pixels[-1:] + 0.5])

    def quarter(x: Tensor, y: Tensor) -> Tensor:
        """Area of the disk in [0, x] × [0, y], signed: odd in x and in y."""
        width, height = x.abs().clamp(max=radius), y.abs().clamp(max=radius)
        turn = torch.minimum((radius**2 - height**2).clamp(min=0).sqrt(), width)
        return torch.sign(x) * torch.sign(y) * (turn * height + under_arc(width) - under_arc(turn))

    def under_arc(x: Tensor) -> Tensor:
        """Integral of sqrt(radius² − t²) for t from 0 to x."""
        return 0.5 * (x * (radius**2 - x**2).clamp(min=0).sqrt() + radius**2 * torch.asin((x / radius).clamp(max=1)))

    corners = quarter(edges[None, :], edges[:, None])
    covered = corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]
    return normalised(covered.clamp(min=0))


def box(size: int | tuple[int, int]) -> Tensor:
    """Return the PSF of an evenly lit rectangle: pixel binning, or a drift along an axis.

    ``psf = 1 / (rows · columns)`` at each of its taps.

    Parameters
    ----------
    size
        Rows and columns: an integer of at least 1 or a pair of them. With an even size the taps sit at the indices
        0 … k − 1 and the centre is k // 2 as everywhere, so the light lies half a pixel before the centre.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If ``size`` is neither an integer of at least 1 nor a pair of them.

    Notes
    -----
    Cost: O(rows · columns).

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.box((1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]], dtype=torch.float64)
    """
    rows, columns = arguments.integer_pair("psf.box", "size", size, 1)
    check_extent("psf.box", max(rows, columns), f"size {rows}x{columns}")
    return torch.full((rows, columns), 1.0 / (rows * columns), dtype=torch.float64)


def moffat(fwhm: float, beta: float = 4.765, size: int | None = None) -> Tensor:
    """Return the Moffat PSF, which the air makes of a star.

    ``psf(r) ∝ (1 + (r / α)²)^(−beta)`` with ``α = fwhm / (2 sqrt(2^(1/beta) − 1))``, sampled at the pixel centres.

    Parameters
    ----------
    fwhm
        Full width at half maximum in pixels, above 0.
    beta
        How fast the wings fall, above 1; 4.765 follows from Kolmogorov turbulence, real telescopes show 2.5 to 4.
    size
        Rows and columns, an odd integer; by default the circle that holds 99 % of the light.

    Returns
    -------
    Tensor
        ``(size, size)``, float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If ``fwhm`` is not above 0, ``beta`` not above 1, or ``size`` not an odd integer.

    Notes
    -----
    Cost: O(size²). Source: A. F. J. Moffat, Astronomy and Astrophysics 3 (1969); the value of beta: I. Trujillo et al.,
    Monthly Notices of the Royal Astronomical Society 328 (2001).

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> star = psf.moffat(4.0, beta=3.0)
    >>> star.shape, round(float(star[12, 14] / star[12, 12]), 6)  # half the maximum, two pixels out
    (torch.Size([25, 25]), 0.5)
    """
    fwhm = arguments.positive("psf.moffat", "fwhm", fwhm)
    beta = arguments.positive("psf.moffat", "beta", beta)
    if beta <= 1.0:
        arguments.fail("psf.moffat", "beta", f"{beta:g}", "it must be above 1, or the light has no finite sum")
    alpha = max(fwhm / (2 * math.sqrt(math.expm1(math.log(2) / beta))), 1e-300)
    # The light outside radius R is (1 + (R/α)²)^(1 − beta) of the whole; in logarithms, for beta close to 1 overflows.
    exponent = -math.log(MOFFAT_LOST_LIGHT) / (beta - 1)
    reach = math.ceil(alpha * math.sqrt(math.expm1(min(exponent, 40.0))))
    radius = odd_grid("psf.moffat", size, reach, f"fwhm {fwhm:g} with beta {beta:g}")
    squares = (radius[:, None] / alpha).square() + (radius[None, :] / alpha).square()
    return normalised(torch.exp(-beta * torch.log1p(squares)))


def airy(radius: float, size: int | None = None, obstruction: float = 0.0) -> Tensor:
    """Return the Airy PSF of an ideal lens or mirror with a round aperture.

    ``psf(r) ∝ (2 J₁(v) / v − ε² · 2 J₁(ε v) / (ε v))²`` with ``v = 3.8317 r / radius`` and ε the obstruction,
    sampled at the pixel centres.

    Parameters
    ----------
    radius
        Of the first dark ring, in pixels, above 0: 1.22 · wavelength · f-number / pixel pitch.
    size
        Rows and columns, an odd integer; by default up to six of these radii, which holds 97 % of the light of a
        free aperture.
    obstruction
        Diameter of the disk that a secondary mirror takes out of the middle of the aperture, as a share of the
        aperture's own, from 0 to below 1. The dark ring then lies somewhat further in than ``radius``, which stays
        that of the free aperture, and the bright rings around it are brighter.

    Returns
    -------
    Tensor
        ``(size, size)``, float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If ``radius`` is not above 0, ``size`` not an odd integer, or ``obstruction`` not from 0 to below 1.

    Notes
    -----
    Cost: O(size²). One wavelength, no struts. Source: M. Born and E. Wolf, Principles of Optics, 8.5.2.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> dark_ring = psf.airy(4.0)
    >>> bool(dark_ring[24, 28] < 1e-12), dark_ring.shape
    (True, torch.Size([49, 49]))
    """
    radius = arguments.positive("psf.airy", "radius", radius)
    axis = odd_grid("psf.airy", size, math.ceil(6 * radius), f"radius {radius:g}")
    obstruction = arguments.non_negative("psf.airy", "obstruction", obstruction)
    if obstruction >= 1.0:
        arguments.fail("psf.airy", "obstruction", f"{obstruction:g}", "it must be below 1, the whole aperture")
    argument = (AIRY_FIRST_ZERO * torch.hypot(axis[:, None], axis[None, :]) / radius).clamp(max=AIRY_FARTHEST)
    return normalised((disk_amplitude(argument) - obstruction**2 * disk_amplitude(obstruction * argument)) ** 2)


def disk_amplitude(argument: Tensor) -> Tensor:
    """Return 2 J₁(v) / v, the field of an evenly lit disk, 1 at v = 0."""
    ratio = 2 * torch.special.bessel_j1(argument) / argument.clamp(min=1e-300)
    return torch.where(argument == 0, torch.ones_like(ratio), ratio)


def odd_grid(call: str, size: int | None, reach: int, reason: str) -> Tensor:
    """Return the pixel positions −n … n along one axis, for a given odd size or the reach that the PSF asks for."""
    if size is None:
        check_extent(call, 2 * reach + 1, reason)
    else:
        reach = arguments.odd_size(call, "size", size) // 2
        check_extent(call, 2 * reach + 1, f"size {size}")
    return torch.arange(-reach, reach + 1, dtype=torch.float64)


def check_extent(call: str, extent: int, reason: str) -> None:
    if extent > LARGEST_SIZE:
        arguments.fail(
            call, reason.split()[0], reason.split(maxsplit=1)[1], f"the PSF would be wider than {LARGEST_SIZE} pixels"
        )


def normalised(picture: Tensor) -> Tensor:
    """Scale to sum 1; twice, so that the sum is exact to rounding."""
    picture = picture / picture.sum()
    return picture / picture.sum()
