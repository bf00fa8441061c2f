"""How far the restoration of a pixel looks: what a tile of a larger picture needs to know of its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging import psf_parse
from convpinv.imaging.model import difference_powers, squared_magnitude
from convpinv.imaging.regularization import LINEAR
from convpinv.linalg import halo_within, sums_outside

__all__ = ["LOCAL_PRIORS", "Reach", "reach"]

# "none" has no reach: the response of the pseudo-inverse of a blur that loses frequencies never ends.
LOCAL_PRIORS = (*LINEAR, "tv", "hyperlaplacian", "nonlocal")
LARGEST_HALO = 1024
# Priors that iterate end at a change of 1e-3 of the picture's deviation or more: no surroundings make a seam smaller
# than that.
LEAST_SEAM = 1e-3
# What tiles differed from the whole by, in the root mean square over the picture against its deviation, at strengths
# from a third of the automatic to three times it: by the tolerance of the loops. Up to 0.026 on 20 pictures by total
# variation, 0.042 on 9 by the hyper-Laplacian, which has many minima, 0.031 on 3 by "nonlocal"; and a half more.
MEASURED_SEAMS = {"tv": 0.04, "hyperlaplacian": 0.06, "nonlocal": 0.06}


@dataclass(frozen=True)
class Reach:
    """How many pixels of surroundings a tile needs, and the seam that is left.

    Attributes
    ----------
    halo
        Pixels on each side.
    seam
        Difference from the restoration of the whole, in the picture's units: the largest if it is a bound, else its
        root mean square.
    is_bound
        Whether no picture of the given span can exceed ``seam``; else it is what was measured on pictures.
    is_reached
        Whether what the halo leaves out is within the tolerance that was asked for; not where the response goes on
        beyond the largest halo there is.
    """

    halo: int
    seam: float
    is_bound: bool
    is_reached: bool = True

    def __str__(self) -> str:
        kind = "(bound)" if self.is_bound else "root mean square (measured)"
        return f"halo {self.halo} px, seam < {self.seam:.2g} {kind}"


def reach(
    psf: Any,
    prior: str = "gradient",
    *,
    strength: float,
    tolerance: float,
    span: float = 1.0,
    deviation: float | None = None,
    exponent: float = 2 / 3,
    largest: int = LARGEST_HALO,
) -> Reach:
    """Return how far a restoration looks, so that pictures can be restored tile by tile.

    The restoration by a quadratic prior is a convolution with a response r, away from the picture's border. A tile
    that knows the h pixels around it misses what lies further away: at most ``span · Σ |r|`` outside (2 h + 1)². The
    halo is the smallest h at which that is within the tolerance.

    Parameters
    ----------
    psf
        As in :func:`convpinv.deblur`.
    prior
        "gradient" or "tikhonov", whose seam is a bound; or "tv", "hyperlaplacian", "nonlocal", whose halo is that of
        the gradient prior which smooths an edge of one ``deviation`` alike, and whose seam is measured.
    strength
        The prior's weight as in :func:`convpinv.deblur`, above 0.
    tolerance
        Largest seam, in the picture's units, above 0.
    span
        Largest value of the picture less its smallest.
    deviation
        Standard deviation of the picture, for the priors that iterate; a fifth of the span if not given.
    exponent
        That of "hyperlaplacian".
    largest
        Largest halo to be looked for, 64 to 1024. A response that goes on beyond it leaves a larger seam than asked.

    Returns
    -------
    Reach
        The halo, and the seam that it leaves.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above.

    Notes
    -----
    The response is computed in double precision on a periodic grid that is four times as wide as the halo or more, up
    to 4096 pixels; its tail beyond is not counted. Cost: a few transforms of that grid, at most about 1 s and 0.6 GB.
    For tiles at the picture's border the seam is no bound: what is unknown outside has an effect that dies out as the
    response does, but from an amplitude which depends on the picture.

    Examples
    --------
    >>> from convpinv.imaging import reach
    >>> print(reach("gaussian:sigma=2", "gradient", strength=0.01, tolerance=1 / 1024))
    halo 34 px, seam < 0.00086 (bound)
    """
    call = "reach"
    name = arguments.choice(call, "prior", prior, LOCAL_PRIORS)
    weight = arguments.positive(call, "strength", strength)
    limit = arguments.positive(call, "tolerance", tolerance)
    width = arguments.positive(call, "span", span)
    spread = width / 5 if deviation is None else arguments.positive(call, "deviation", deviation)
    power = arguments.positive(call, "exponent", exponent)
    kernels = psf_parse.parse(psf) if isinstance(psf, str) else arguments.psf(call, "psf", psf)
    kernels = kernels.to("cpu", torch.float64).reshape(-1, *kernels.shape[-2:])
    farthest = arguments.single_integer(call, "largest", largest, 64)
    linear = name in LINEAR
    if not linear:
        # λ |D x|^p weighs an edge of one deviation as λ' |D x|² does.
        weight /= spread ** (2.0 if name == "nonlocal" else 1.0 if name == "tv" else 2 - power)
        limit = max(limit, LEAST_SEAM * spread)
    found = [_reach_of(kernel, name, weight, limit / width, min(farthest, LARGEST_HALO)) for kernel in kernels]
    halo, tail = max(one[0] for one in found), max(one[1] for one in found)
    return Reach(halo, tail * width if linear else MEASURED_SEAMS[name] * spread, linear, tail * width <= limit)


def _reach_of(kernel: Tensor, prior: str, strength: float, limit: float, largest: int) -> tuple[int, float]:
    """Return the smallest h at which Σ |r| outside (2 h + 1)² is within the limit, and that sum."""
    return halo_within(lambda size: _tails(kernel, prior, strength, size), max(kernel.shape), limit, largest)


def _tails(kernel: Tensor, prior: str, strength: float, size: int) -> Tensor:
    """Return Σ |r| outside (2 h + 1)² for each h from 0 to size / 2.

    In place wherever that is possible: at 4096² a pass over a spectrum costs as much as a third of its transform.
    """
    # The centre k // 2 of the PSF goes to the origin, and so does that of the response, which is even then or not.
    centred = kernel.new_zeros(size, size)
    rows, columns = ((torch.arange(k) - k // 2) % size for k in kernel.shape)
    centred[rows[:, None], columns] = kernel
    spectrum = torch.fft.rfft2(centred)
    power = squared_magnitude(spectrum)
    weight = strength * float(power.max())
    if prior == "tikhonov":
        power += weight
    else:
        rows, columns = difference_powers((size, size), kernel.device)
        power.add_(weight * rows[:, None]).add_(weight * columns)
    torch.view_as_real(spectrum).div_(power[..., None])
    del power
    # Not conjugated: that turns the response by half a turn, and its rings stay what they are.
    response = torch.fft.irfft2(spectrum, (size, size), out=centred).abs_()
    return sums_outside(response)
