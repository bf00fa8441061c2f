"""Deblurring where photons are few: the likelihood is Poisson's, and light is never negative."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary, ConvergenceWarning
from convpinv.imaging import observing, psf_parse
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.photon_report import RestoredPlane, RichardsonLucyReport, RichardsonLucyResult, report
from convpinv.imaging.poisson_em import Photons, Progress, Run, minimised, plain_steps
from convpinv.imaging.poisson_gaussian import PoissonGaussianNoise, poisson_gaussian_of_planes
from convpinv.imaging.regularization import FittedSpectrum, automatic_strength

__all__ = ["RichardsonLucyReport", "RichardsonLucyResult", "richardson_lucy"]

BOUNDARIES = (UNKNOWN, str(Boundary.ZEROS), str(Boundary.CIRCULAR))
# Steps if none are given: total variation most often takes 40 to 200, plain steps at many photons some hundred.
MOST_STEPS = 600
# The share of the photons that plain steps see where the rest is to tell when to stop, and how many steps without a
# better prediction end the search. Half the photons stop too early (0.2 dB at 2000 photons), nine tenths leave the rest
# too few to tell.
TRAINING_SHARE = 0.8
PATIENCE = 10
# The strength follows deblur's rule for white noise of the photons' mean variance; outside this range it would be none,
# or all.
STRENGTHS = (1e-7, 1e3)
# A black level that the noise tells of is named if it is more than this share of the light; less may be an error.
SUSPICIOUS_SHARE = 0.2


def richardson_lucy(
    image: Any,
    psf: Any,
    *,
    iterations: int | None = None,
    strength: float | None = None,
    boundary: str = UNKNOWN,
    background: float = 0.0,
    gain: Any = None,
    mask: Any = None,
    full_output: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Restore a picture of few photons from a known blur, by the steps of Richardson and Lucy with total variation.

    Returns the ``x ≥ 0`` that minimises ``Σ w (m − y log m) + strength · Σ |D x|`` with ``m = A x + background``, y the
    picture, A the convolution with the PSF, w the mask and D the differences; y, m and x counted in photons. Take it
    instead of :func:`convpinv.deblur` where noise is that of the light itself: stars, fluorescence, dark scenes, pixels
    that were not seen.

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``, channels last; or tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``, on
        any device. Real, of any units that are linear in the light. NaN stands for a pixel that was not seen.
    psf
        As in :func:`convpinv.deblur`. Negative values, which no light has, count as 0.
    iterations
        The most steps; None stops by a rule: total variation when a cycle of three steps lowers the cost by less than
        1e-5 a pixel, plain steps (strength 0) where a fifth of the photons, held out at random (the same each time),
        is predicted best. With ``strength=0`` and a number, exactly so many plain steps are done.
    strength
        The weight of total variation, at least 0, against the log-likelihood in photons; None chooses it by the rule of
        ``deblur``'s "tv". 0 is the algorithm of Richardson and Lucy, whose only regularisation is to stop in time.
    boundary
        ``"unknown"``: the scene goes on outside the picture and is solved for; ``"zeros"``: it is dark there;
        ``"circular"``.
    background
        Light and black level that every pixel holds besides the scene's, in the picture's units. The result is without
        it.
    gain
        The value of one photon in the picture's units (1 for counts); or a :class:`PoissonGaussianNoise`, which tells
        the read noise too; or None, which estimates that from the picture.
    mask
        1 or True where a pixel was seen, 0 or False where it was not (dead, saturated, behind something), of the
        picture's shape or ``(H, W)``. What was not seen is restored from the light that its surroundings took up.
    full_output
        Return a :class:`RichardsonLucyResult` with a report.
    progress
        Called as ``progress(iteration, total)`` now and then.

    Returns
    -------
    numpy.ndarray or Tensor, or RichardsonLucyResult
        Same kind, shape, device and floating dtype as ``image``; integers give float32. In the picture's units, never
        negative, never NaN, and not scaled: without background and prior each step makes the light of the result,
        blurred again, exactly that of the picture, and the report's ``flux`` says how nearly it is so.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above; the message is one line that names it.

    Warns
    -----
    ConvergenceWarning
        If the steps ran out before the rule; with ``full_output`` the report says so instead.

    Notes
    -----
    Read noise of variance r² adds r² photons to both sides, the picture and the background (Snyder and others 1993):
    a Poisson number's variance and mean grow by the same. What is still negative then counts as 0.

    Cost: a step is four FFTs of the picture enlarged by the PSF, in double precision; total variation takes 40 to 200
    steps most often, 1 to 2 s for 256 by 256 pixels on one core. Assumed and unchecked: one PSF for the whole
    picture, pixels that do not clip (mask them), no gamma curve.

    Sources: W. H. Richardson, Journal of the Optical Society of America 62 (1972); L. B. Lucy, Astronomical Journal 79
    (1974); M. Bertero and P. Boccacci, "A simple method for the reduction of boundary effects in the Richardson-Lucy
    approach to image deconvolution", Astronomy and Astrophysics 437 (2005); N. Dey and others, "Richardson-Lucy
    algorithm with total variation regularization for 3D confocal microscope deconvolution", Microscopy Research and
    Technique 69 (2006), here in the form of De Pierro, which cannot turn negative; D. L. Snyder, A. M. Hammoud, R. L.
    White, Journal of the Optical Society of America A 10 (1993).

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv
    >>> scene = 100 * np.kron(np.random.default_rng(0).random((6, 6)), np.ones((12, 12)))
    >>> counts = np.random.default_rng(1).poisson(convpinv.blur(scene, "gaussian:sigma=2"))
    >>> result = convpinv.richardson_lucy(counts, "gaussian:sigma=2", gain=1.0, full_output=True)
    >>> result.image.shape == counts.shape, bool((result.image >= 0).all()), result.report.status
    (True, True, 'converged')
    """
    call = "richardson_lucy"
    pictures = arguments.pictures(call, "image", image, largest_ndim=4, gaps=True)
    seen = observing.weights(call, pictures, mask)
    weights = (torch.ones_like(pictures.stack) if seen is None else seen).to(torch.float64)
    # What stands under a mask of 0 counts nothing, whatever it is.
    pictures = dataclasses.replace(pictures, stack=pictures.stack.masked_fill(weights == 0, 0.0))
    kernels = [_without_negatives(kernel) for kernel in psf_parse.for_pictures(call, psf, pictures)]
    steps = None if iterations is None else arguments.positive_integer(call, "iterations", iterations)
    weight = None if strength is None else arguments.non_negative(call, "strength", strength)
    boundary = arguments.choice(call, "boundary", boundary, BOUNDARIES)
    dark = arguments.finite(call, "background", background)
    if progress is not None and not callable(progress):
        arguments.fail(call, "progress", arguments.describe(progress), "it may be None or a function of two integers")
    gains, intercepts, gain_rule = _noise(call, gain, pictures, weights)

    restored = torch.empty_like(pictures.stack)
    found = []
    for index, (plane, counted) in enumerate(zip(pictures.stack, weights, strict=True)):
        task = _Task(kernels[index % len(kernels)], boundary, dark, gains[index], intercepts[index], weight, steps)
        found.append(_restored(task, plane, counted, progress))
        restored[index] = found[-1].plane
    result = pictures.restored(arguments.result_fits(call, restored, pictures.dtype))
    said = report(found, gain_rule, boundary, weight, steps)
    if full_output:
        return RichardsonLucyResult(result, said)
    if said.status.startswith("stopped"):
        warnings.warn(f"richardson_lucy: {said.status}, before its rule", ConvergenceWarning, stacklevel=2)
    return result


@dataclass(frozen=True)
class _Task:
    """What is asked for a plane, in the picture's units."""

    kernel: Tensor
    boundary: str
    background: float
    gain: float
    intercept: float
    strength: float | None
    steps: int | None


def _without_negatives(kernel: Tensor) -> Tensor:
    positive = kernel.to(torch.float64).clamp(min=0)
    return positive / positive.sum()


def _noise(call: str, gain: Any, pictures: arguments.Pictures, weights: Tensor) -> tuple[list[float], list[float], str]:
    """Return the gain and the intercept of the variance for each plane, and where they are from."""
    count = len(pictures.stack)
    if gain is None:
        gains, intercepts, _ = poisson_gaussian_of_planes(pictures.stack, weights > 0)
        return gains.tolist(), intercepts.tolist(), "estimated from the smoothest patches of the picture"
    if not isinstance(gain, PoissonGaussianNoise):
        return [arguments.positive(call, "gain", gain)] * count, [0.0] * count, "given"
    columns = []
    for value in (gain.gain, gain.intercept):
        numbers = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
        if len(numbers) not in (1, pictures.channels, count):
            may_be = f"the picture has {pictures.channels} channels: measure the noise of the same one"
            arguments.fail(call, "gain", f"the noise of {len(numbers)} planes", may_be)
        columns.append(numbers.repeat(count // len(numbers)).tolist())
    return columns[0], columns[1], "given"


def _restored(task: _Task, plane: Tensor, weights: Tensor, progress: Progress | None) -> RestoredPlane:
    """Restore one plane: to photons, by steps, and back."""
    values = plane.to(torch.float64)
    gain, intercept, doubts = _usable_noise(task, values, weights)
    # A Poisson number's variance is its mean: the intercept in photons stands on both sides.
    shift = intercept / gain
    background = max((task.background + shift) / gain, 0.0)
    seen = ((values + shift) / gain).clamp(min=0) * (weights > 0)
    photons = Photons.build(seen, weights, background, task.kernel, task.boundary)

    strength = task.strength
    if strength is None:
        strength, warned = _strength(task, photons)
        doubts += warned
    if not seen.sum() > 0:
        run = Run(photons.sent_back(torch.zeros_like(seen)), 0, True)
    elif strength > 0:
        run = minimised(photons, strength, task.steps or MOST_STEPS, progress)
    elif task.steps is not None:
        run = dataclasses.replace(plain_steps(photons, task.steps, _reporter(task.steps, progress)), converged=True)
    else:
        best = _steps_by_held_out(photons)
        run = plain_steps(photons, best, _reporter(best, progress))
        run = dataclasses.replace(run, converged=best < MOST_STEPS)
    light = float((weights * (seen - background)).sum())
    sent = float((weights * photons.blurred(run.scene)).sum())
    return RestoredPlane(
        (gain * photons.window(run.scene)).to(plane.dtype),
        strength,
        gain,
        run.steps,
        photons.deviance(run.scene),
        sent / light if light > 0 else 1.0,
        run.converged,
        doubts,
    )


def _usable_noise(task: _Task, values: Tensor, weights: Tensor) -> tuple[float, float, tuple[str, ...]]:
    """Return a gain above 0, and an intercept that leaves the background at 0 or more."""
    mean = float((weights * values).sum() / weights.sum())
    light = mean - task.background
    largest = float(values.abs().amax())
    if light <= 0 or largest == 0:
        return (task.gain if task.gain > 0 else max(largest, 1.0)), 0.0, ("there is no light above the background",)
    if task.gain <= 0:
        doubts = (
            "the noise does not grow with the light, or the picture is too small or too textured to tell: photons are "
            "assumed that make as much noise on average; if the gain is known, give it, else deblur may fit better",
        )
        return max(task.intercept / light, 1e-6 * largest), 0.0, doubts
    missing = -task.intercept / task.gain - task.background
    if missing <= 0:
        return task.gain, task.intercept, ()
    doubts = ()
    if missing > SUSPICIOUS_SHARE * light:
        doubts = (f"the noise tells of a black level of {missing:.3g} that the background does not hold: give it",)
    # The line of the variance through the mean, and through 0 at the background that was given.
    gain = max(task.gain * mean + task.intercept, 1e-6 * task.gain * light) / light
    return gain, -gain * task.background, doubts


def _strength(task: _Task, photons: Photons) -> tuple[float, tuple[str, ...]]:
    """Choose the weight of total variation as for white noise of the photons' mean variance.

    ``½‖A x − y‖² / v + λ Σ|D x|`` is the cost near its minimum, v the mean of the photons seen, background included:
    deblur's strength for the picture at unit deviation, times deviation over v.
    """
    weights, seen = photons.weights, photons.seen
    total = weights.sum()
    variance = float((weights * seen).sum() / total)
    filled = seen
    if bool((weights < 1).any()):
        # What was not seen is filled with what the PSF makes of its surroundings.
        sensitivity = photons.sent_back(weights)
        smooth = photons.blurred(photons.first_scene(sensitivity)) + photons.background
        filled = weights * seen + (1 - weights) * smooth
    mean = float(filled.mean())
    deviation = math.sqrt(float((filled - mean).square().mean()))
    if variance <= 0 or deviation <= 1e-12 * mean:
        return STRENGTHS[0], ()
    size = (seen.shape[-2], seen.shape[-1])
    model = BlurModel.build(task.kernel, size, task.boundary)
    level = torch.tensor([math.sqrt(variance) / deviation], dtype=torch.float64)
    fitted = FittedSpectrum.of(model, ((filled - mean) / deviation)[None], level, complete=False)
    choice = automatic_strength("tv", fitted)
    strength = float(choice.strength[0]) * deviation / variance
    return min(max(strength, STRENGTHS[0]), STRENGTHS[1]), choice.warnings


def _steps_by_held_out(photons: Photons) -> int:
    """Return the number of plain steps after which photons that they have not seen are predicted best.

    Each photon is held out or not by a coin: both parts are Poisson numbers, and independent.
    """
    generator = torch.Generator().manual_seed(0)
    # Values that are no counts are rounded up or down by chance, so that their mean stays.
    whole = (photons.seen.cpu() + torch.rand(photons.seen.shape, generator=generator, dtype=torch.float64)).floor()
    kept = torch.binomial(whole, torch.full_like(whole, TRAINING_SHARE), generator=generator)
    training, held_out = (part.to(photons.seen.device) for part in (kept, whole - kept))
    background = photons.background * TRAINING_SHARE
    trained = dataclasses.replace(photons, seen=training, background=background)
    best, best_step = math.inf, 1

    def watch(step: int, scene: Tensor) -> bool:
        nonlocal best, best_step
        deviance = trained.deviance(scene, held_out, (1 - TRAINING_SHARE) / TRAINING_SHARE)
        if deviance < best:
            best, best_step = deviance, step
        return step >= best_step + max(PATIENCE, best_step // 2)

    plain_steps(trained, MOST_STEPS, watch)
    return best_step


def _reporter(total: int, progress: Progress | None) -> Any:
    def watch(step: int, scene: Tensor) -> bool:
        if progress is not None:
            progress(step, total)
        return False

    return watch
