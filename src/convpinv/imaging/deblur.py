"""The one call that people came for: a blurred picture and its PSF in, a sharp picture out."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceWarning
from convpinv.imaging import priors, psf_examine, regularization
from convpinv.imaging.model import UNKNOWN, BlurModel, taps_before
from convpinv.imaging.noise import noise_of_planes
from convpinv.imaging.psf_check import is_point
from convpinv.imaging.report import DeblurReport, DeblurResult, Job, Piece, report
from convpinv.linalg import Conv2dOperator

__all__ = ["BOUNDARIES", "PRIORS", "DeblurReport", "DeblurResult", "deblur"]

PRIORS = ("tv", "gradient", "tikhonov", "none")
BOUNDARIES = (UNKNOWN, *(str(mode) for mode in Boundary))
# Planes are worked on together up to this many pixels of the grid: about 2 GiB in float32.
PIXELS_AT_ONCE = 2**24
# A PSF that passes every frequency with at least this share hides no texture, which the estimate then takes for noise.
READABLE_TRANSFER = 0.25
# So much of the estimate is then believed: (a, b) in a − b · that share. The less the PSF blurs, the less is lost by
# leaving noise in; where it does blur, noise that is not reckoned with is made louder.
CAUTIOUS_SHARE = (0.85, 2 / 3)
HARDLY_BLURS = (
    "the PSF hardly blurs: texture may be taken for noise, so only a share of the estimated noise is believed; if the "
    "noise is known, give it"
)
# Strengths outside this range, for pictures of deviation 1, do what its ends do, and would overflow in float32.
STRENGTHS = (1e-15, 1e15)
# A picture whose deviation is within this many roundings of its mean is a constant one.
ROUNDINGS = 4.0


def deblur(
    image: Any,
    psf: Any,
    *,
    noise: Any = None,
    prior: str = "tv",
    boundary: str = UNKNOWN,
    strength: float | None = None,
    full_output: bool = False,
    correct_psf: bool = True,
    progress: priors.Progress | None = None,
) -> Any:
    """Restore a picture from a known blur.

    Returns the x that minimises ``½‖A x − y‖² + strength · R(x)``, with y the picture, A the convolution with the PSF
    and R the prior:

    ============== ======================= =====================================================================
    ``"tv"``       ``Σ |D x|``             total variation: flat areas and sharp edges; the default
    ``"gradient"`` ``½‖D x‖²``             generalised Tikhonov: smooth
    ``"tikhonov"`` ``½‖x − mean(y)‖²``     the damped pseudo-inverse (mean 0 for "zeros")
    ``"none"``     0                       the pseudo-inverse: exact, and at 1 % of noise already useless
    ============== ======================= =====================================================================

    With ``strength`` given, "gradient" and "tikhonov" are linear in the picture; the automatic choice is not.

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``, channels last; or tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``, on
        any device. Real, of any range and units, in linear light for the blur to be a convolution.
    psf
        ``(h, w)``, or ``(C, h, w)`` with one PSF a channel, array or tensor; or a text as :func:`psf.parse` reads.
        Scaled to sum 1. Its centre is ``(h // 2, w // 2)``. Not larger than the picture.
    noise
        Standard deviation of the noise in the picture's units, one number or one for each channel, as
        :func:`estimate_noise` gives it; None estimates it. Where the PSF hardly blurs, a share of the estimate is
        taken, for the rest may be texture; a PSF of one point then gives the picture back. For the automatic strength
        it counts as at least 0.001 of the picture's deviation (0.0003 for "tikhonov"): no camera is better.
    prior
        One of the four above.
    boundary
        What lies outside the picture: ``"unknown"`` (the camera's case: the scene goes on and is solved for),
        ``"circular"``, ``"zeros"``, ``"reflect"`` (edge pixel not repeated) or ``"replicate"``.
    strength
        The prior's weight, above 0; None chooses it. It refers to a PSF scaled to a largest transfer of 1. For
        ``"tv"`` it is in the picture's units, for the quadratic priors it has none.
    full_output
        Return a :class:`DeblurResult` with a report instead of the picture alone.
    correct_psf
        Whether what is certainly wrong with the PSF (a background left in, a symmetric PSF beside its centre) is put
        right, see :func:`psf.examine`; a text's never is. Either way the report names it.
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
        If a linear prior ("none" above all) meets a blur that its solver cannot invert to its tolerance.

    Warns
    -----
    ConvergenceWarning
        If "tv", or "gradient" with the unknown border, reached its limit of iterations; with ``full_output`` the
        report says so instead.

    Notes
    -----
    Cost: ``"tv"`` 10 to 400 iterations of about ten FFTs of the picture enlarged by the PSF, most often 20 to 100;
    ``"gradient"`` with the unknown border up to 300 such iterations; the others one solve of :mod:`convpinv.linalg`.
    A PSF without symmetry is tried both ways round on a small part of the picture first, for the report: 0.2 s.
    Each plane is restored by itself, so a batch gives what its pictures give alone. Assumed and unchecked: one PSF for
    the whole picture, noise that is white and independent of the light, no gamma curve. Not differentiable: use
    :func:`convpinv.conv_pinv2d` in training.

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> scene = np.kron(np.random.default_rng(0).random((6, 6)), np.ones((12, 12)))
    >>> blurred = imaging.blur(scene, "motion:length=7,angle=20", noise=0.01, seed=0)
    >>> result = imaging.deblur(blurred, "motion:length=7,angle=20", full_output=True)
    >>> result.image.shape == blurred.shape, result.report.status
    (True, 'converged')
    """
    call = "deblur"
    pictures = arguments.pictures(call, "image", image, largest_ndim=4)
    kernels, psf_findings = psf_examine.for_call(call, psf, pictures, correct_psf)
    given = arguments.noise_levels(call, "noise", noise, pictures)
    prior = arguments.choice(call, "prior", prior, PRIORS)
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    weight = None if strength is None else arguments.positive(call, "strength", strength)
    if prior == "none" and weight is not None:
        arguments.fail(call, "strength", weight, "prior 'none' has no strength; leave it out or choose another prior")
    if progress is not None and not callable(progress):
        arguments.fail(call, "progress", arguments.describe(progress), "it may be None or a function of two integers")

    stack = pictures.stack
    if prior == "gradient" and boundary == Boundary.REFLECT and min(stack.shape[-2:]) == 1:
        arguments.fail(call, "boundary", "'reflect'", "one pixel has nothing to reflect: take 'replicate' or 'unknown'")

    estimated = given is None
    sigma = noise_of_planes(stack) if given is None else given.to(stack.device)
    job = Job(prior, boundary, weight, estimated, torch.finfo(pictures.dtype).eps, progress)
    restored = torch.empty_like(stack)
    pieces = []
    for planes in _groups(len(stack), kernels, stack[0].numel()):
        piece = _restore(job, stack[planes], kernels[int(planes[0]) % len(kernels)], sigma[planes])
        restored[planes] = piece.planes
        pieces.append((planes, piece))
    result = pictures.restored(arguments.result_fits(call, restored, pictures.dtype))
    said = report(job, pictures, psf_findings, pieces)
    if full_output:
        return DeblurResult(result, said)
    if said.status.startswith("stopped"):
        warnings.warn(f"deblur: the iteration {said.status}, before its tolerance", ConvergenceWarning, stacklevel=2)
    return result


def _groups(count: int, kernels: list[Tensor], pixels: int) -> list[Tensor]:
    """Return the indices of planes that are worked on together: one PSF, and no more than memory likes."""
    at_once = max(1, PIXELS_AT_ONCE // pixels)
    groups = []
    for channel in range(len(kernels)):
        groups += torch.arange(channel, count, len(kernels)).split(at_once)
    return groups


def _restore(job: Job, planes: Tensor, kernel: Tensor, sigma: Tensor) -> Piece:
    """Restore planes (n, H, W) of one PSF: to unit scale, choose the strength, solve, and back."""
    if job.automatic and is_point(kernel):
        return _untouched(planes, sigma)
    model = BlurModel.build(kernel, (planes.shape[-2], planes.shape[-1]), job.boundary)
    transfer = model.transfer()
    # The strength refers to a PSF whose largest transfer is 1.
    gain = float(transfer.max())
    doubts: tuple[str, ...] = ()
    share = 1.0
    passed = math.sqrt(float(transfer.min()) / gain)
    if job.automatic and job.prior != "none" and passed > READABLE_TRANSFER:
        share = CAUTIOUS_SHARE[0] - CAUTIOUS_SHARE[1] * passed
        sigma = share * sigma
        doubts += (HARDLY_BLURS,)

    # A constant passes through the blur unchanged, unless there is darkness outside; the bare pseudo-inverse is bare.
    keeps_constants = job.boundary != Boundary.ZEROS and job.prior != "none"
    unit, centre, scale, flat = _unit_scale(planes, keeps_constants, job.rounding)
    if bool(flat.any()) and keeps_constants:
        doubts += ("the picture does not vary by more than the rounding of its values: it is given back as it is",)
    tikhonov = job.prior == "tikhonov"
    floor = regularization.NOISE_FLOOR_OF_IDENTITY if tikhonov else regularization.NOISE_FLOOR
    deviation = (sigma / scale).clamp(floor, regularization.NOISE_CEILING)
    given = None if job.strength is None else torch.full_like(deviation, job.strength * gain)

    rule = "given"
    if job.prior == "none":
        rule = "none: the pseudo-inverse"
        restoration = priors.pseudo_inverse(model, unit)
    elif job.prior == "tv":
        weight = None if given is None else (given / scale).clamp(*STRENGTHS)
        if weight is None:
            choice = regularization.sparse_strength(model, unit, deviation)
            weight, rule, doubts = choice.strength, choice.rule, doubts + choice.warnings
        restoration = priors.total_variation(model, unit, weight, job.progress)
    else:
        weight = given
        if weight is None:
            rules = {"tikhonov": regularization.identity_strength, "gradient": regularization.gradient_strength}
            choice = rules[job.prior](model, unit, deviation)
            weight, rule, doubts = choice.strength, choice.rule, doubts + choice.warnings
        if tikhonov:
            restoration = priors.tikhonov(model, unit, weight)
        else:
            restoration = priors.gradient(model, unit, weight, job.progress)
    kept = flat & keeps_constants
    solved = torch.where(kept[:, None, None], unit, restoration.planes)
    restored = (solved * scale[:, None, None] + centre).to(planes.dtype)
    units = scale if job.prior == "tv" else torch.ones_like(scale)
    return Piece(
        torch.where(kept[:, None, None], planes, restored),
        scale,
        sigma,
        share,
        restoration.strength.to(units) * units / gain,
        rule,
        _misfit(model, solved, unit).to(scale) * scale,
        restoration,
        doubts + restoration.warnings,
    )


def _untouched(planes: Tensor, sigma: Tensor) -> Piece:
    """Give planes back: where nothing blurs, and nobody says how much noise there is, nothing is to be done."""
    nothing = torch.zeros_like(sigma)
    solver = "none: the PSF is one point"
    restoration = priors.Restoration(planes, nothing, solver, 0, "converged")
    doubts = ("the PSF is one point: there is no blur to undo, and the picture is given back as it is",)
    scale = _unit_scale(planes, True, 0.0)[2]
    return Piece(planes, scale, sigma, 1.0, nothing, solver, nothing, restoration, doubts)


def _unit_scale(planes: Tensor, centred: bool, rounding: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the planes at mean 0 and deviation 1, what was subtracted and divided by, and which were constant.

    In double precision, and after the largest magnitude has been divided out: the squares of the largest and smallest
    numbers there are, and small deviations from a large mean, would be lost.
    """
    exact = planes.to(torch.float64)
    largest = exact.abs().amax((-2, -1), keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    exact = exact / largest
    mean = exact.mean((-2, -1), keepdim=True)
    centre = mean if centred else torch.zeros_like(mean)
    exact = exact - centre
    scale = exact.square().mean((-2, -1), keepdim=True).sqrt()
    flat = scale <= ROUNDINGS * rounding * centre.abs()
    scale = torch.where(flat, torch.ones_like(scale), scale)
    return (exact / scale).to(planes.dtype), centre * largest, (scale * largest)[:, 0, 0], flat[:, 0, 0]


def _misfit(model: BlurModel, restored: Tensor, planes: Tensor) -> Tensor:
    """Return the root mean square of A x − y (n,), where the border is unknown over the inner picture only."""
    weight = model.flipped_psf()
    if model.boundary != UNKNOWN:
        difference = model.camera()(restored[:, None])[:, 0] - planes
    else:
        inner = Conv2dOperator(weight, model.picture)(restored[:, None])[:, 0]
        top, left = (taps_before(k) for k in model.psf.shape)
        difference = inner - planes[:, top : top + inner.shape[-2], left : left + inner.shape[-1]]
    return difference.square().mean((-2, -1)).sqrt()
