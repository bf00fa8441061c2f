"""The one call that people came for: a blurred picture and its PSF in, a sharp picture out."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceWarning
from convpinv.imaging import no_harm, priors, psf_parse, regularization
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.noise import noise_of_planes
from convpinv.imaging.psf_check import is_point
from convpinv.imaging.report import DeblurReport, DeblurResult, Job, Piece, report

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
    strength: float | str | None = None,
    full_output: bool = False,
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

    Where the automatic restoration is not expected to be nearer to the scene than the picture is, the picture is given
    back, or a mixture of the two; the report says so in ``restored_share``. A given ``strength`` has it all.

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
        The prior's weight, above 0; None chooses it, by the rule that is best for the prior. Or a rule:
        ``"likelihood"``, ``"discrepancy"``, ``"gcv"`` or ``"sure"``; the last three restore the picture up to 18
        times. A number refers to a PSF scaled to a largest transfer of 1. For ``"tv"`` it is in the picture's units,
        for the quadratic priors it has none.
    full_output
        Return a :class:`DeblurResult` with a report instead of the picture alone.
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
    kernels = psf_parse.for_pictures(call, psf, pictures)
    given = arguments.noise_levels(call, "noise", noise, pictures)
    prior = arguments.choice(call, "prior", prior, PRIORS)
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    asked = arguments.choice(call, "strength", strength, regularization.RULES) if isinstance(strength, str) else None
    weight = None if strength is None or asked else arguments.positive(call, "strength", strength)
    if prior == "none" and strength is not None:
        arguments.fail(
            call, "strength", asked or weight, "prior 'none' has no strength; leave it out or choose another prior"
        )
    if progress is not None and not callable(progress):
        arguments.fail(call, "progress", arguments.describe(progress), "it may be None or a function of two integers")

    stack = pictures.stack
    if prior == "gradient" and boundary == Boundary.REFLECT and min(stack.shape[-2:]) == 1:
        arguments.fail(call, "boundary", "'reflect'", "one pixel has nothing to reflect: take 'replicate' or 'unknown'")

    estimated = given is None
    sigma = noise_of_planes(stack) if given is None else given.to(stack.device)
    job = Job(prior, boundary, weight, estimated, torch.finfo(pictures.dtype).eps, progress, asked)
    restored = torch.empty_like(stack)
    pieces = []
    for planes in _groups(len(stack), kernels, stack[0].numel()):
        piece = _restore(job, stack[planes], kernels[int(planes[0]) % len(kernels)], sigma[planes])
        restored[planes] = piece.planes
        pieces.append((planes, piece))
    result = pictures.restored(arguments.result_fits(call, restored, pictures.dtype))
    said = report(job, pictures, kernels, pieces)
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

    def restore(data: Tensor, weight: Tensor) -> priors.Restoration:
        return _with_prior(job, model, data, weight)

    rule = "given"
    weight = torch.zeros_like(deviation) if given is None else given
    selections: tuple[regularization.StrengthSelection, ...] = ()
    if job.prior == "none":
        rule = "none: the pseudo-inverse"
    elif given is None:
        spectral = "likelihood" if job.rule else None
        choice = regularization.automatic_strength(job.prior, model, unit, deviation, spectral)
        if job.rule not in (None, "likelihood"):
            choice = regularization.measured_strength(
                job.rule, model, unit, deviation, choice, lambda data, tried: restore(data, tried).planes
            )
        weight, rule, doubts, selections = choice.strength, choice.rule, doubts + choice.warnings, choice.selections
    elif job.prior == "tv":
        weight = (given / scale).clamp(*STRENGTHS)
    restoration = restore(unit, weight)
    kept = flat & keeps_constants
    judgement = no_harm.Verdict(torch.zeros_like(scale), torch.ones_like(scale))
    if selections:
        reckoned = torch.tensor([chosen.effective_noise for chosen in selections], dtype=torch.float64)
        full = (reckoned / share).to(scale)
        judgement = no_harm.judged(
            model, unit, restoration.planes, full, estimated=job.estimated, sparse=job.prior == "tv"
        )
        weight = judgement.weight[:, None, None].to(unit)
        mixed = torch.lerp(unit, restoration.planes, weight)
        restoration = dataclasses.replace(restoration, planes=mixed)
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
        tuple(
            chosen.in_units(float(unit_of / gain), float(size))
            for chosen, unit_of, size in zip(selections, units, scale, strict=False)
        ),
        judgement,
    )


def _with_prior(job: Job, model: BlurModel, planes: Tensor, weight: Tensor) -> priors.Restoration:
    """Restore planes of unit scale with strengths (n,)."""
    if job.prior == "none":
        return priors.pseudo_inverse(model, planes)
    if job.prior == "tikhonov":
        return priors.tikhonov(model, planes, weight)
    if job.prior == "gradient":
        return priors.gradient(model, planes, weight, progress=job.progress)
    observation = priors.Observation(planes[:, None])
    problem = priors.Problem(model, observation, priors.TotalVariation(), weight)
    restoration = priors.minimise(problem, job.progress)
    return dataclasses.replace(restoration, planes=restoration.planes[:, 0])


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
    again, seen = regularization.compared(model, restored, planes)
    return (again - seen).square().mean((-2, -1)).sqrt()
