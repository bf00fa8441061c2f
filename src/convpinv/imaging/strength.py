"""Strengths of other tools, turned into a prior and a strength of :func:`convpinv.deblur`.

Linear deblurring is one filter, ``K̄ / (|K|² + λ R)``, with K the transfer function of a PSF of sum 1. Tools differ in
what they call λ, and in R: 1, the squared differences |D|², or the squared Laplacian |D|⁴.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from convpinv import arguments
from convpinv.arguments import Boundary
from convpinv.imaging import psf_parse
from convpinv.imaging.model import BlurModel

__all__ = ["PriorStrength", "from_balance", "from_gamma", "from_nsr", "from_rcond", "from_snr_db"]

# Frequencies a side, and strengths, over which two filters are compared.
GRID = 128
STRENGTHS = (-9.0, 3.0, 241)


class PriorStrength(NamedTuple):
    """A prior and its strength, in the order and by the names of :func:`convpinv.deblur`'s arguments."""

    prior: str
    strength: float


def from_nsr(nsr: float) -> PriorStrength:
    """Turn a noise-to-signal power ratio, as of MATLAB's ``deconvwnr(I, psf, nsr)``, into a strength.

    ``K̄ / (|K|² + nsr)`` is "tikhonov" with ``strength = nsr``. The mean of the picture is kept, where that filter
    darkens it by 1 / (1 + nsr).

    Parameters
    ----------
    nsr
        Above 0.

    Returns
    -------
    PriorStrength
        ``("tikhonov", nsr)``.

    Raises
    ------
    ArgumentError
        If ``nsr`` is not a number above 0.

    Examples
    --------
    >>> from convpinv.imaging import strength
    >>> strength.from_nsr(0.01)
    PriorStrength(prior='tikhonov', strength=0.01)
    """
    return PriorStrength("tikhonov", arguments.positive("strength.from_nsr", "nsr", nsr))


def from_snr_db(snr: float) -> PriorStrength:
    """Turn a signal-to-noise ratio in dB, as of OpenCV's ``deconvolution.py --snr``, into a strength.

    ``nsr = 10^(−snr / 10)``, then as :func:`from_nsr`.

    Parameters
    ----------
    snr
        In dB of power, finite.

    Returns
    -------
    PriorStrength
        ``("tikhonov", 10 ** (-snr / 10))``.

    Raises
    ------
    ArgumentError
        If ``snr`` is not a finite number, or beyond ±3000.

    Examples
    --------
    >>> from convpinv.imaging import strength
    >>> strength.from_snr_db(25).strength
    0.0031622776601683794
    """
    number = arguments.finite("strength.from_snr_db", "snr", snr)
    if abs(number) > 3000:
        arguments.fail("strength.from_snr_db", "snr", f"{number:g}", "it must lie between -3000 and 3000 dB")
    return PriorStrength("tikhonov", 10 ** (-number / 10))


def from_gamma(gamma: float) -> PriorStrength:
    """Turn the step of deepinv's ``physics.prox_l2(z, y, gamma)`` into a strength.

    ``argmin_x γ/2 ‖A x − y‖² + ½ ‖x − z‖²`` is "tikhonov" with ``strength = 1 / γ`` where z is the mean of y, the point
    that "tikhonov" draws towards.

    Parameters
    ----------
    gamma
        Above 0.

    Returns
    -------
    PriorStrength
        ``("tikhonov", 1 / gamma)``.

    Raises
    ------
    ArgumentError
        If ``gamma`` is not a number above 0.

    Examples
    --------
    >>> from convpinv.imaging import strength
    >>> strength.from_gamma(20.0)
    PriorStrength(prior='tikhonov', strength=0.05)
    """
    return PriorStrength("tikhonov", 1 / arguments.positive("strength.from_gamma", "gamma", gamma))


def from_rcond(rcond: float) -> PriorStrength:
    """Turn the threshold of a truncated pseudo-inverse, as of ``numpy.linalg.pinv(A, rcond)``, into a strength.

    A truncation has no filter of this kind: it keeps 1 / K where |K| exceeds rcond, of a largest |K| of 1, and nothing
    below. "tikhonov" with ``strength = rcond²`` passes half of 1 / K at the threshold, nearly all above and next to
    nothing below. ``Conv2dOperator.pinv(rtol=rcond)`` is the truncation itself.

    Parameters
    ----------
    rcond
        Above 0 and below 1.

    Returns
    -------
    PriorStrength
        ``("tikhonov", rcond ** 2)``.

    Raises
    ------
    ArgumentError
        If ``rcond`` is not a number above 0 and below 1.

    Examples
    --------
    >>> from convpinv.imaging import strength
    >>> strength.from_rcond(0.1).strength
    0.010000000000000002
    """
    number = arguments.positive("strength.from_rcond", "rcond", rcond)
    if number >= 1:
        arguments.fail("strength.from_rcond", "rcond", f"{number:g}", "it must be below 1")
    return PriorStrength("tikhonov", number**2)


def from_balance(balance: float, psf: Any, reg: str = "laplacian") -> PriorStrength:
    """Turn the balance of scikit-image's ``restoration.wiener(image, psf, balance)`` into a strength.

    That filter is ``K̄ / (|K|² + balance |R|²)``. By default R is the Laplacian, so the penalty is |D|⁴, steeper than
    "gradient" (|D|²): no strength makes the two equal. Returned is the one whose filter comes nearest, in the mean
    square over pictures whose power falls as 1 / |D|².

    Parameters
    ----------
    balance
        Above 0.
    psf
        As in :func:`convpinv.deblur`, a single one.
    reg
        ``"laplacian"``, scikit-image's default; ``"identity"`` for a ``reg`` of one point, which is "tikhonov" exactly.

    Returns
    -------
    PriorStrength
        "gradient" or "tikhonov", and the strength.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above.

    Notes
    -----
    Cost: 241 filters on a grid of 128 × 128 frequencies or the size of the PSF.

    Examples
    --------
    >>> from convpinv.imaging import strength
    >>> prior, weight = strength.from_balance(0.1, "gaussian:sigma=2")
    >>> prior, round(weight, 4)
    ('gradient', 0.0631)
    """
    call = "strength.from_balance"
    weight = arguments.positive(call, "balance", balance)
    kernel = psf_parse.parse(psf) if isinstance(psf, str) else arguments.psf(call, "psf", psf)
    if kernel.ndim != 2:
        arguments.fail(call, "psf", f"of shape {tuple(kernel.shape)}", "it may be one PSF (h, w)")
    if arguments.choice(call, "reg", reg, ("laplacian", "identity")) == "identity":
        return PriorStrength("tikhonov", weight)
    size = (max(GRID, kernel.shape[0]), max(GRID, kernel.shape[1]))
    model = BlurModel(kernel.to(torch.float64), size, size, Boundary.CIRCULAR)
    transfer, differences = model.transfer().flatten()[1:], model.difference_transfer().flatten()[1:]
    # What each filter loses of the scene, over its size: (1 − K h)² / |D|².
    wanted = transfer / (transfer + weight * differences.square())
    low, high, steps = STRENGTHS
    candidates = torch.logspace(low, high, steps, dtype=torch.float64)
    errors = [((transfer / (transfer + one * differences) - wanted).square() / differences).sum() for one in candidates]
    return PriorStrength("gradient", float(candidates[torch.stack(errors).argmin()]))
