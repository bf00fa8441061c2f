"""The doctor of point spread functions: what is wrong with a measured one, what of it can be put right, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from convpinv import arguments
from convpinv.imaging import psf_parse
from convpinv.imaging.psf_check import centring
from convpinv.imaging.psf_orientation import orientation_of_plane
from convpinv.imaging.psf_symmetry import NORMAL_MEDIAN, border_noise, circular_symmetry, linear_symmetry

__all__ = ["Examination", "Finding", "examine", "recentred"]

# A sum this near to 1 is one: half precision rounds no worse.
UNIT_SUM = 5e-3
# A background is looked for in arrays of this many rows and columns: in smaller ones the border may well be light.
LEAST_SIZE = 9
RING = 2
# The ring is flat where its twelve parts agree to this share of their level. The tail of a round PSF has twice and
# more the light at the middle of a side than in the corner, the slowest of them (Moffat) too.
FLAT = 0.25
# Nor is it rough: the rings of an Airy pattern are as rough as they are bright.
ROUGH = 0.35
# What stands out of it is so many times its unevenness and its noise, and so large a share of its level: a PSF that
# fills its array falls from its middle to its border, and an even box has nothing that stands out.
ABOVE_UNEVENNESS = 10.0
ABOVE_NOISE = 6.0
ABOVE_LEVEL = 0.05
# A background that holds less of the light than this does nothing.
LEAST_BACKGROUND = 2e-3
# Values below zero that matter: both their share of the light and the largest of them, against the peak.
NEGATIVE_LIGHT = 0.05
NEGATIVE_PEAK = 0.02
# A PSF counts as wrapped where the torus makes it so much more symmetric.
WRAPPED_GAIN = 0.5
ROUNDING = 1e-9
# A lopsided one may be, where rolling it by half its array gathers its light so much.
WRAPPED_SPREAD = 0.5
# Keys' cubic between two pixels: of the short ones that keep the mean and slopes, the one that blurs least.
HALF_WAY = (-1 / 16, 9 / 16, 9 / 16, -1 / 16)
AS_IT_IS = "if it is meant so, give correct_psf=False"


@dataclass(frozen=True)
class Finding:
    """One thing that was found on a PSF.

    ``name`` is one word for programs: "sum", "background", "inverted", "negative", "off-centre", "wrapped", "even",
    "empty-frame" or "orientation". ``seen``, ``done`` and ``remedy`` are for people; ``corrected`` says whether the
    PSF was changed, and ``matters`` whether a result may depend on it.
    """

    name: str
    seen: str
    done: str
    remedy: str = ""
    corrected: bool = False
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.seen}: {self.done}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Examination:
    """A PSF, put right where that is certain, sum 1 a channel, float64 on the CPU; and what was found on it."""

    psf: Tensor
    findings: tuple[Finding, ...]


def examine(psf: Any, *, correct: bool = True) -> Examination:
    """Look a PSF over, and put right what is certain.

    ======================= ========================================================== =========================
    found                   by                                                         what is done
    ======================= ========================================================== =========================
    sum not 1               its sum                                                    scaled
    constant background     a flat ring along the array's border, far from zero        subtracted
    dark on bright          a flat ring above nearly all the rest                      named
    light across the edges  point symmetry on the torus, as FFT code keeps PSFs        rolled to the centre
    off centre              point symmetry about another pixel, and more than a point  recentred by whole pixels
    even size               the size; symmetry about a point between pixels            named: :func:`recentred`
    off centre, lopsided    the centre of mass, more than a pixel away                 named
    negative values         5 % of the light, 2 % of the peak                          named
    rows of zeros           equally many on opposite sides                             named; not worked with
    ======================= ========================================================== =========================

    Parameters
    ----------
    psf
        Array or tensor ``(h, w)``, or ``(C, h, w)`` with one PSF a channel; real, any dtype.
    correct
        Whether to put right what is certain. False names it only; the sum is 1 in any case.

    Returns
    -------
    Examination
        ``psf``, float64 on the CPU with sum 1 a channel, and ``findings``, a tuple of :class:`Finding`.

    Raises
    ------
    ArgumentError
        If the shape is another, a value is NaN, infinite or complex, or a channel's sum is not positive.

    Notes
    -----
    Cost: O(C h w log(h w)). A background is subtracted channel by channel; a shift is undone only where all channels
    agree on it, for they may be shifted against each other in truth. Not to be told from the array: a PSF turned by
    180 degrees (:func:`orientation` asks the picture), pixels of another size than the picture's, and a haze that is
    even over all of the array and beyond, which is taken for a background.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> shifted = psf.gaussian(1.5, 25).roll((2, -1), (0, 1))
    >>> found = psf.examine(100 * shifted + 3)
    >>> [finding.name for finding in found.findings]
    ['sum', 'background', 'off-centre']
    >>> print(found.findings[2])  # doctest: +ELLIPSIS
    the PSF is point-symmetric about its pixel (14, 11) and not about its centre pixel (12, 12): it was recentred...
    """
    return _examined("psf.examine", psf, correct)


def recentred(psf: Any) -> Tensor:
    """Return a PSF of odd size whose centre of mass, to the nearest half pixel, lies on its centre pixel.

    Whole pixels by moving the frame; half pixels by Keys' cubic interpolation along each axis,
    ``(−k[−2] + 9 k[−1] + 9 k[0] − k[1]) / 16``.

    Parameters
    ----------
    psf
        Array or tensor ``(h, w)`` or ``(C, h, w)``; all channels are moved alike, by what their mean asks for.

    Returns
    -------
    Tensor
        Odd rows and columns, float64 on the CPU, sum 1 a channel.

    Raises
    ------
    ArgumentError
        As :func:`examine`.

    Notes
    -----
    Cost: O(C h w). An even-sized PSF that is symmetric about the middle of its array moves a picture by half a pixel
    against its centre ``(h // 2, w // 2)``; recentred it does not. The interpolation costs a sharp PSF little (0.2 dB
    on a Gaussian of σ = 1 or a disk of radius 3 at 1 % of noise, against the PSF sampled anew).

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.recentred(psf.box((1, 2)))
    tensor([[-0.0312,  0.2500,  0.5625,  0.2500, -0.0312]], dtype=torch.float64)
    """
    plane = arguments.psf("psf.recentred", "psf", psf)
    stack = plane.reshape(-1, *plane.shape[-2:])
    mean = stack.mean(0)
    for axis in (-2, -1):
        position = torch.arange(mean.shape[axis], dtype=torch.float64)
        middle = round(2 * float((mean.sum(-1 if axis == -2 else -2) * position).sum())) / 2
        if middle != int(middle):
            stack, middle = _moved_half(stack, axis), middle + 1.5
        stack = _framed(stack, int(middle), axis)
    stack = stack / stack.sum((-2, -1), keepdim=True)
    return stack.reshape(*plane.shape[:-2], *stack.shape[-2:])


def for_call(call: str, psf: Any, pictures: arguments.Pictures, correct: bool) -> tuple[list[Tensor], tuple[str, ...]]:
    """Return the PSFs (h, w) of a public call, one for all planes or one a channel, and what is to be said of them."""
    if isinstance(psf, str):  # a maker's PSF is what its text says
        return psf_parse.for_pictures(call, psf, pictures), ()
    found = _examined(call, psf, correct)
    stack = found.psf.reshape(-1, *found.psf.shape[-2:])
    lit = _without_empty_frame(stack)
    arguments.psf_fits(call, lit if found.psf.ndim == 3 else lit[0], pictures)
    stack = stack.to(pictures.stack.device, pictures.stack.dtype)
    # Each by itself, so that a channel comes out as it would alone.
    kernels = [_without_empty_frame(plane[None])[0] for plane in stack]
    findings = [*found.findings, *_turned(pictures.stack[0], kernels[0])]
    return kernels, tuple(str(finding) for finding in findings if finding.matters)


def _turned(plane: Tensor, kernel: Tensor) -> list[Finding]:
    """Name a PSF that fits the picture better the other way round."""
    found = orientation_of_plane(plane, kernel)
    if not found.turned:
        return []
    return [
        Finding(
            "orientation",
            "turned by 180 degrees (flipped both ways) the PSF fits the picture better, by "
            f"{100 * (found.ratio - 1):.0f} %",
            "it was used as it is",
            "if it was made for a correlation, or turned by a file's convention, give it flipped: psf[::-1, ::-1]",
        )
    ]


def _examined(call: str, psf: Any, correct: bool) -> Examination:
    raw = arguments.real_tensor(call, "psf", psf).to("cpu", torch.float64)
    findings = []
    whole = raw
    if raw.ndim in (2, 3) and raw.numel() and arguments.all_finite(raw):
        # Before the sum is looked at: too much background subtracted may have made it negative.
        cleaned, findings = _without_background(raw.reshape(-1, *raw.shape[-2:]), correct)
        whole = cleaned.reshape(raw.shape)
    normalised = arguments.psf(call, "psf", whole)
    totals = raw.sum((-2, -1)).reshape(-1)
    if bool(((totals - 1).abs() > UNIT_SUM).any()):
        sums = ", ".join(f"{float(total):.4g}" for total in totals)
        seen = f"the PSF is not normalised, its sum is {sums}"
        done = "it was scaled to sum 1, for a blur moves light and makes none"
        findings = [Finding("sum", seen, done, corrected=True), *findings]
    stack = normalised.reshape(-1, *normalised.shape[-2:])
    stack, found = _placed(stack, correct)
    findings += found
    findings += _negative(stack)
    height, width = _without_empty_frame(stack).shape[-2:]
    if (height, width) != tuple(stack.shape[-2:]):
        seen = f"the outermost rows or columns of the PSF ({stack.shape[-2]}x{stack.shape[-1]}) are zero"
        done = f"restoring works with the {height}x{width} about its centre pixel, which is the same blur"
        findings.append(Finding("empty-frame", seen, done, matters=False))
    stack = stack / stack.sum((-2, -1), keepdim=True)
    return Examination(stack.reshape(*raw.shape[:-2], *stack.shape[-2:]), tuple(findings))


@dataclass(frozen=True)
class _Ground:
    """The border of a PSF's array: its level, its noise, how far its parts differ, and the PSF's two extremes."""

    level: float
    noise: float
    unevenness: float
    above: float
    below: float

    @property
    def is_background(self) -> bool:
        """Whether the border is flat, not zero, and something stands out of it."""
        needed = (ABOVE_UNEVENNESS * self.unevenness, ABOVE_NOISE * self.noise, ABOVE_LEVEL * abs(self.level))
        flat = self.unevenness <= FLAT * abs(self.level) and self.noise <= ROUGH * abs(self.level)
        return flat and max(self.above, self.below) > max(needed)


def _ground(plane: Tensor) -> _Ground | None:
    """Look along the border; None where the array is too small for light and border to be told apart."""
    if min(plane.shape) < LEAST_SIZE:
        return None
    strips = (plane[:RING], plane[-RING:], plane[:, :RING].T, plane[:, -RING:].T)
    parts = [part.flatten() for strip in strips for part in strip.tensor_split(3, dim=1)]
    medians = torch.stack([part.median() for part in parts])
    ring = torch.cat(parts)
    level = ring.median()
    # The mean is the sharper estimate where there is noise; light that reaches the border is no part of it.
    noise = float((ring - level).abs().median()) / NORMAL_MEDIAN
    level = float(ring[(ring - level).abs() <= 3 * noise].mean())
    unevenness = float(medians.max() - medians.min())
    return _Ground(level, noise, unevenness, float(plane.max()) - level, level - float(plane.min()))


def _without_background(stack: Tensor, correct: bool) -> tuple[Tensor, list[Finding]]:
    """Subtract what PSFs (C, h, w) of any scale stand on, where that is evident."""
    planes, findings = [], []
    for plane in stack:
        scale = plane.abs().max().clamp(min=torch.finfo(plane.dtype).tiny)
        ground = _ground(plane / scale)
        if ground is None or not ground.is_background:
            planes.append(plane)
            continue
        own = float((plane / scale - ground.level).abs().sum())
        share = abs(ground.level) * plane.numel() / own
        if ground.below > ground.above:
            planes.append(plane)
            seen = "the PSF is dark on a bright, even ground"
            remedy = "if light is dark in it, give its negative: psf.max() - psf"
            findings.append(Finding("inverted", seen, "it was left as it is", remedy))
        elif share > LEAST_BACKGROUND:
            planes.append(plane - ground.level * scale if correct else plane)
            seen = (
                f"the PSF stands on a constant background (an offset) of {100 * ground.level / ground.above:.2g} % of "
                f"its peak, which adds up to {100 * share:.2g} % of its own light"
            )
            done = "it was subtracted" if correct else "it was left in, and takes contrast from the blur"
            findings.append(Finding("background", seen, done, AS_IT_IS if correct else "subtract it", correct))
        else:
            planes.append(plane)
    # One line is enough where the channels say alike.
    names = {finding.name: finding for finding in reversed(findings)}
    return torch.stack(planes), list(reversed(names.values()))


def _placed(stack: Tensor, correct: bool) -> tuple[Tensor, list[Finding]]:
    """Move a PSF that is certainly not where it should be; name one that may not be."""
    height, width = stack.shape[-2:]
    centre = (height // 2, width // 2)
    if any(int((plane != 0).sum()) == 1 for plane in stack):  # a shift, and nothing else that could speak
        return stack, _lopsided(stack)
    noises = [border_noise(plane) for plane in stack]
    lines = [linear_symmetry(plane, noise) for plane, noise in zip(stack, noises, strict=True)]
    if all(line.holds and (line.row, line.column) == centre for line in lines):
        return stack, []
    tori = [circular_symmetry(plane, noise) for plane, noise in zip(stack, noises, strict=True)]
    wrapped = all(
        torus.holds and torus.asymmetry < WRAPPED_GAIN * line.asymmetry - ROUNDING
        for torus, line in zip(tori, lines, strict=True)
    )
    points = {(torus.row, torus.column) for torus in (tori if wrapped else lines)}
    if len(points) > 1 or not (wrapped or all(line.holds for line in lines)):
        return stack, [*_even(stack), *_across_the_edges(stack), *_lopsided(stack)]

    ((row, column),) = points
    # Between two pixels the one after it: so an even-sized PSF that is symmetric in its array stays where it is.
    target = (int(row + 0.5), int(column + 0.5))
    if target == centre and not wrapped:
        return stack, _between(stack, row, column)
    seen = f"the PSF is point-symmetric about its pixel ({row:g}, {column:g}) and not about its centre pixel {centre}"
    done = "it was recentred, for else the result would be shifted by as much"
    name = "off-centre"
    if wrapped:
        name, seen = "wrapped", f"the light of the PSF runs across the edges of its array, about pixel {target}"
        done = "it was rolled to the centre"
    if not correct:
        finding = Finding(name, seen, "it was left as it is, and shifts the result", "move it to the centre pixel")
        return stack, [finding]
    if wrapped:
        moved = stack.roll((centre[0] - target[0], centre[1] - target[1]), (-2, -1))
        point = (row - target[0] + centre[0], column - target[1] + centre[1])
    else:
        moved = torch.stack([_completed(plane, row, column) for plane in stack])
        # A symmetric PSF that its array holds reaches no further than half of it; the PSF grows no larger.
        for axis, size, at, near in ((-2, height, row, target[0]), (-1, width, column, target[1])):
            reach = (size - 1) // 2 if at == near else size // 2
            moved = moved.narrow(axis, near + size - reach, 2 * reach + 1)
        point = (moved.shape[-2] // 2 + row - target[0], moved.shape[-1] // 2 + column - target[1])
    moved = moved / moved.sum((-2, -1), keepdim=True)
    return moved, [Finding(name, seen, done, AS_IT_IS, corrected=True), *_between(moved, *point)]


def _completed(plane: Tensor, row: float, column: float) -> Tensor:
    """Put a PSF into an array three times its size, and what its own array cut off into its place, by symmetry."""
    height, width = plane.shape
    large = pad(plane, (width, width, height, height))
    known = pad(torch.ones_like(plane), (width, width, height, height)) > 0
    # p ↔ s − p; the array is counted from its corner, which lies (height, width) before the PSF's.
    rows = round(2 * (row + height)) - torch.arange(3 * height)
    columns = round(2 * (column + width)) - torch.arange(3 * width)
    inside = ((rows >= 0) & (rows < 3 * height))[:, None] & ((columns >= 0) & (columns < 3 * width))
    mirrored = large[rows.clamp(0, 3 * height - 1)][:, columns.clamp(0, 3 * width - 1)]
    return torch.where(known, large, torch.where(inside, mirrored, torch.zeros_like(mirrored)))


def _framed(stack: Tensor, middle: int, axis: int) -> Tensor:
    """Pad with zeros along an axis until ``middle`` is its centre index, in an odd size; then cut zeros off evenly."""
    size = stack.shape[axis]
    reach = max(middle, size - 1 - middle)
    before, after = reach - middle, reach - (size - 1 - middle)
    stack = pad(stack, (0, 0, before, after) if axis == -2 else (before, after))
    lit = torch.nonzero((stack != 0).any(-1 if axis == -2 else -2).any(0))[:, 0]
    kept = max(reach - int(lit.min()), int(lit.max()) - reach, 0)
    return stack.narrow(axis, reach - kept, 2 * kept + 1)


def _moved_half(stack: Tensor, axis: int) -> Tensor:
    """Interpolate half way between neighbours: entry i of the result lies at i − 3/2 of the given array."""
    taps = stack.new_tensor(HALF_WAY)
    shape = (1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1)
    reach = (0, 0, 3, 3) if axis == -2 else (3, 3, 0, 0)
    return torch.nn.functional.conv2d(pad(stack, reach)[:, None], taps.reshape(shape))[:, 0]


def _without_empty_frame(stack: Tensor) -> Tensor:
    """Cut equally many rows, and columns, of zeros off opposite sides; the centre pixel h // 2 stays the same."""
    for axis in (-2, -1):
        size = stack.shape[axis]
        lit = torch.nonzero((stack != 0).any(-1 if axis == -2 else -2).any(0))[:, 0]
        first, last = int(lit.min()), int(lit.max())
        # An even size has one row more before its centre than after it.
        reach = max(size // 2 - first, last - size // 2)
        if reach < (size - 1) // 2:
            stack = stack.narrow(axis, size // 2 - reach, 2 * reach + 1)
        elif size % 2 == 0 and first > 0:
            stack = stack.narrow(axis, 1, size - 1)
    return stack


def _between(stack: Tensor, row: float, column: float) -> list[Finding]:
    """Name a PSF that is symmetric about a point between pixels."""
    ways = [way for way, at in (("row", row), ("column", column)) if at != int(at)]
    if not ways:
        return []
    height, width = stack.shape[-2:]
    return [
        Finding(
            "even",
            f"the PSF ({height}x{width}{', an even size' if height % 2 == 0 or width % 2 == 0 else ''}) is symmetric "
            f"about a point half a {' and half a '.join(ways)} before its centre pixel ({height // 2}, {width // 2})",
            "it was left as it is",
            "if that point is its true centre, the result is shifted by half a pixel: give psf.recentred(psf)",
        )
    ]


def _even(stack: Tensor) -> list[Finding]:
    """Name an even size whose light does not say where its centre is."""
    height, width = stack.shape[-2:]
    if height % 2 and width % 2:
        return []
    return [
        Finding(
            "even",
            f"the PSF has an even size ({height}x{width}) and no centre of its own",
            f"pixel ({height // 2}, {width // 2}) was taken for it",
            "if that is not its true centre, the result is shifted: give it in an odd size about its centre",
        )
    ]


def _across_the_edges(stack: Tensor) -> list[Finding]:
    """Name a PSF without symmetry whose light is gathered once its array is bent to a torus and cut through."""
    height, width = stack.shape[-2:]
    # Half a size further, where FFT code has the centre of what is stored from its corner.
    rolled = stack.roll((height // 2, width // 2), (-2, -1))
    if float(_spread(rolled.mean(0))) > WRAPPED_SPREAD * float(_spread(stack.mean(0))):
        return []
    seen = "the light of the PSF lies along the edges of its array, and next to none in the middle"
    return [
        Finding("wrapped", seen, "it was left as it is", "if its origin is the corner pixel, give np.fft.fftshift(psf)")
    ]


def _spread(plane: Tensor) -> Tensor:
    """Return the variance of the light about its own centre of mass."""
    light = plane.abs() / plane.abs().sum()
    total = light.new_zeros(())
    for axis in (0, 1):
        profile = light.sum(1 - axis)
        position = torch.arange(len(profile), dtype=light.dtype)
        total += (profile * position.square()).sum() - (profile * position).sum().square()
    return total


def _lopsided(stack: Tensor) -> list[Finding]:
    """Name a PSF whose centre of mass lies off its centre pixel: its own shape does not say whether that is wrong."""
    found = centring(stack)
    if found.warning is None:
        return []
    seen, _, rest = found.warning.partition(": ")
    return [Finding("off-centre", seen, rest)]


def _negative(stack: Tensor) -> list[Finding]:
    worst = 0.0
    for plane in stack:
        share = float(-plane.clamp(max=0).sum() / plane.clamp(min=0).sum())
        if float(-plane.min()) > NEGATIVE_PEAK * float(plane.max()):
            worst = max(worst, share)
    if worst <= NEGATIVE_LIGHT:
        return []
    return [
        Finding(
            "negative",
            f"the PSF has negative values, {100 * worst:.2g} % of its light",
            "they were kept",
            "no lens makes negative light: subtract the background rightly, average the noise away, or cut the PSF "
            "to where its light is",
        )
    ]
