"""The choice of the strength of a prior, with its receipt.

One model of the picture's spectrum serves every prior. With |K|² the transfer function of the blur, |D|² that of the
differences and σ the noise, a blurred photograph has about

    E |Y|² / N = τ² |K|² / |D|² + σ²

and its likelihood has one unknown, τ: the size of the true picture's differences. From it follow the strength of the
quadratic prior, σ² / τ², and the *readable share*: the mean over all frequencies of signal / (signal + noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging.model import BlurModel

# Search range of log τ² for pictures of unit deviation: from invisible texture to noise that is a picture.
SEARCH = (-24.0, 8.0, 129)
# Noise below this share of the picture's deviation is taken for this: no camera is better, rounding to 8 bits alone
# leaves as much, and without any noise the fit has nothing to stand on.
NOISE_FLOOR = 1e-3
# The damped pseudo-inverse stands firmer, and gives up to 2 dB on data without noise if less is assumed.
NOISE_FLOOR_OF_IDENTITY = 3e-4
# Noise above this share of the picture's deviation is taken for this: nothing of the picture is left in either.
NOISE_CEILING = 10.0
# The variance of the sharp picture that a fit implies, against that of the blurred one. Photographs under their own
# PSF: 0.1 to 3.7; a wrong PSF that cannot explain what is seen: up to thousands; a page of text: up to 18.
LARGEST_VARIANCE = 4.0
# Where nothing of the picture is readable the rules end at 0, which is no strength at all.
LEAST_STRENGTH = 1e-9
# Below this the gradient prior leaves the unknown border to rounding and to where the iteration ends: under a Gaussian
# of σ = 5 and without noise, 1e-6 is below the blurred picture and 4e-6 is 4 dB above it.
LEAST_GRADIENT_STRENGTH = 4e-6


@dataclass(frozen=True)
class StrengthChoice:
    """The strength of a prior for each plane (N,), the rule that chose it in words, and what speaks against it."""

    strength: Tensor
    rule: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpectrumFit:
    """The fitted signal power τ² and the readable share, a plane each (N,), and where something speaks against it.

    ``capped`` marks planes whose fit asked for more variance than a picture has, ``at_end`` those whose search met its
    end.
    """

    power: Tensor
    readable: Tensor
    capped: Tensor
    at_end: Tensor


def fit_spectrum(model: BlurModel, planes: Tensor, sigma: Tensor) -> SpectrumFit:
    """Fit the spectrum model by maximum likelihood, σ given.

    Minimises ``Σ log v + |Y|² / (N v)`` with ``v = τ² G + σ²`` and ``G = |K|² / |D|²`` over τ² on a grid that is
    refined once.

    Parameters
    ----------
    model, planes, sigma
        The blur; pictures (N, H, W) of zero mean and unit deviation; their noise (N,), above 0.

    Notes
    -----
    Cost: one FFT and two times 129 evaluations of the spectrum a plane. The picture is seen through a Hann window:
    whatever else is done about its edges leaks into frequencies that the blur has emptied, where next to no noise
    hides it. (Continued by straight lines instead, a Gaussian blur of σ = 5 at 0.05 % noise was fitted with a τ² 4600
    times too large, and the quadratic priors came out 20 dB below the blurred picture.)

    τ² is held to the size at which the sharp picture would have :data:`LARGEST_VARIANCE` times the variance of the
    blurred one: a wrong PSF, or data whose misfit to the model exceeds their noise, would else end in no strength at
    all.
    Source: R. Molina, A. K. Katsaggelos, J. Mateos, "Bayesian and regularization methods for hyperparameter
    estimation in image restoration", IEEE Transactions on Image Processing 8 (1999).
    """
    seen = BlurModel(model.psf, model.picture, model.picture, Boundary.CIRCULAR)
    # Without the mean, which tells nothing of differences.
    gain = seen.transfer().flatten()[1:] / seen.difference_transfer().flatten()[1:]
    if not gain.numel():  # a picture of one pixel
        nothing = torch.ones(len(planes), dtype=torch.float64, device=planes.device)
        return SpectrumFit(nothing, nothing, nothing < 0, nothing < 0)
    rows, columns = (
        torch.hann_window(size + 2, periodic=False, dtype=torch.float64, device=planes.device)[1:-1]
        for size in model.picture
    )
    window = rows[:, None] * columns
    largest = LARGEST_VARIANCE / float((1 / seen.difference_transfer().flatten()[1:]).mean())
    fits = []
    for plane, deviation in zip(planes.to(torch.float64), sigma, strict=True):
        tapered = window * (plane - (window * plane).sum() / window.sum())
        spectrum = torch.fft.rfft2(tapered).abs().square().flatten()[1:] / window.square().sum()
        noise = deviation.to(torch.float64).square()
        low, high, steps = SEARCH
        best, at_end = _likeliest(gain, spectrum, noise, torch.linspace(low, high, steps, dtype=torch.float64))
        width = (high - low) / (steps - 1)
        fine, _ = _likeliest(gain, spectrum, noise, best + torch.linspace(-width, width, 17, dtype=torch.float64))
        power = min(math.exp(fine), largest)
        signal = gain * power
        fits.append((power, float((signal / (signal + noise)).mean()), math.exp(fine) > largest, at_end))
    power, readable, capped, at_end = (torch.tensor(column, device=planes.device) for column in zip(*fits, strict=True))
    return SpectrumFit(power.to(torch.float64), readable.to(torch.float64), capped, at_end)


def _likeliest(gain: Tensor, spectrum: Tensor, noise: Tensor, candidates: Tensor) -> tuple[float, bool]:
    """Return the candidate log τ² of the highest likelihood, and whether it is the first or last."""
    costs = []
    for candidate in candidates:
        variance = gain * torch.exp(candidate) + noise
        costs.append(float((variance.log() + spectrum / variance).sum()))
    index = min(range(len(costs)), key=costs.__getitem__)
    return float(candidates[index]), index in (0, len(costs) - 1)


def gradient_strength(model: BlurModel, planes: Tensor, sigma: Tensor) -> StrengthChoice:
    """Choose λ = σ² / τ² for ½‖A x − y‖² + ½ λ‖D x‖²: the Wiener filter of the fitted spectrum."""
    fit = fit_spectrum(model, planes, sigma)
    rule = "maximum marginal likelihood of the picture's spectrum: noise² / size of the differences²"
    return StrengthChoice((sigma.square() / fit.power).clamp(min=LEAST_GRADIENT_STRENGTH), rule, _fit_warnings(fit))


def identity_strength(model: BlurModel, planes: Tensor, sigma: Tensor) -> StrengthChoice:
    """Choose λ for ½‖A x − y‖² + ½ λ‖x‖²: the smallest expected error under the fitted spectrum.

    With S = τ² / |D|² and the filter h = K̄ / (|K|² + λ), the expected error is ``Σ S |1 − K h|² + σ² |h|²``. A
    photograph is far from white, so the likelihood of a white picture would choose a λ tens of times too small.
    """
    fit = fit_spectrum(model, planes, sigma)
    gain = model.transfer().flatten()[1:]
    shape = 1 / model.difference_transfer().flatten()[1:]
    candidates = torch.logspace(-10, 1, 111, dtype=torch.float64, device=planes.device)
    strengths = []
    for power, deviation in zip(fit.power, sigma.to(torch.float64), strict=True):
        errors = torch.stack(
            [
                ((power * shape * weight**2 + deviation**2 * gain) / (gain + weight).square()).sum()
                for weight in candidates
            ]
        )
        strengths.append(candidates[errors.argmin()])
    rule = "smallest expected error under the picture's fitted spectrum"
    return StrengthChoice(torch.stack(strengths), rule, _fit_warnings(fit))


def _fit_warnings(fit: SpectrumFit) -> tuple[str, ...]:
    if bool(fit.capped.any()):
        return (
            "the picture's spectrum does not fit this PSF: undoing it asks for more contrast than a photograph has; "
            "check its angle, size and orientation (a page of text or a drawing may say so of the right PSF)",
        )
    if bool(fit.at_end.any()):
        return (
            "the automatic strength lies at the end of its search range: the picture does not look like a photograph",
        )
    return ()


def sparse_strength(model: BlurModel, planes: Tensor, sigma: Tensor) -> StrengthChoice:
    """Choose λ for ½‖A x − y‖² + λ Σ |D x|, from the same fit.

    If the differences had the density exp(−|g| / b), the most probable picture would have λ = σ² / b, and b ~ τ. Yet
    the most probable picture is not the best one: it lets noise in as more of the spectrum is readable, and the fewer
    frequencies are readable the less their smoothing may cost. Calibrated on photographs:

        λ = 2 σ² / τ · √f · (1 + 1.8 f⁸),    f the readable share.

    With the noise known it costs about 0.1 dB or less against the best λ in hindsight, from 0.05 % to 10 % of noise.

    Notes
    -----
    The known alternative, the fixed point ``λ TV(x) = θ σ² N`` of J. P. Oliveira, J. M. Bioucas-Dias and M. A. T.
    Figueiredo (Signal Processing 89, 2009), needs a θ between 0.04 and 3 depending on blur and noise, and at high noise
    its two sides are so nearly parallel that it runs away.
    """
    fit = fit_spectrum(model, planes, sigma)
    share = fit.readable.sqrt() * (1 + 1.8 * fit.readable**8)
    rule = (
        "from the picture's spectrum by maximum marginal likelihood: 2 noise² / size of the differences, times the "
        "root of the readable share of the frequencies (calibrated on photographs)"
    )
    strength = (2 * sigma.square() / fit.power.sqrt() * share).clamp(min=LEAST_STRENGTH)
    return StrengthChoice(strength, rule, _fit_warnings(fit))


def hyperlaplacian_strength(model: BlurModel, planes: Tensor, sigma: Tensor, exponent: float) -> StrengthChoice:
    """Choose λ for ½‖A x − y‖² + λ Σ |D x|^p from that for p = 1: p τ^(1 − p) times it.

    τ^(1 − p) keeps the pull on differences of the size τ; the factor p is what photographs ask for: of 0.35, 0.5, 0.7,
    1 and 1.4 the best is 0.5 for p = 1/2, 0.7 for 2/3 and 0.7 to 1 for 0.8, at 0.3, 1 and 3 % of noise alike.
    """
    fit = fit_spectrum(model, planes, sigma)
    choice = sparse_strength(model, planes, sigma)
    strength = choice.strength * exponent * fit.power.sqrt() ** (1 - exponent)
    rule = f"{choice.rule}; times p · size of the differences^(1 − p), p = {exponent:.3g}"
    return StrengthChoice(strength.clamp(min=LEAST_STRENGTH), rule, choice.warnings)
