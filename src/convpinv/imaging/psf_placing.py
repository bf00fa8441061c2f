"""Where a PSF lies in its array, and how it is moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from convpinv import arguments
from convpinv.imaging.psf_check import centring
from convpinv.imaging.psf_finding import AS_IT_IS, Finding
from convpinv.imaging.psf_symmetry import border_noise, circular_symmetry, linear_symmetry

# A PSF counts as wrapped where the torus makes it so much more symmetric.
WRAPPED_GAIN = 0.5
ROUNDING = 1e-9
# A lopsided one may be, where rolling it by half its array gathers its light so much.
WRAPPED_SPREAD = 0.5
# Keys' cubic between two pixels: of the short ones that keep the mean and slopes, the one that blurs least.
HALF_WAY = (-1 / 16, 9 / 16, 9 / 16, -1 / 16)


def placed(stack: Tensor, correct: bool) -> tuple[Tensor, list[Finding]]:
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
