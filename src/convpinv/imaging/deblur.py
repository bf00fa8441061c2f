"""The one call that people came for: a blurred picture and its PSF in, a sharp picture out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceWarning
from convpinv.imaging import observing, priors, psf_examine, regularization
from convpinv.imaging.coupling import COUPLING, DENOISER, of_one_size, together
from convpinv.imaging.inpaint import filled
from convpinv.imaging.model import UNKNOWN
from convpinv.imaging.noise import noise_of_planes
from convpinv.imaging.report import DeblurReport, DeblurResult, Job, report
from convpinv.imaging.restore import Material, restore

__all__ = ["BOUNDARIES", "PRIORS", "DeblurReport", "DeblurResult", "deblur"]

PRIORS = ("tv", "hyperlaplacian", "nonlocal", "gradient", "tikhonov", "none")
BOUNDARIES = (UNKNOWN, *(str(mode) for mode in Boundary))
# Planes are worked on together up to this many pixels: at some 30 times their float32 size, 2 GiB.
PIXELS_AT_ONCE = 2**24


def deblur(
    image: Any,
    psf: Any,
    *,
    noise: Any = None,
    prior: str | Callable[[Any, float], Any] = "tv",
    boundary: str = UNKNOWN,
    strength: float | str | None = None,
    mask: Any = None,
    clip: Any = None,
    bounds: tuple[float | None, float | None] | None = None,
    exponent: float = 2 / 3,
    coupled: bool | None = None,
    full_output: bool = False,
    correct_psf: bool = True,
    noise_is_estimate: bool = False,
    progress: priors.Progress | None = None,
) -> Any:
    """Restore a picture from a known blur.

    Returns the x that minimises ``½‖A x − y‖² + strength · R(x)``, with y the picture, A the convolution with the PSF
    and R the prior:

    ==================== ======================= ===============================================================
    ``"tv"``             ``Σ |D x|``             total variation: flat areas and sharp edges; the default
    ``"hyperlaplacian"`` ``Σ |D x|^p``           p = ``exponent``: few strong edges; up to 0.6 dB better than "tv" on
                                                 drawings and plain objects, up to 1 dB worse on fine texture
    ``"nonlocal"``       groups of like patches  the best picture, in 10 to 30 times the time of "tv"
    ``"gradient"``       ``½‖D x‖²``             generalised Tikhonov: smooth
    ``"tikhonov"``       ``½‖x − mean(y)‖²``     the damped pseudo-inverse (mean 0 for "zeros")
    ``"none"``           0                       the pseudo-inverse: exact, and at 1 % of noise already useless
    a function           what it leaves          any ``denoiser(image, sigma) → image``
    ==================== ======================= ===============================================================

    Where the automatic restoration is not expected to be nearer to the scene than the picture is, the picture is given
    back, or a mixture of the two; the report says so in ``restored_share``. A given ``strength`` has it all.

    A pixel that was not seen takes no part in the first term, a clipped one only on the side that it tells of. With
    ``strength`` given, and nothing clipped or bounded, "gradient" and "tikhonov" are linear in the picture; the
    automatic choice is not. The costs of "tv", "gradient" and "tikhonov" are convex.

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``, channels last; or tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``, on
        any device. Real, of any range and units, in linear light for the blur to be a convolution. NaN and infinity
        are pixels that were not seen; the report counts them.
    psf
        ``(h, w)``, or ``(C, h, w)`` with one PSF a channel, array or tensor; or a text as :func:`psf.parse` reads.
        Scaled to sum 1. Its centre is ``(h // 2, w // 2)``. Not larger than the picture.
    noise
        Standard deviation of the noise in the picture's units, one number or one for each channel, as
        :func:`estimate_noise` gives it; None estimates it. Where the PSF hardly blurs, a share of the estimate is
        taken, for the rest may be texture; a PSF of one point then gives the picture back. For the automatic strength
        it counts as at least 0.001 of the picture's deviation (0.0003 for "tikhonov"): no camera is better.
    prior
        One of the names above, or a function ``denoiser(image, sigma)`` that returns the image without white noise of
        standard deviation ``sigma`` (plug and play). It is called 24 times a picture, with one picture of the kind,
        layout and units of ``image`` (of a batch, a batch of one), larger by the reach of the PSF where the border is
        unknown.
    boundary
        What lies outside the picture: ``"unknown"`` (the camera's case: the scene goes on and is solved for),
        ``"circular"``, ``"zeros"``, ``"reflect"`` (edge pixel not repeated) or ``"replicate"``. Of a boundary that is
        given, differences across the edges of the picture cost nothing; "circular" has no edges.
    strength
        The prior's weight, above 0; None chooses it, by the rule that is best for the prior. Or a rule:
        ``"likelihood"``, ``"discrepancy"``, ``"gcv"`` or ``"sure"``; the last three restore the picture up to 18
        times. A number refers to a PSF scaled to a largest transfer of 1. For ``"tv"`` it is in the picture's units,
        for "nonlocal" and a denoiser in their square (half the variance of the noise, and no rule is another), for the
        quadratic priors it has none.
    mask
        Which pixels were seen, of the picture's shape or ``(H, W)``: True or 1; False or 0 for bad pixels, gaps,
        whatever must not count. Numbers between are weights: w for a pixel whose noise is 1 / √w times as strong. What
        a pixel of weight 0 holds has no influence at all; it is restored as the rest and the prior ask. None is 1
        everywhere. Not for prior "none".
    clip
        ``(low, high)``: values at or beyond them are clipped light, whose truth lies at the level or beyond; None for
        either end, or for both, finds plateaus at the ends of the range that hide light.
    bounds
        ``(low, high)`` between which the result is to lie, None for an open end: (0, None) for light. For "tv",
        "hyperlaplacian" and "gradient".
    exponent
        p of "hyperlaplacian", above 0 to 1.
    coupled
        Whether the channels of a picture share their edges, restored together; None for three channels. For "tv" and
        "hyperlaplacian"; "nonlocal" and a denoiser see all channels, "nonlocal" each alone with False.
    full_output
        Return a :class:`DeblurResult` with a report instead of the picture alone.
    correct_psf
        Whether what is certainly wrong with the PSF (a background left in, a symmetric PSF beside its centre) is put
        right, see :func:`psf.examine`; a text's never is. Either way the report names it.
    noise_is_estimate
        Whether a given ``noise`` is an estimate, made elsewhere, and is believed as one of this function's own would
        be; for pictures whose noise is white in other units than the light they are restored in.
    progress
        Called as ``progress(iteration, total)`` now and then.

    Returns
    -------
    numpy.ndarray or Tensor, or DeblurResult
        Same kind, shape, device and floating dtype as ``image``; integers give float32 in the same units. Not clipped.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above; the message is one line that names it.
    ConvergenceError
        If "none" or "tikhonov" meets a blur that its solver cannot invert to its tolerance.

    Warns
    -----
    ConvergenceWarning
        If "tv", "gradient", or "tikhonov" with a mask, reached its limit of iterations; with ``full_output`` the report
        says so instead.

    Notes
    -----
    Cost: ``"tv"`` 10 to 400 iterations of four FFTs of the picture enlarged by the PSF, most often 20 to 100;
    ``"gradient"``, and "tikhonov" with a mask, up to 1000 of two; else one solve of :mod:`convpinv.linalg`.
    A PSF without symmetry is tried both ways round on a small part of the picture first, for the report: 0.2 s.
    Each plane is restored by itself, so a batch gives what its pictures give alone. Assumed and unchecked: one PSF for
    the whole picture, noise that is white and independent of the light, no gamma curve. Not differentiable: use
    :func:`convpinv.conv_pinv2d` in training.

    Sources: M. S. C. Almeida and M. A. T. Figueiredo, "Deconvolving images with unknown boundaries using the
    alternating direction method of multipliers", IEEE Transactions on Image Processing 22 (2013); D. Krishnan and R.
    Fergus, "Fast image deconvolution using hyper-Laplacian priors", NIPS 2009; X. Bresson and T. F. Chan, "Fast dual
    minimization of the vectorial total variation norm", Inverse Problems and Imaging 2 (2008).

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> scene = np.kron(np.random.default_rng(0).random((6, 6)), np.ones((12, 12)))
    >>> blurred = imaging.blur(scene, "motion:length=7,angle=20", noise=0.01, seed=0)
    >>> result = imaging.deblur(blurred, "motion:length=7,angle=20", full_output=True)
    >>> result.image.shape == blurred.shape, result.report.status
    (True, 'converged')
    >>> blurred[10:12] = np.nan
    >>> bool(np.isfinite(imaging.deblur(blurred, "motion:length=7,angle=20")).all())
    True
    """
    call = "deblur"
    pictures = arguments.pictures(call, "image", image, largest_ndim=4, gaps=True)
    kernels, psf_findings = psf_examine.for_call(call, psf, pictures, correct_psf)
    given = arguments.noise_levels(call, "noise", noise, pictures)
    denoiser = None
    if callable(prior):
        prior, denoiser = DENOISER, arguments.denoiser(call, "prior", prior, pictures)
    else:
        prior = arguments.choice(call, "prior", prior, PRIORS)
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    rule = arguments.choice(call, "strength", strength, regularization.RULES) if isinstance(strength, str) else None
    number = None if strength is None or rule else arguments.positive(call, "strength", strength)
    levels = observing.levels(call, clip)
    if prior == "none" and strength is not None:
        advice = "prior 'none' has no strength; leave it out or choose another prior"
        arguments.fail(call, "strength", rule or number, advice)
    limits = arguments.limits(call, "bounds", bounds)
    if limits != (None, None) and prior not in (*COUPLING, "gradient"):
        arguments.fail(call, "bounds", "given", f"prior {prior!r} has none; take 'gradient', 'tv' or 'hyperlaplacian'")
    power = arguments.positive(call, "exponent", exponent)
    if power > 1:
        arguments.fail(call, "exponent", f"{power:g}", "it must be above 0 and at most 1; for 2 take prior 'gradient'")
    if coupled is not None and not isinstance(coupled, bool):
        arguments.fail(call, "coupled", arguments.describe(coupled), "it may be True, False or None")
    if prior == "none" and (mask is not None or pictures.finite is not None):
        argument, was = ("image", "not finite") if mask is None else ("mask", "given")
        arguments.fail(call, argument, was, "prior 'none' needs every pixel; take 'tikhonov' with a small strength")
    if progress is not None and not callable(progress):
        arguments.fail(call, "progress", arguments.describe(progress), "it may be None or a function of two integers")

    stack = pictures.stack
    if prior in regularization.DENOISERS and rule:
        may_be = f"prior '{prior}' takes its strength from the noise: leave it out, or give a number"
        arguments.fail(call, "strength", f"'{rule}'", may_be)
    shared = together(call, prior, coupled, boundary, pictures.channels, len(kernels))

    estimated = given is None or noise_is_estimate
    weight = observing.weights(call, pictures, mask)
    clipped = None if prior == "none" else observing.clipped(pictures, weight, levels)
    if weight is not None:
        stack = filled(stack, weight)
    sigma = noise_of_planes(stack, weight) if given is None else given.to(stack.device)
    rounding = torch.finfo(pictures.dtype).eps
    job = Job(
        prior, boundary, number, estimated, rounding, progress, rule, levels.found, power, limits, denoiser=denoiser
    )
    groups = _groups(len(stack), len(kernels), shared, stack[0].numel())
    restored = stack.new_empty(stack.shape if len(groups) > 1 else 0)
    pieces = []
    for group in groups:
        shape = (-1, shared, *stack.shape[-2:])
        planes = slice(group.start, group.stop, group.step)  # copies nothing
        first = group.start % len(kernels)
        material = Material(
            stack[planes].reshape(shape),
            of_one_size(kernels if shared > 1 else kernels[first : first + 1]),
            sigma[planes].reshape(-1, shared),
            None if weight is None else weight[planes].reshape(shape),
            None if clipped is None or not bool(clipped[planes].any()) else clipped[planes].reshape(shape),
        )
        parts, found = restore(job, material)
        if len(groups) > 1:
            restored[planes] = parts
        else:
            restored = parts
        pieces += [
            ([group[picture * shared + channel] for picture in some.tolist() for channel in range(shared)], piece)
            for some, piece in found
        ]
    if limits != (None, None):
        restored.clamp_(*limits)
    result = pictures.restored(arguments.result_fits(call, restored, pictures.dtype))
    said = report(job, pictures, psf_findings, pieces, observing.account(pictures, weight))
    if full_output:
        return DeblurResult(result, said)
    if said.status.startswith("stopped"):
        warnings.warn(f"deblur: the iteration {said.status}, before its tolerance", ConvergenceWarning, stacklevel=2)
    return result


def _groups(count: int, kernels: int, shared: int, pixels: int) -> list[range]:
    """Return the planes that are worked on together, no more than memory likes.

    Whole pictures of ``shared`` channels, or single planes of one PSF.
    """
    step = 1 if shared > 1 else kernels
    at_once = max(1, PIXELS_AT_ONCE // (pixels * shared)) * shared * step
    return [
        range(first + start, min(start + at_once, count), step)
        for first in range(step)
        for start in range(0, count, at_once)
    ]
