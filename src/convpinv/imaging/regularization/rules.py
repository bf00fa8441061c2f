"""Rules that choose the strength of a prior: each a criterion over a range of strengths.

All of them are here in their form by the spectrum, one pass over the frequencies for each candidate, for the linear
filter ``h = K̄ / (|K|² + λ R)`` with R = 1 ("tikhonov") or |D|² ("gradient"). :mod:`.measured` has the forms that
restore the picture at each candidate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convpinv.imaging.regularization.gains import Gains
from convpinv.imaging.regularization.selection import StrengthChoice, StrengthSelection
from convpinv.imaging.regularization.spectrum import (
    LOWEST_FREQUENCY,
    FittedSpectrum,
    PictureSpectrum,
    SpectrumFit,
    banded_power,
)

RULES = ("likelihood", "discrepancy", "gcv", "sure")
# The rule where none is asked for: nearest to the best strength in hindsight, measured for each prior. For "gradient"
# cross-validation loses 0.02 dB on average and 0.25 dB at worst, the likelihood 0.45 and 1.9 dB.
DEFAULT_RULES = {
    "tikhonov": "likelihood",
    "gradient": "gcv",
    "tv": "likelihood",
    "hyperlaplacian": "likelihood",
    "nonlocal": "noise",
    "denoiser": "noise",
}
# Noise below this share of the picture's deviation is taken for this: no camera is better, rounding to 8 bits alone
# leaves as much, and without any noise the fit has nothing to stand on.
NOISE_FLOOR = 1e-3
# The damped pseudo-inverse stands firmer, and gives up to 2 dB on data without noise if less is assumed.
NOISE_FLOOR_OF_IDENTITY = 3e-4
# Noise above this share of the picture's deviation is taken for this: nothing of the picture is left in either.
NOISE_CEILING = 10.0
# Where nothing of the picture is readable the rules end at 0, which is no strength at all.
LEAST_STRENGTH = 1e-9
# Below this the gradient prior leaves the unknown border to rounding and to where the iteration ends: under a Gaussian
# of σ = 5 and without noise, 1e-6 is below the blurred picture and 4e-6 is 4 dB above it.
LEAST_GRADIENT_STRENGTH = 4e-6
# Cross-validation chooses at most this many times what the likelihood does: photographs up to 5 times, an even disk of
# colours 7 and 17 times, and 11 and 14 dB were lost.
MOST_BEYOND_LIKELIHOOD = 4.0
# ... and at least this share of it: photographs at 0.5 % noise and more down to 0.5. Less means that noise passed for
# texture.
LEAST_OF_LIKELIHOOD = 1 / 4
# Strengths of the quadratic priors that the rules by the spectrum try.
CANDIDATES = (-10.0, 2.0, 97)

WIENER = "maximum marginal likelihood of the picture's spectrum: noise² / size of the differences²"
# Of total variation; see :func:`_sparse`.
CALIBRATION = 1.2
# Priors whose restoration is linear in the picture, at a given strength.
LINEAR = ("gradient", "tikhonov")
# Priors that make differences few, and priors that are denoisers.
SPARSE = ("tv", "hyperlaplacian")
DENOISERS = ("nonlocal", "denoiser")
IN_WORDS = {
    **dict.fromkeys(DENOISERS, "half the variance of the noise, and of what an error of the PSF adds to it"),
    "tikhonov": "smallest expected error under the picture's fitted spectrum",
    "gradient": "generalised cross-validation over the picture's spectrum",
    "tv": (
        "from the picture's spectrum by maximum marginal likelihood: 2.4 noise² / size of the differences, times the "
        "root of the readable share of the frequencies (calibrated on photographs)"
    ),
    "hyperlaplacian": (
        "that of total variation from the picture's spectrum by maximum marginal likelihood, times p · size of the "
        "differences^(1 − p) (calibrated on photographs)"
    ),
}


def automatic_strength(
    prior: str,
    fitted: FittedSpectrum,
    rule: str | None = None,
    *,
    exponent: float = 1.0,
) -> StrengthChoice:
    """Choose the strength of a prior from the picture's spectrum alone, with the receipt.

    The fit of the spectrum (:func:`fit_spectrum`) gives the size τ of the differences, the readable share f and the
    noise σ that the restoration has to reckon with; a picture with gaps is not validated against itself:

    ============== ======================================================================================
    ``"gradient"`` generalised cross-validation, which knows neither σ nor τ; by likelihood ``σ² / τ²``, the Wiener
                   filter of that spectrum
    ``"tikhonov"`` the smallest expected error ``Σ S |1 − K h|² + σ² |h|²``, S in rings and sectors. A photograph is
                   far from white, so the likelihood of a white picture would choose a λ tens of times too small
    ``"tv"``       ``2 σ² / τ · √f · (1 + 1.8 f⁸)``. If the differences had the density exp(−|g| / b), the most
                   probable picture would have λ = σ² / b, and b ~ τ. Yet the most probable picture is not the best
                   one: it lets noise in as more of the spectrum is readable, and the fewer frequencies are readable
                   the less their smoothing may cost. Calibrated on photographs
    ============== ======================================================================================

    "hyperlaplacian" takes that of "tv" times ``p τ^(1 − p)``, p the ``exponent``.

    Notes
    -----
    Cost: some passes over at most 1024 groups of frequencies of nearly the same gain, at 97 strengths, for the receipt
    ("tikhonov": over all frequencies that are looked at). The alternatives of ``"tv"`` are
    those of "gradient", turned into sizes of differences, ``τ = σ / √λ``, and these into strengths.

    The known alternative for total variation, the fixed point ``λ TV(x) = θ σ² N`` of J. P. Oliveira, J. M.
    Bioucas-Dias and M. A. T. Figueiredo (Signal Processing 89, 2009), needs a θ between 0.04 and 3 depending on blur
    and noise, and at high noise its two sides are so nearly parallel that it runs away.
    """
    spectrum, fit, sigma = fitted.spectrum, fitted.fit, fitted.sigma
    power = exponent if prior == "hyperlaplacian" else 1.0
    if rule is None:
        rule = DEFAULT_RULES[prior] if fitted.complete else "likelihood"
    low, high, steps = CANDIDATES
    candidates = torch.logspace(low, high, steps, dtype=torch.float64, device=sigma.device)
    selections = [
        _selection(prior, spectrum, fit, candidates, float(sigma[index]), index, rule, power)
        for index in range(len(sigma))
    ]
    strength = torch.tensor([chosen.strength for chosen in selections], dtype=torch.float64, device=sigma.device)
    words = WIENER if prior == "gradient" and rule == "likelihood" else IN_WORDS[prior]
    return StrengthChoice(strength, words, tuple(selections), _warnings(fit, selections), fitted)


def _selection(
    prior: str,
    spectrum: PictureSpectrum,
    fit: SpectrumFit,
    candidates: Tensor,
    sigma: float,
    index: int,
    rule: str,
    exponent: float,
) -> StrengthSelection:
    """Choose for one plane, by the likelihood or, for "gradient", by a curve of :func:`_spectral_curves`."""
    power, noise = float(fit.power[index]), float(fit.noise[index])
    if prior in DENOISERS:
        return StrengthSelection("noise", noise**2 / 2, psf_error=float(fit.psf_error[index]), effective_noise=noise)
    passed = spectrum.transfer if prior == "tikhonov" else spectrum.transfer / spectrum.differences
    gains = Gains.of(passed, spectrum.power[index])
    curves = _spectral_curves(gains, candidates, sigma)
    others = {rule: _chosen(rule, candidates, curve) for rule, curve in curves.items()}
    tried, criterion = candidates, torch.zeros_like(candidates)
    if prior == "tikhonov":
        criterion = _expected_errors(spectrum, spectrum.power[index], power, noise, candidates)
        strength = _chosen("likelihood", candidates, criterion)
    else:
        tried, criterion = (noise**2 / fit.candidates).flip(0), fit.costs[index].flip(0)
        strength = noise**2 / power
        if prior in SPARSE:
            tried = _sparse(gains, noise, fit.candidates.flip(0), exponent)
            sizes = noise**2 / torch.tensor(list(others.values())).to(candidates)
            others = dict(zip(others, _sparse(gains, noise, sizes, exponent).tolist(), strict=True))
            strength = float(_sparse(gains, noise, fit.power[index], exponent, fit.readable[index]))
            strength = max(strength, LEAST_STRENGTH)
        else:
            likeliest = strength = max(strength, LEAST_GRADIENT_STRENGTH)
            if rule != "likelihood":
                tried, criterion = candidates, curves[rule]
                bounded = min(max(others[rule], LEAST_OF_LIKELIHOOD * likeliest), MOST_BEYOND_LIKELIHOOD * likeliest)
                strength = max(bounded, LEAST_GRADIENT_STRENGTH)
                return StrengthSelection(
                    rule,
                    strength,
                    tuple(tried.tolist()),
                    tuple(criterion.tolist()),
                    {"likelihood": likeliest, **others, rule: strength},
                    float(fit.psf_error[index]),
                    noise,
                )
    return StrengthSelection(
        "likelihood",
        strength,
        tuple(tried.tolist()),
        tuple(criterion.tolist()),
        {"likelihood": strength, **others},
        float(fit.psf_error[index]),
        noise,
    )


def _sparse(gains: Gains, noise: float, power: Tensor, exponent: float, readable: Tensor | None = None) -> Tensor:
    """Return the strength of Σ |D x|^p for each size of the differences τ² (see :func:`automatic_strength`).

    The ``gains`` are |K|² / |D|².

    That of p = 1 is calibrated on photographs: of 0.5 to 3.3 times ``2 noise² / τ``, on 66 pictures under three kinds
    of blur and 0.5 to 3 % of noise, 1.2 loses least, 0.07 dB on average and 0.5 dB at worst.

    The others have p τ^(1 − p) times ``2 noise² / τ``: τ^(1 − p) keeps the pull on differences of the size τ; the
    factor p is what photographs ask for: of 0.35, 0.5, 0.7, 1 and 1.4 the best is 0.5 for p = 1/2, 0.7 for 2/3 and
    0.7 to 1 for 0.8, at 0.3, 1 and 3 % of noise alike.
    """
    if readable is None:
        signal = power[:, None] * gains.gain
        readable = gains.mean(signal / (signal + noise**2))
    likely = 2 * noise**2 / power.sqrt() * readable.sqrt() * (1 + 1.8 * readable**8)
    return CALIBRATION * likely if exponent == 1 else likely * exponent * power ** ((1 - exponent) / 2)


def _expected_errors(spectrum: PictureSpectrum, seen: Tensor, power: float, noise: float, candidates: Tensor) -> Tensor:
    """Return the expected error per frequency of the damped pseudo-inverse, at each candidate.

    The power of the scene is that of rings and sectors, and at the lowest frequencies what is seen there: this prior
    shrinks them all, and the layout of a picture is mostly more than its details let expect. (With τ² / |D|² instead,
    the strength lost 0.22 dB on average where it now loses 0.09.)
    """
    scene = banded_power(spectrum, seen, noise**2, power)
    lowest = torch.sqrt(spectrum.rows.square() + spectrum.columns.square()) <= 1.5 * LOWEST_FREQUENCY
    as_seen = (seen - noise**2).clamp(min=0) / spectrum.transfer.clamp(min=1e-6)
    scene = torch.where(lowest, as_seen, scene)
    gain = spectrum.transfer
    return torch.stack(
        [((scene * weight**2 + noise**2 * gain) / (gain + weight).square()).mean() for weight in candidates]
    )


def _spectral_curves(gains: Gains, candidates: Tensor, sigma: float) -> dict[str, Tensor]:
    """Return the criteria of "discrepancy", "gcv" and "sure" at each candidate, the ``gains`` |K|² / R.

    With a = |K|² / (|K|² + λ R) what the restoration, blurred again, keeps of a frequency, and N frequencies:

    ============= ==============================================
    discrepancy   ``Σ (1 − a)² |Y|² / (σ² N)``, sought: 1
    gcv           ``N Σ (1 − a)² |Y|² / (Σ (1 − a))²``
    sure          ``(Σ (1 − a)² |Y|² + 2 σ² Σ a) / N − σ²``
    ============= ==============================================
    """
    lost = candidates[:, None] / (gains.gain + candidates[:, None])
    misfit, missing = gains.mean_of_power(lost.square()), gains.mean(lost)
    return {
        "discrepancy": misfit / sigma**2,
        "gcv": misfit / missing.square().clamp(min=1e-300),
        "sure": misfit + 2 * sigma**2 * (1 - missing) - sigma**2,
    }


def _chosen(rule: str, candidates: Tensor, criterion: Tensor) -> float:
    """Return the candidate that a rule chooses from its curve."""
    if rule == "discrepancy":  # rises with the strength: where it passes 1, between two candidates
        return crossing(candidates.tolist(), criterion.tolist())
    return float(candidates[criterion.argmin()])


def crossing(candidates: list[float], ratios: list[float]) -> float:
    """Return where ratios, rising with the candidates, pass 1: interpolated in logarithms, else the nearer end."""
    if ratios[0] >= 1:
        return candidates[0]
    for (left, low), (right, high) in zip(
        zip(candidates, ratios, strict=True), zip(candidates[1:], ratios[1:], strict=True), strict=False
    ):
        if low < 1 <= high:
            share = -math.log(max(low, 1e-300)) / (math.log(high) - math.log(max(low, 1e-300)))
            return left * (right / left) ** share
    return candidates[-1]


def _warnings(fit: SpectrumFit, selections: list[StrengthSelection]) -> tuple[str, ...]:
    said = []
    if bool(fit.capped.any()):
        said.append(
            "the picture's spectrum does not fit this PSF: undoing it asks for more contrast than a photograph has; "
            "check its angle, size and orientation (a page of text or a drawing may say so of the right PSF)"
        )
    elif bool(fit.at_end.any()) or any(chosen.at_edge for chosen in selections):
        said.append(
            "the automatic strength lies at the end of its search range: the picture does not look like a photograph"
        )
    return tuple(said)
