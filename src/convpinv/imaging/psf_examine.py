"""The doctor of point spread functions: what is wrong with a measured one, what of it can be put right, and how."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging import psf_parse
from convpinv.imaging.psf_background import without_background
from convpinv.imaging.psf_finding import Examination, Finding
from convpinv.imaging.psf_orientation import orientation_of_plane
from convpinv.imaging.psf_placing import placed

__all__ = ["examine"]

# A sum this near to 1 is one: half precision rounds no worse.
UNIT_SUM = 5e-3
# Values below zero that matter: both their share of the light and the largest of them, against the peak.
NEGATIVE_LIGHT = 0.05
NEGATIVE_PEAK = 0.02


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
        cleaned, findings = without_background(raw.reshape(-1, *raw.shape[-2:]), correct)
        whole = cleaned.reshape(raw.shape)
    normalised = arguments.psf(call, "psf", whole)
    totals = raw.sum((-2, -1)).reshape(-1)
    if bool(((totals - 1).abs() > UNIT_SUM).any()):
        sums = ", ".join(f"{float(total):.4g}" for total in totals)
        seen = f"the PSF is not normalised, its sum is {sums}"
        done = "it was scaled to sum 1, for a blur moves light and makes none"
        findings = [Finding("sum", seen, done, corrected=True), *findings]
    stack = normalised.reshape(-1, *normalised.shape[-2:])
    stack, found = placed(stack, correct)
    findings += found
    findings += _negative(stack)
    height, width = _without_empty_frame(stack).shape[-2:]
    if (height, width) != tuple(stack.shape[-2:]):
        seen = f"the outermost rows or columns of the PSF ({stack.shape[-2]}x{stack.shape[-1]}) are zero"
        done = f"restoring works with the {height}x{width} about its centre pixel, which is the same blur"
        findings.append(Finding("empty-frame", seen, done, matters=False))
    stack = stack / stack.sum((-2, -1), keepdim=True)
    return Examination(stack.reshape(*raw.shape[:-2], *stack.shape[-2:]), tuple(findings))


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
