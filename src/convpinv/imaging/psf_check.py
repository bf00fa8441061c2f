"""The door for measured point spread functions, and what is said of where their light lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments

__all__ = ["Centring", "centring", "from_array"]

# A PSF whose centre of mass lies further than this from its centre pixel earns a warning.
CENTRING_TOLERANCE = 1.0
# The share of a point's light that may lie beside it.
ELSEWHERE = 1e-6


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


def centring(psf: Any) -> Centring:
    """Say how far the centre of mass of a PSF lies from its centre pixel ``(h // 2, w // 2)``.

    ``offset = Σ p · psf[p] − centre``; of several channels the one that lies farthest off is reported. Nothing is
    shifted: a camera-shake PSF may truly lie to one side, and moving it would move the picture.

    Parameters
    ----------
    psf
        Array or tensor ``(h, w)`` or ``(C, h, w)``, as :func:`from_array` takes it.

    Returns
    -------
    Centring
        Offsets in pixels, and a sentence where they exceed one pixel.

    Raises
    ------
    ArgumentError
        As from :func:`from_array`.

    Notes
    -----
    Cost: O(C h w). A background left in a measured PSF pulls the centre of mass to the middle of the array.

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> psf.centring(psf.box(4))
    Centring(rows=-0.5, columns=-0.5, warning=None)
    """
    stack = arguments.psf("psf.centring", "psf", psf)
    stack = stack.reshape(-1, *stack.shape[-2:])
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
        f"the centre of mass of the PSF lies {' and '.join(ways)} its centre pixel ({height // 2}, {width // 2}): if "
        "that pixel is not the PSF's true origin, the result is moved by as much the other way; cut the PSF about it"
    )
    return Centring(row, column, warning)


def is_point(psf: Tensor) -> bool:
    """Tell whether a PSF (h, w) is one point at its centre, whatever the size of its array: no blur, no shift.

    Light beside it counts as none up to a millionth of the whole: it changes no picture by the step of 16 bits.
    """
    centre = psf[psf.shape[0] // 2, psf.shape[1] // 2]
    return bool(psf.abs().sum() - centre.abs() <= ELSEWHERE * centre.abs()) and bool(centre != 0)
