"""Point spread functions: makers, the door for measured ones, and the centring check.

A PSF is the picture of one bright point. Here it is a tensor ``(h, w)``, or ``(C, h, w)`` with one PSF a channel, whose
sum is 1 (a blur moves light and makes none) and whose centre is the pixel ``(h // 2, w // 2)``, for even sizes too.
PSFs are used in a *convolution*. ``torch.nn.functional.conv2d`` correlates: whoever hands a PSF to it flips it first,
as :func:`convpinv.deblur` does at its door.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convpinv import arguments

__all__ = ["Centring", "airy", "box", "centring", "defocus", "from_array", "gaussian", "moffat", "motion", "parse"]

# A PSF whose centre of mass lies further than this from its centre pixel earns a warning.
CENTRING_TOLERANCE = 1.0
# First zero of the Bessel function J1: the first dark ring of the Airy pattern.
AIRY_FIRST_ZERO = 3.8317059702075123
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
    radius = _odd_grid("psf.gaussian", size, math.ceil(4 * sigma), f"sigma {sigma:g}")
    profile = torch.exp(-0.5 * (radius / sigma) ** 2)
    return _normalised(profile[:, None] * profile[None, :])


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
    _check_extent("psf.motion", math.ceil(length), f"length {length:g}")
    direction = math.radians(arguments.finite("psf.motion", "angle", angle) % 180.0)
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
    return _normalised(torch.from_numpy(picture + picture[::-1, ::-1]))


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
    pixels = _odd_grid("psf.defocus", None, max(0, math.ceil(radius - 0.5)), f"radius {radius:g}")
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
    return _normalised(covered.clamp(min=0))


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
    _check_extent("psf.box", max(rows, columns), f"size {rows}x{columns}")
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
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    # The light outside radius R is (1 + (R/α)²)^(1 − beta) of the whole; in logarithms, for beta close to 1 overflows.
    exponent = -math.log(MOFFAT_LOST_LIGHT) / (beta - 1)
    reach = math.ceil(alpha * math.sqrt(math.expm1(min(exponent, 40.0))))
    radius = _odd_grid("psf.moffat", size, reach, f"fwhm {fwhm:g} with beta {beta:g}")
    squares = (radius[:, None] ** 2 + radius[None, :] ** 2) / alpha**2
    return _normalised((1 + squares) ** (-beta))


def airy(radius: float, size: int | None = None) -> Tensor:
    """Return the Airy PSF of an ideal lens with a round aperture.

    ``psf(r) ∝ (2 J₁(v) / v)²`` with ``v = 3.8317 r / radius``, sampled at the pixel centres.

    Parameters
    ----------
    radius
        Of the first dark ring, in pixels, above 0: 1.22 · wavelength · f-number / pixel pitch.
    size
        Rows and columns, an odd integer; by default up to six of these radii, which holds 97 % of the light.

    Returns
    -------
    Tensor
        ``(size, size)``, float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If ``radius`` is not above 0 or ``size`` not an odd integer.

    Notes
    -----
    Cost: O(size²). One wavelength, no central obstruction. Source: M. Born and E. Wolf, Principles of Optics, 8.5.2.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> dark_ring = psf.airy(4.0)
    >>> bool(dark_ring[24, 28] < 1e-12), dark_ring.shape
    (True, torch.Size([49, 49]))
    """
    radius = arguments.positive("psf.airy", "radius", radius)
    axis = _odd_grid("psf.airy", size, math.ceil(6 * radius), f"radius {radius:g}")
    argument = AIRY_FIRST_ZERO / radius * torch.hypot(axis[:, None], axis[None, :])
    amplitude = 2 * torch.special.bessel_j1(argument) / argument.clamp(min=1e-300)
    return _normalised(torch.where(argument == 0, torch.ones_like(amplitude), amplitude) ** 2)


def from_array(array: Any) -> Tensor:
    """Return a measured PSF, checked and normalised.

    ``psf = array / sum(array)``, for each channel by its own sum. The centre stays at ``(h // 2, w // 2)``: nothing is
    shifted or cut; :func:`centring` says when the light lies elsewhere.

    Parameters
    ----------
    array
        Array or tensor ``(h, w)``, or ``(C, h, w)`` with one PSF a channel; real, of any integer or floating dtype and
        byte order. Small negative values, as measurements have them, are kept.

    Returns
    -------
    Tensor
        The same shape, float64, on the CPU, sum 1 a channel; a copy, without gradient.

    Raises
    ------
    ArgumentError
        If the shape is another, a value is NaN, infinite or complex, or a channel's sum is not positive.

    Notes
    -----
    Cost: O(C h w). Assumed and unchecked: the background (dark level) has been subtracted.

    Examples
    --------
    >>> import numpy as np
    >>> from convpinv.imaging import psf
    >>> psf.from_array(np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]))[1, 1]
    tensor(0.5000, dtype=torch.float64)
    """
    return arguments.psf("psf.from_array", "array", array)


@dataclass(frozen=True)
class Centring:
    """Where the light of a PSF lies: rows and columns from the centre to the centre of mass, and a warning."""

    rows: float
    columns: float
    warning: str | None


def centring(psf: Tensor) -> Centring:
    """Say how far the centre of mass of a PSF lies from its centre pixel ``(h // 2, w // 2)``.

    ``offset = Σ p · psf[p] − centre``; of several channels the one that lies farthest off is reported. Nothing is
    shifted: a camera-shake PSF may truly lie to one side, and moving it would move the picture.

    Parameters
    ----------
    psf
        ``(h, w)`` or ``(C, h, w)`` with sum 1 a channel, as :func:`from_array` gives it.

    Returns
    -------
    Centring
        Offsets in pixels, and a sentence where they exceed one pixel.

    Notes
    -----
    Cost: O(C h w). A background left in a measured PSF pulls the centre of mass to the middle of the array.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.centring(psf.box(4))
    Centring(rows=-0.5, columns=-0.5, warning=None)
    """
    stack = psf.detach().reshape(-1, *psf.shape[-2:]).to("cpu", torch.float64)
    height, width = stack.shape[-2:]
    rows = (stack.sum(-1) * (torch.arange(height, dtype=torch.float64) - height // 2)).sum(-1)
    columns = (stack.sum(-2) * (torch.arange(width, dtype=torch.float64) - width // 2)).sum(-1)
    farthest = int(torch.argmax(torch.maximum(rows.abs(), columns.abs())))
    row, column = float(rows[farthest]), float(columns[farthest])
    if max(abs(row), abs(column)) <= CENTRING_TOLERANCE:
        return Centring(row, column, None)
    ways = [
        f"{abs(offset):.1f} px {after if offset > 0 else before}"
        for offset, before, after in ((row, "above", "below"), (column, "left of", "right of"))
        if abs(offset) > 0.05
    ]
    warning = (
        f"the centre of mass of the PSF lies {' and '.join(ways)} its centre pixel ({height // 2}, {width // 2}): the "
        "result is moved by as much the other way; if the PSF was cut out of a larger picture, cut it about its centre"
    )
    return Centring(row, column, warning)


def parse(spec: str) -> Tensor:
    """Return the PSF that a text such as ``"gaussian:sigma=1.6"`` describes.

    The text is the maker's name, a colon, and its parameters ``name=value`` with commas between them; the parameters
    are those of the makers in this module. A box of unequal sides is ``box:size=3x5``, rows first.

    Parameters
    ----------
    spec
        ``gaussian:sigma=1.6``, ``motion:length=25,angle=30``, ``defocus:radius=5``, ``box:size=4``, ``box:size=3x5``,
        ``moffat:fwhm=4,beta=3``, ``airy:radius=3``; upper and lower case and spaces make no difference.

    Returns
    -------
    Tensor
        What the maker returns: float64, on the CPU, sum 1.

    Raises
    ------
    ArgumentError
        If the maker or a parameter is unknown, missing, twice there or not a number; the message lists what there is.

    Notes
    -----
    Cost: that of the maker. Files are not read here: read the picture and give it to :func:`from_array`.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.parse("box:size=3x5").shape
    torch.Size([3, 5])
    """
    if not isinstance(spec, str):
        arguments.fail("psf.parse", "spec", arguments.describe(spec), "it must be a text such as 'gaussian:sigma=1.6'")
    name, _, listed = (part.strip() for part in spec.lower().partition(":"))
    if name not in MAKERS:
        known = ", ".join(f"'{maker.example}'" for maker in MAKERS.values())
        arguments.fail(
            "psf.parse", "spec", repr(spec), f"it may be like {known}; a PSF in a file is read as a picture first"
        )
    maker = MAKERS[name]
    values: dict[str, Any] = {}
    for item in (part.strip() for part in listed.split(",") if part.strip()):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in maker.parameters or key in values:
            trouble = "is given twice" if key in values else f"is not among them: {', '.join(maker.parameters)}"
            arguments.fail(
                "psf.parse", "spec", repr(spec), f"the parameter '{key}' {trouble}; it may be like '{maker.example}'"
            )
        try:
            values[key] = maker.parameters[key](text)
        except ValueError:
            arguments.fail(
                "psf.parse", "spec", repr(spec), f"'{key}={text}' cannot be read; it may be like '{maker.example}'"
            )
    missing = [key for key in maker.required if key not in values]
    if missing:
        arguments.fail(
            "psf.parse", "spec", repr(spec), f"it lacks {', '.join(missing)}; it may be like '{maker.example}'"
        )
    return maker.make(**values)


def for_pictures(call: str, psf: Any, pictures: arguments.Pictures) -> list[Tensor]:
    """Return the PSFs (h, w) of a public call, one for all planes or one a channel, checked against its pictures."""
    checked = parse(psf) if isinstance(psf, str) else arguments.psf(call, "psf", psf)
    arguments.psf_fits(call, checked, pictures)
    return list(checked.to(pictures.stack.device, pictures.stack.dtype).reshape(-1, *checked.shape[-2:]))


def _sides(text: str) -> int | tuple[int, int]:
    """Read ``4`` or ``3x5``."""
    rows, cross, columns = text.replace("×", "x").partition("x")
    return (int(rows), int(columns)) if cross else int(rows)


@dataclass(frozen=True)
class _Maker:
    """How a text calls a maker."""

    make: Callable[..., Tensor]
    parameters: dict[str, Callable[[str], Any]]
    required: tuple[str, ...]
    example: str


MAKERS = {
    "gaussian": _Maker(gaussian, {"sigma": float, "size": int}, ("sigma",), "gaussian:sigma=1.6"),
    "motion": _Maker(motion, {"length": float, "angle": float}, ("length",), "motion:length=25,angle=30"),
    "defocus": _Maker(defocus, {"radius": float}, ("radius",), "defocus:radius=5"),
    "box": _Maker(box, {"size": _sides}, ("size",), "box:size=3x5"),
    "moffat": _Maker(moffat, {"fwhm": float, "beta": float, "size": int}, ("fwhm",), "moffat:fwhm=4,beta=3"),
    "airy": _Maker(airy, {"radius": float, "size": int}, ("radius",), "airy:radius=3"),
}


def _odd_grid(call: str, size: int | None, reach: int, reason: str) -> Tensor:
    """Return the pixel positions −n … n along one axis, for a given odd size or the reach that the PSF asks for."""
    if size is None:
        _check_extent(call, 2 * reach + 1, reason)
    else:
        reach = arguments.odd_size(call, "size", size) // 2
        _check_extent(call, 2 * reach + 1, f"size {size}")
    return torch.arange(-reach, reach + 1, dtype=torch.float64)


def _check_extent(call: str, extent: int, reason: str) -> None:
    if extent > LARGEST_SIZE:
        arguments.fail(
            call, reason.split()[0], reason.split(maxsplit=1)[1], f"the PSF would be wider than {LARGEST_SIZE} pixels"
        )


def _normalised(picture: Tensor) -> Tensor:
    """Scale to sum 1; twice, so that the sum is exact to rounding."""
    picture = picture / picture.sum()
    return picture / picture.sum()
