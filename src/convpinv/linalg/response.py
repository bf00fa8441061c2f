"""How far the response of an operator goes: what a tile or a block of a larger picture must know of its surroundings.

One meaning, two uses: the tiles in which :mod:`convpinv.imaging` restores a picture, and the blocks in which a solver
applies a pseudo-inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# The response is computed on a periodic grid of at least so many pixels a side, widened until it ends within a quarter.
FIRST_GRID = 256


def halo_within(sums: Callable[[int], Tensor], support: int, limit: float, largest: int) -> tuple[int, float]:
    r"""Return the smallest halo outside which a response sums to a limit, and that sum.

    .. math:: h = \min \{h : \sum_{\|q\|_\infty > h} |r_q| \le \mathrm{limit}\}

    By Young's inequality the sum bounds what leaving out the rest changes: in the largest value, relative to that of
    the picture, and in the Euclidean norm.

    Parameters
    ----------
    sums : callable
        For a grid of n pixels a side what :func:`sums_outside` gives for the response on it. The values of the last
        call are those that the halo was taken from.
    support : int
        Longest side of the kernel that is undone, in pixels; the grid is at least four times as wide.
    limit : float
        Largest sum outside, in the response's units, above 0.
    largest : int
        Largest halo to be looked for, in pixels. The answer for a response that goes on beyond it.

    Returns
    -------
    tuple of int and float
        The halo in pixels on each side, and the sum outside; that exceeds the limit where the halo is the largest.

    Notes
    -----
    The grid is four times as wide as the halo or more; what the response holds beyond half the grid folds back into it.
    Cost: mostly one or two calls.

    Examples
    --------
    >>> import torch
    >>> from convpinv.linalg import halo_within, sums_outside
    >>> def response(size: int) -> torch.Tensor:                     # 2^-|q| along both axes
    ...     places = torch.arange(size)
    ...     decay = 0.5 ** torch.minimum(places, size - places).double()
    ...     return torch.outer(decay, decay)
    >>> halo, left = halo_within(lambda size: sums_outside(response(size)), support=3, limit=1e-6, largest=256)
    >>> halo, left <= 1e-6
    (24, True)
    """
    size = FIRST_GRID
    while size < 4 * support:
        size *= 2
    while True:
        left = sums(size)
        within = torch.nonzero(left <= limit)
        halo = int(within[0]) if len(within) else len(left) - 1
        if halo <= min(size // 4, largest) or size >= 4 * largest:
            halo = min(halo, size // 4, largest)
            return halo, float(left[halo])
        size = min(max(2 * size, _grid_for(left, limit, largest)), 4 * largest)


def _grid_for(left: Tensor, limit: float, largest: int) -> int:
    """Return the grid on which a response that dies out as its last eighth does would end within a quarter.

    To double the grid until it is wide enough costs a third more than the last grid alone.
    """
    end = len(left) // 2
    start = end // 2
    nearer, farther = float(left[start]), float(left[end])
    if not 0 < farther < nearer:
        return 0
    halo = end + math.log(farther / limit) / math.log(nearer / farther) * (end - start)
    return 2 ** math.ceil(math.log2(4 * min(halo, largest)))


def sums_outside(magnitudes: Tensor) -> Tensor:
    """Sums of a response outside the squares around the origin: ``Σ |r|`` outside (2 h + 1)² for h from 0 to n/2.

    Parameters
    ----------
    magnitudes : Tensor
        ``|r|`` on a periodic grid (n, n) with n even, the origin at index (0, 0), real, any device. Overwritten.

    Returns
    -------
    Tensor
        (n/2 + 1,), falling to 0.

    Examples
    --------
    >>> import torch
    >>> from convpinv.linalg import sums_outside
    >>> sums_outside(torch.ones(4, 4)).tolist()                      # 16 pixels, less 1, 9 and all
    [15.0, 7.0, 0.0]
    """
    half = len(magnitudes) // 2
    quadrant = magnitudes[: half + 1]
    quadrant[1:half] += magnitudes[half + 1 :].flip(0)
    folded = quadrant[:, : half + 1]
    folded[:, 1:half] += quadrant[:, half + 1 :].flip(1)
    # Ring h of the largest norm: row h up to column h, and column h up to row h.
    rings = folded.cumsum(1).diagonal() + folded.cumsum(0).diagonal() - folded.diagonal()
    left = rings.flip(0).cumsum(0).flip(0).roll(-1)
    left[half] = 0.0
    return left
