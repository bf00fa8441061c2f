"""The one call that people came for: a blurred picture and its PSF in, a sharp picture out."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceWarning, Pictures
from convpinv.imaging import priors, regularization
from convpinv.imaging import psf as psf_module
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.noise import noise_of_planes
from convpinv.linalg import Conv2dOperator

__all__ = ["BOUNDARIES", "PRIORS", "DeblurReport", "DeblurResult", "deblur"]

PRIORS = ("tv", "gradient", "tikhonov", "none")
BOUNDARIES = (UNKNOWN, *(str(mode) for mode in Boundary))
# Planes are worked on together up to this many pixels of the grid: about 2 GiB in float32.
PIXELS_AT_ONCE = 2**24
# A misfit above this many times the noise says that the blur is not the one assumed.
SUSPICIOUS_MISFIT = 1.5
# Clipped pixels do not obey the blur; above this share they ring visibly.
CLIPPED_SHARE = 0.005


@dataclass(frozen=True)
class DeblurReport:
    """How a picture was restored, and what speaks against the result.

    ``strength``, ``noise`` and ``residual`` are floats for one plane, tuples with one entry a plane for more (channels
    within pictures). ``noise`` and ``residual`` (the root mean square of ``A x − y``) are in the picture's units.
    """

    prior: str
    boundary: str
    strength: float | tuple[float, ...] | None
    strength_rule: str
    noise: float | tuple[float, ...]
    noise_rule: str
    solver: str
    iterations: int
    residual: float | tuple[float, ...]
    status: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report in lists, numbers and texts, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


@dataclass(frozen=True)
class DeblurResult:
    """A restored picture, of the kind that was given, and the report on it."""

    image: Any
    report: DeblurReport


def deblur(
    image: Any,
    psf: Any,
    *,
    noise: float | None = None,
    prior: str = "tv",
    boundary: str = UNKNOWN,
    strength: float | None = None,
    full_output: bool = False,
    progress: priors.Progress | None = None,
) -> Any:
    """Restore a picture from a known blur.

    Returns the x that minimises ``½‖A x − y‖² + strength · R(x)``, with y the picture, A the convolution with the PSF
    and R the prior:

    ============== ======================= =====================================================================
    ``"tv"``       ``Σ |D x|``             total variation: flat areas and sharp edges; the default
    ``"gradient"`` ``½‖D x‖²``             generalised Tikhonov: smooth; linear in the picture
    ``"tikhonov"`` ``½‖x − mean(y)‖²``     the damped pseudo-inverse; linear in the picture (mean 0 for "zeros")
    ``"none"``     0                       the pseudo-inverse: exact, and at 1 % of noise already useless
    ============== ======================= =====================================================================

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``, channels last; or tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``, on
        any device. Real, of any range and units, in linear light for the blur to be a convolution.
    psf
        ``(h, w)``, or ``(C, h, w)`` with one PSF a channel, array or tensor; or a text as :func:`psf.parse` reads.
        Scaled to sum 1. Its centre is ``(h // 2, w // 2)``. Not larger than the picture.
    noise
        Standard deviation of the noise in the picture's units; None estimates it.
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
    Cost: ``"tv"`` 10 to 100 times ten FFTs of the picture enlarged by the PSF; ``"gradient"`` up to 60 times ten;
    the others one solve of :mod:`convpinv.linalg`. Each plane is restored by itself, so a batch gives what its pictures
    give alone. Assumed and unchecked: one PSF for the whole picture, noise that is white and independent of the light,
    no gamma curve. Not differentiable: use :func:`convpinv.conv_pinv2d` in training.

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
    kernels = psf_module.for_pictures(call, psf, pictures)
    sigma_given = arguments.optional_non_negative(call, "noise", noise)
    prior = arguments.choice(call, "prior", prior, PRIORS)
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    weight = None if strength is None else arguments.positive(call, "strength", strength)
    if prior == "none" and weight is not None:
        arguments.fail(call, "strength", weight, "prior 'none' has no strength; leave it out or choose another prior")
    if progress is not None and not callable(progress):
        arguments.fail(call, "progress", arguments.describe(progress), "it may be None or a function of two integers")

    stack = pictures.stack
    sigma = noise_of_planes(stack) if sigma_given is None else stack.new_full((len(stack),), sigma_given)
    job = _Job(prior, boundary, weight, progress)
    restored = torch.empty_like(stack)
    pieces = []
    for planes in _groups(len(stack), kernels, stack[0].numel()):
        piece = _restore(job, stack[planes], kernels[int(planes[0]) % len(kernels)], sigma[planes])
        restored[planes] = piece.planes
        pieces.append((planes, piece))
    result = pictures.restored(restored)
    noise_rule = "given" if sigma_given is not None else "estimated from the finest diagonal wavelet detail"
    report = _report(job, pictures, kernels, sigma, noise_rule, pieces)
    if full_output:
        return DeblurResult(result, report)
    if report.status.startswith("stopped"):
        warnings.warn(f"deblur: the iteration {report.status}, before its tolerance", ConvergenceWarning, stacklevel=2)
    return result


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    prior: str
    boundary: str
    strength: float | None
    progress: priors.Progress | None


@dataclass(frozen=True)
class _Piece:
    """Restored planes in the picture's units, and what the report says of them."""

    planes: Tensor
    strength: Tensor
    rule: str
    residual: Tensor
    restoration: priors.Restoration
    warnings: tuple[str, ...]


def _groups(count: int, kernels: list[Tensor], pixels: int) -> list[Tensor]:
    """Return the indices of planes that are worked on together: one PSF, and no more than memory likes."""
    at_once = max(1, PIXELS_AT_ONCE // pixels)
    groups = []
    for channel in range(len(kernels)):
        groups += torch.arange(channel, count, len(kernels)).split(at_once)
    return groups


def _restore(job: _Job, planes: Tensor, kernel: Tensor, sigma: Tensor) -> _Piece:
    """Restore planes (n, H, W) of one PSF: to unit scale, choose the strength, solve, and back."""
    model = BlurModel.build(kernel, (planes.shape[-2], planes.shape[-1]), job.boundary)
    # A constant passes through the blur unchanged, unless there is darkness outside; the bare pseudo-inverse is bare.
    keeps_constants = job.boundary != Boundary.ZEROS and job.prior != "none"
    centre = planes.mean((-2, -1), keepdim=True) if keeps_constants else planes.new_zeros((len(planes), 1, 1))
    scale = (planes - centre).square().mean((-2, -1), keepdim=True).sqrt()
    flat = scale[:, 0, 0] <= 1e2 * torch.finfo(planes.dtype).eps * centre[:, 0, 0].abs()
    scale = torch.where(flat[:, None, None], torch.ones_like(scale), scale)
    unit = (planes - centre) / scale
    deviation = (sigma.to(unit) / scale[:, 0, 0]).clamp(min=regularization.NOISE_FLOOR)
    # The strength refers to a PSF whose largest transfer is 1.
    gain = float(model.transfer().max())
    given = None if job.strength is None else torch.full_like(deviation, job.strength * gain)

    doubts: tuple[str, ...] = ()
    rule = "given"
    if job.prior == "none":
        rule = "none: the pseudo-inverse"
        restoration = priors.pseudo_inverse(model, unit)
    elif job.prior == "tv":
        weight = None if given is None else given / scale[:, 0, 0]
        if weight is None:
            choice = regularization.sparse_strength(model, unit, deviation)
            weight, rule, doubts = choice.strength, choice.rule, choice.warnings
        restoration = priors.total_variation(model, unit, weight, job.progress)
    else:
        weight = given
        if weight is None:
            rules = {"tikhonov": regularization.identity_strength, "gradient": regularization.gradient_strength}
            choice = rules[job.prior](model, unit, deviation)
            weight, rule, doubts = choice.strength, choice.rule, choice.warnings
        if job.prior == "tikhonov":
            restoration = priors.tikhonov(model, unit, weight)
        else:
            restoration = priors.gradient(model, unit, weight, job.progress)
    restored = restoration.planes * scale + centre
    restored = torch.where(flat[:, None, None] & keeps_constants, planes, restored)
    units = scale[:, 0, 0] if job.prior == "tv" else torch.ones_like(deviation)
    return _Piece(
        restored,
        restoration.strength.to(units) * units / gain,
        rule,
        _misfit(model, restored, planes),
        restoration,
        doubts + restoration.warnings,
    )


def _misfit(model: BlurModel, restored: Tensor, planes: Tensor) -> Tensor:
    """Return the root mean square of A x − y (n,), where the border is unknown over the inner picture only."""
    weight = model.flipped_psf()
    if model.boundary != UNKNOWN:
        difference = model.camera()(restored[:, None])[:, 0] - planes
    else:
        inner = Conv2dOperator(weight, model.picture)(restored[:, None])[:, 0]
        top, left = (k - 1 - k // 2 for k in model.psf.shape)
        difference = inner - planes[:, top : top + inner.shape[-2], left : left + inner.shape[-1]]
    return difference.square().mean((-2, -1)).sqrt()


def _report(
    job: _Job, pictures: Pictures, kernels: list[Tensor], sigma: Tensor, noise_rule: str, pieces: list
) -> DeblurReport:
    strength, residual = torch.zeros(len(sigma)).to(sigma), torch.zeros(len(sigma)).to(sigma)
    for planes, piece in pieces:
        strength[planes], residual[planes] = piece.strength.to(sigma), piece.residual.to(sigma)
    last = pieces[-1][1]
    doubts = [warning for _, piece in pieces for warning in piece.warnings]
    doubts += [found.warning for found in map(psf_module.centring, kernels) if found.warning]
    statuses = [piece.restoration.status for _, piece in pieces]
    stopped = [status for status in statuses if status.startswith("stopped")]
    if stopped:
        doubts.append(f"the iteration {stopped[0]}, before its tolerance; a larger strength converges faster")
    if any(kernel.numel() == 1 for kernel in kernels):
        doubts.append("the PSF is one point: there is no blur to undo, and fine texture may be taken for noise")
    doubts += _doubts(job, pictures, sigma, residual)
    return DeblurReport(
        prior=job.prior,
        boundary=job.boundary,
        strength=None if job.prior == "none" else _one_or_many(strength),
        strength_rule=last.rule,
        noise=_one_or_many(sigma),
        noise_rule=noise_rule,
        solver=last.restoration.solver,
        iterations=max(piece.restoration.iterations for _, piece in pieces),
        residual=_one_or_many(residual),
        status=stopped[0] if stopped else statuses[0],
        warnings=tuple(dict.fromkeys(doubts)),
    )


def _doubts(job: _Job, pictures: Pictures, sigma: Tensor, residual: Tensor) -> list[str]:
    """Return what the picture itself says against the model."""
    doubts = []
    scale = pictures.stack.std((-2, -1), correction=0).to(sigma)
    excess = residual > SUSPICIOUS_MISFIT * sigma.clamp(min=2e-3 * scale)
    if job.strength is None and bool(excess.any()):
        worst = float((residual / sigma.clamp(min=1e-30))[excess].max())
        doubts.append(
            f"the result, blurred again, misses the picture by {worst:.1f} times the noise: the PSF, the boundary or "
            "the noise may not be right"
        )
    ends = [pictures.stack.amax((-2, -1), keepdim=True), pictures.stack.amin((-2, -1), keepdim=True)]
    clipped = max(float((pictures.stack == end).float().mean((-2, -1)).max()) for end in ends)
    if clipped > CLIPPED_SHARE and bool((scale > 0).all()):
        doubts.append(
            f"{100 * clipped:.1f} % of the pixels lie at an end of the picture's range: where the light was clipped "
            "there, the blur is no convolution, and rings may show"
        )
    return doubts


def _one_or_many(values: Tensor) -> float | tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    return numbers[0] if len(numbers) == 1 else numbers
