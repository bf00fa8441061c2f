"""The noise in small patches: what a picture's least textured places and directions say of it.

A patch is taken apart by the discrete cosine transform. White noise is equally strong, and independent, in every
coefficient; a scene is strong in the slow ones and weak in the fast ones. The slow half chooses the patches, the fast
half is measured, so the choice itself does not bend what is measured. Among the fast half a principal component
analysis finds the directions that the scene leaves emptiest: what a motion blur has wiped out lies in directions that
no fixed filter knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from convpinv.imaging.clipping import clipped_pixels

# Sides of the patches: the first of which enough are whole.
SIDES = (8, 4, 2)
LEAST_WHOLE = 0.05
# More patches than these, evenly spread, tell nothing new: their own error is then below 1 %.
MOST_PATCHES = 2**15
# Fewer are not chosen among: the error of the estimate would exceed what the choice gains.
FEWEST_PATCHES = 400
# So many of the emptiest directions are measured.
# They are found in all patches: chosen in the smoothest quarter only, the estimate on sharp photographs came out worse,
# for it is the textured patches that tell where texture lies.
DIRECTIONS = 8
# Candidates: the median energy of a share of the patches, the smoothest. Quantiles lower than the median gain little on
# texture, and lose much where JPEG has wiped the noise out of some patches and not of others.
SHARES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
# A candidate is believed while it exceeds no safer one by more than this many of the safer one's standard errors.
TOLERATED_ERRORS = 2.5
# Patches are strata of like brightness by as many as this, while each holds so many that do not overlap.
MOST_STRATA = 8
FEWEST_IN_STRATUM = 60
# The fullest directions are that much fuller than the emptiest, in standard errors, and the noise still passes for
# white; a texture of half the noise's deviation makes them 25 % fuller.
ERRORS_OF_WHITE = 2.0
# Side of the tiles that lend the directions to one another: measured in the patches that chose them, the emptiest
# directions would come out 12 % too empty on pure noise.
TILE = 32
# So many values, most of them neighbours, make the grid of an integer picture rather than a drawing's few tones.
FEWEST_LEVELS = 16
MOST_LEVELS = 4096
LOOKED_AT_FOR_LEVELS = 2**16


@dataclass(frozen=True)
class Patches:
    """Patches of one plane: their mean, slow energy, and fast energy in the emptiest and the fullest directions, (n,).

    ``directions`` is how many of these there are, ``independent`` how many patches without overlap tell as much as one
    of these, at most 1; ``rounding`` is the standard deviation that the picture's own grid of values leaves, 0 where it
    has none.
    """

    mean: Tensor
    slow: Tensor
    empty: Tensor
    full: Tensor
    directions: int
    independent: float
    rounding: float


def patches_of(plane: Tensor, seen: Tensor | None = None) -> Patches | None:
    """Take a floating plane (H, W) of order 1 apart; None where no patch can speak of noise.

    Patches that meet a clipped pixel, or one that is not ``seen`` (H, W), are left out, and constant ones too (a mask,
    a frame), unless most of what is left is constant: then there is no noise. Where gaps are scattered so that hardly
    any patch is whole, smaller ones are taken.
    """
    mute = clipped_pixels(plane, seen) != 0
    mute = mute if seen is None else mute | ~seen
    height, width, stride, usable = _windows(mute, SIDES[0])
    for side in SIDES[1:]:
        if float(usable.double().mean()) >= LEAST_WHOLE:
            break
        height, width, stride, usable = _windows(mute, side)
    if not bool(usable.any()):
        return None
    windows = plane.unfold(0, height, stride).unfold(1, width, stride)
    rows, columns = windows.shape[:2]
    pixels = windows.reshape(rows * columns, height * width).to(torch.float64)
    tile = (torch.arange(rows) * stride // TILE)[:, None] + torch.arange(columns) * stride // TILE
    tile = (tile % 2).reshape(-1).to(plane.device)
    constant = pixels.amax(1) == pixels.amin(1)
    if int((constant & usable).sum()) * 2 >= int(usable.sum()):
        return None
    usable &= ~constant
    pixels, tile = pixels[usable], tile[usable]
    slow, fast = (part.to(plane.device) for part in _cosines(height, width))
    if not len(fast):  # patches of one pixel
        return None
    mean, slowly = pixels.mean(1), (pixels @ slow.T).square().sum(1)
    pixels = pixels @ fast.T  # nothing else is needed of them, and there are many
    empty, full = _energies(pixels, tile)
    return Patches(
        mean=mean,
        slow=slowly,
        empty=empty.square().sum(1),
        full=full.square().sum(1),
        directions=empty.shape[1],
        independent=min(1.0, (2 * stride / height) * (2 * stride / width)),
        rounding=_rounding(plane),
    )


def _windows(mute: Tensor, side: int) -> tuple[int, int, int, Tensor]:
    """Return the height, the width and the stride of patches, and which of them (n,) hold no ``mute`` pixel."""
    height, width = (min(side, size) for size in mute.shape)
    room = (mute.shape[0] - height + 1) * (mute.shape[1] - width + 1)
    stride = max(1, math.ceil(math.sqrt(room / MOST_PATCHES)))
    return height, width, stride, ~mute.unfold(0, height, stride).unfold(1, width, stride).flatten(2).any(2).flatten()


@dataclass(frozen=True)
class Level:
    """The noise of a set of patches.

    ``brightness`` is their mean value, ``variance`` that of the noise, ``error`` its relative standard error, and
    ``colour`` the variance in the fullest fast directions against that in the emptiest: 1 for white noise, more where
    a texture speaks with it.
    """

    brightness: float
    variance: float
    error: float
    colour: float

    @property
    def white(self) -> bool:
        """Whether nothing but white noise is seen."""
        return self.colour < 1 + ERRORS_OF_WHITE * self.error


def level_of(patches: Patches, which: Tensor | None = None) -> Level:
    """Return the noise in patches (all, or those of an index).

    In the smoothest share s of the patches, the median of the energies in the emptiest directions, divided by that of
    the chi-square distribution, is the variance of the noise where the patches hold noise alone, and more where they
    hold texture: the less, the smaller s. The share taken is the one of least error that agrees with all smaller ones
    (O. V. Lepski's rule).
    """
    which = torch.arange(len(patches.mean), device=patches.mean.device) if which is None else which
    which = which[patches.slow[which].argsort()]
    limit, found = math.inf, None
    # The smallest share, the safest, first.
    counts = [count for share in SHARES if (count := math.ceil(share * len(which))) >= FEWEST_PATCHES]
    for count in reversed(counts or [len(which)]):
        chosen = which[:count]
        expected, density = _chi_square_median(patches.directions)
        error = 0.5 / math.sqrt(count * patches.independent) / (density * expected)
        variance = float(patches.empty[chosen].median()) / expected
        colour = float(patches.full[chosen].median()) / max(variance * expected, 1e-300)
        level = Level(float(patches.mean[chosen].mean()), max(variance, patches.rounding**2), error, colour)
        if found is None or (variance <= limit and level.white):
            found = level
        limit = min(limit, variance * (1 + TOLERATED_ERRORS * error))
    assert found is not None
    return found


def strata_of(patches: Patches) -> list[Level]:
    """Return the noise in patches of like brightness, from dark to bright: as many strata as there are patches for."""
    order = patches.mean.argsort()
    count = min(MOST_STRATA, int(len(order) * patches.independent) // FEWEST_IN_STRATUM)
    return [level_of(patches, which) for which in order.tensor_split(count)] if count else []


def _energies(fast: Tensor, tile: Tensor) -> tuple[Tensor, Tensor]:
    """Return what patches (n, f) hold in their emptiest directions (n, d) and in their fullest (n, d)."""
    if min(int((tile == 0).sum()), int((tile == 1).sum())) < 4 * fast.shape[1]:
        return fast, fast
    directions = min(DIRECTIONS, fast.shape[1])
    vectors = []
    for colour in (0, 1):
        lent = fast[tile != colour]
        found = torch.linalg.eigh(lent.T @ lent).eigenvectors
        vectors.append(torch.cat([found[:, :directions], found[:, -directions:]], 1))
    both = torch.where((tile == 0)[:, None], fast @ vectors[0], fast @ vectors[1])
    return both[:, :directions], both[:, directions:]


def unit_range(plane: Tensor) -> tuple[Tensor, float]:
    """Return a plane divided by its largest magnitude, and that magnitude (1 for a plane of zeros).

    Squares and sums of the largest and the smallest numbers there are would leave their range.
    """
    largest = float(plane.abs().amax())
    return (plane / largest, largest) if largest > 0 else (plane, 1.0)


@cache
def _cosines(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the cosine transform (coefficients, height · width) of a patch: its slower half without mean, its faster.

    The speed of a coefficient is the sum of its two frequencies; the fast ones lie beyond half of the largest sum.
    """
    rows, columns = _cosine_matrix(height), _cosine_matrix(width)
    both = torch.einsum("ia,jb->ijab", rows, columns).reshape(height * width, height * width)
    speed = (torch.arange(height)[:, None] + torch.arange(width)).reshape(-1)
    fast = 2 * speed > height + width - 2
    return both[~fast & (speed > 0)], both[fast]


def _cosine_matrix(size: int) -> Tensor:
    place = (2 * torch.arange(size, dtype=torch.float64) + 1) * math.pi / (2 * size)
    matrix = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


@cache
def _chi_square_median(freedom: int) -> tuple[float, float]:
    """Return the median of the chi-square distribution, by bisection, and the density there."""
    half = torch.tensor(freedom / 2, dtype=torch.float64)
    low, high = 0.0, float(freedom)
    for _ in range(60):
        middle = (low + high) / 2
        below = float(torch.special.gammainc(half, torch.tensor(middle / 2, dtype=torch.float64)))
        low, high = (middle, high) if below < 0.5 else (low, middle)
    density = math.exp((freedom / 2 - 1) * math.log(low / 2) - low / 2 - math.lgamma(freedom / 2)) / 2
    return low, density


def _rounding(plane: Tensor) -> float:
    """Return the standard deviation of rounding to the plane's grid of values, 0 where it has none."""
    values = plane.reshape(-1)
    values = values[:: max(1, values.numel() // LOOKED_AT_FOR_LEVELS)].to(torch.float64)
    if values[: 2 * MOST_LEVELS].unique().numel() > MOST_LEVELS:  # as in most pictures, at a tenth of the time
        return 0.0
    values = values.unique()
    if not FEWEST_LEVELS <= values.numel() <= MOST_LEVELS:
        return 0.0
    gaps = values.diff()
    steps = gaps / gaps.amin()
    # Integers over 255 in single precision lie this near to a grid.
    even = bool(((steps - steps.round()).abs() < 0.01 * steps).all())
    if not even or int((steps < 1.5).sum()) * 2 < gaps.numel():
        return 0.0
    return float(gaps.amin()) / math.sqrt(12)
