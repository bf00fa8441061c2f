"""The spectrum of a blurred picture, and the picture and the blur that would have made it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging.model import BlurModel, difference_transfer
from convpinv.imaging.regularization.gains import Gains
from convpinv.imaging.regularization.window import kept_frequencies, leaked, leaked_scene, window, windowed_power

# Search range of log τ² for pictures of unit deviation: from invisible texture to noise that is a picture.
SEARCH = (-24.0, 8.0, 129)
# The variance of the sharp picture that a fit implies, against that of the blurred one. Photographs under their own
# PSF: 0.1 to 3.7; a wrong PSF that cannot explain what is seen: up to thousands; a page of text: up to 18.
LARGEST_VARIANCE = 4.0
# Squared errors of the PSF that are tried, from what changes nothing to half of the light.
PSF_ERRORS = tuple(10.0 ** (-5 + step / 4) for step in range(19))
COARSE = 4
# An error of the PSF is believed where it raises the likelihood by this much for each frequency: none below the first,
# fully above the second. Ten captures with measured PSFs: 0.0027 to 0.039; 79 synthetic blurs of photographs and text,
# whose PSF is exact: up to 0.0003.
BELIEVED_GAIN = (0.0007, 0.0015)
# ... and by this much altogether, for small pictures.
LEAST_GAIN = 15.0
# A PSF that passes every frequency with at least this share (squared) empties none, and nothing shows its error. (At
# 0.05, texture under 3 x 3 PSFs was taken for errors of half their light, and smoothed away: up to 14 dB lost.)
EMPTIED = 0.005
# An error of the transfer function above this share of its mean square is no error: the PSF is another one.
LARGEST_ERROR = 0.3
# Rings and sectors of the frequency plane, each with a picture power of its own when the error of the PSF is fitted.
RINGS, SECTORS = 12, 8
# Frequencies this few cycles a picture from an axis hold what upright and level edges leave: a ridge of their own,
# which a sector does not describe. (With it, and 4 sectors, a rocket on its pad under an exact PSF was found to have
# one 6 % wrong, and 1.2 dB were lost.)
AXIS = 2.5
# Frequencies below this many cycles a pixel are those of the picture's layout: too few to have a spectrum.
LOWEST_FREQUENCY = 0.02
SCORING_STEPS = 4


@dataclass(frozen=True)
class PictureSpectrum:
    """Power of the windowed planes (N, F) at frequencies F of the half plane without 0, and what acts on them.

    ``transfer`` is |K|², ``differences`` |D|², both (F,); ``power`` is scaled so that white noise has its variance.
    ``rows`` and ``columns`` are the frequencies in cycles a pixel. ``leaked_blur`` and ``leaked_scene`` are
    |K|² / |D|² and 1 / |D|² as they are seen through the :func:`window`. ``kept`` (F,) are the indices of the
    frequencies on the flattened half plane.
    """

    power: Tensor
    transfer: Tensor
    differences: Tensor
    rows: Tensor
    columns: Tensor
    leaked_blur: Tensor
    leaked_scene: Tensor
    picture: tuple[int, int]
    kept: Tensor

    @staticmethod
    def of(model: BlurModel, planes: Tensor) -> PictureSpectrum:
        """Take the spectrum through a Hann window: edges would leak into frequencies that the blur has emptied."""
        seen = BlurModel(model.psf, model.picture, model.picture, Boundary.CIRCULAR)
        rows = torch.fft.fftfreq(model.picture[0], dtype=torch.float64, device=planes.device)[:, None]
        columns = torch.fft.rfftfreq(model.picture[1], dtype=torch.float64, device=planes.device)[None]
        chosen = kept_frequencies(model.picture, planes.device)
        power = windowed_power(planes, window(model.picture, planes.device), chosen)
        # One after the other: each is as large as the picture, and only some of its frequencies are kept.
        scene = leaked_scene(model.picture, planes.device)
        transfer, differences = seen.transfer(), difference_transfer(model.picture, planes.device)
        gains, steps = transfer.flatten()[chosen], differences.flatten()[chosen]
        blurred = leaked(transfer.div_(differences), model.picture, chosen)
        down, right = (part.expand_as(transfer).flatten()[chosen] for part in (rows, columns))
        return PictureSpectrum(power, gains, steps, down, right, blurred, scene, model.picture, chosen)

    def power_of(self, planes: Tensor) -> Tensor:
        """Return ``power`` of other planes of this size."""
        return windowed_power(planes, window(self.picture, planes.device), self.kept)

    def shows_error(self, power: Tensor, noise: float) -> bool:
        """Tell whether the power (F,) of a plane with so much noise gives an error of the PSF away."""
        return self.transfer.numel() > 0 and fit_psf_error(self, power, noise**2) > 0

    def nearest_bin(self) -> Tensor:
        """Return the ring and sector of each frequency, as one index; the lowest and the corners take the nearest."""
        radius = torch.sqrt(self.rows.square() + self.columns.square()).clamp(min=LOWEST_FREQUENCY)
        angle = torch.atan2(self.rows, self.columns) % math.pi
        share = (radius / LOWEST_FREQUENCY).log() / math.log(0.5 / LOWEST_FREQUENCY)
        ring = (share * RINGS).long().clamp(max=RINGS - 1)
        return ring * SECTORS + (angle / math.pi * SECTORS).long() % SECTORS

    def sectors(self) -> tuple[Tensor, Tensor]:
        """Return the indices of the frequencies that have a spectrum, and :meth:`nearest_bin` there."""
        radius = torch.sqrt(self.rows.square() + self.columns.square())
        height, width = self.picture
        slanted = (self.rows.abs() * height > AXIS) & (self.columns * width > AXIS)
        used = torch.nonzero(slanted & (radius > LOWEST_FREQUENCY) & (radius < 0.5))[:, 0]
        return used, self.nearest_bin()[used]


@dataclass(frozen=True)
class SpectrumFit:
    """What fits the spectrum best, a plane each (N,), and where something speaks against it.

    ``power`` is the signal power τ², ``readable`` the share of frequencies above noise, ``psf_error`` the fitted ε,
    ``noise`` the white noise that would do as much harm as noise and error together. ``capped`` marks planes whose fit
    asked for more variance than a picture has, ``at_end`` those whose search met its end. ``costs`` (N, C) is the
    negative log-likelihood per frequency at ``candidates`` (C,), values of τ².
    """

    power: Tensor
    readable: Tensor
    noise: Tensor
    psf_error: Tensor
    capped: Tensor
    at_end: Tensor
    candidates: Tensor
    costs: Tensor


def fit_spectrum(spectrum: PictureSpectrum, sigma: Tensor, *, examine_psf: bool | Tensor = True) -> SpectrumFit:
    """Fit the spectrum model by maximum likelihood, σ given.

    Minimises ``Σ log v + |Y|² / (N v)`` with ``v = τ² (|K|² + ε²) / |D|² + σ²`` over τ² on a grid that is refined
    once; the relative error ε of the PSF is that of :func:`fit_psf_error`.

    Parameters
    ----------
    spectrum, sigma
        That of pictures (N, H, W) of zero mean and unit deviation; their noise (N,), above 0.
    examine_psf
        False where parts of the picture were made up, or are far noisier: they would be taken for an error of the PSF.
        One value, or one a plane (N,).

    Notes
    -----
    Cost: two FFTs, and where an error of the PSF is looked for up to 70 passes over the spectrum a plane; those of τ²
    go over groups of frequencies of nearly the same gain. The picture is seen through a Hann window:
    whatever else is done about its edges leaks into frequencies that the blur has emptied, where next to no noise
    hides it. (Continued by straight lines instead, a Gaussian blur of σ = 5 at 0.05 % noise was fitted with a τ² 4600
    times too large, and the quadratic priors came out 20 dB below the blurred picture.)

    τ² is held to the size at which the sharp picture would have :data:`LARGEST_VARIANCE` times the variance of the
    blurred one: a wrong PSF would else end in no strength at all.
    Source: R. Molina, A. K. Katsaggelos, J. Mateos, "Bayesian and regularization methods for hyperparameter
    estimation in image restoration", IEEE Transactions on Image Processing 8 (1999).
    """
    low, high, steps = SEARCH
    device = sigma.device
    grid = torch.linspace(low, high, steps, dtype=torch.float64, device=device)
    if not spectrum.transfer.numel():  # a picture of one pixel
        nothing = torch.ones(len(sigma), dtype=torch.float64, device=device)
        no = nothing < 0
        costs = torch.zeros(len(sigma), 1, dtype=torch.float64, device=device)
        return SpectrumFit(nothing, nothing, sigma, 0 * nothing, no, no, nothing[:1], costs)
    shape = 1 / spectrum.differences
    largest = LARGEST_VARIANCE / float(shape.mean())
    fits, costs = [], []
    examined = torch.as_tensor(examine_psf).expand(len(sigma)).tolist()
    for power, deviation, examine in zip(spectrum.power, sigma.to(torch.float64), examined, strict=True):
        noise = deviation.square()
        fitted = fit_psf_error(spectrum, power, float(noise)) if examine else 0.0
        largest_error = LARGEST_ERROR * float(spectrum.transfer.mean())
        error = min(fitted, largest_error)
        gains = Gains.of((spectrum.transfer + error) * shape, power)
        coarse = _costs(gains, noise, grid)
        index = int(coarse.argmin())
        width = (high - low) / (steps - 1)
        fine = grid[index] + torch.linspace(-width, width, 17, dtype=torch.float64, device=device)
        found = math.exp(float(fine[_costs(gains, noise, fine).argmin()]))
        scale = min(found, largest)
        signal = scale * spectrum.transfer * shape
        disturbance = noise + scale * error * shape
        # The share that the Wiener filter lets through, and what it makes of noise: both weigh what is restored.
        wiener = signal / (signal + disturbance)
        weight = (wiener.square() / spectrum.transfer.clamp(min=1e-30)) * (signal > 0)
        harm = (weight * disturbance).sum() / weight.sum().clamp(min=1e-300) if error else noise
        effective = math.sqrt(max(float(harm), float(noise)))
        fits.append(
            (
                scale,
                float(wiener.mean()),
                effective,
                math.sqrt(error),
                found > largest or fitted > largest_error,
                index in (0, steps - 1),
            )
        )
        costs.append(coarse)
    power, readable, effective, error, capped, at_end = (
        torch.tensor(column, device=device) for column in zip(*fits, strict=True)
    )
    to = torch.float64
    return SpectrumFit(
        power.to(to), readable.to(to), effective.to(to), error.to(to), capped, at_end, grid.exp(), torch.stack(costs)
    )


@dataclass(frozen=True)
class FittedSpectrum:
    """The spectrum of planes (N, H, W) under a blur, and what fits it with their noise ``sigma`` (N,).

    ``complete`` says whether every pixel was seen, and all alike, or what stands for the others is as noisy as they.
    """

    model: BlurModel
    spectrum: PictureSpectrum
    fit: SpectrumFit
    sigma: Tensor
    complete: bool

    @staticmethod
    def of(model: BlurModel, planes: Tensor, sigma: Tensor, *, complete: bool = True) -> FittedSpectrum:
        """Take the spectrum and fit it."""
        spectrum = PictureSpectrum.of(model, planes)
        return FittedSpectrum(model, spectrum, fit_spectrum(spectrum, sigma, examine_psf=complete), sigma, complete)


def _costs(gains: Gains, noise: Tensor, candidates: Tensor) -> Tensor:
    """Return the negative log-likelihood per frequency of each candidate log τ²."""
    variance = candidates.exp()[:, None] * gains.gain + noise
    return gains.mean(variance.log()) + gains.mean_of_power(1 / variance)


def fit_psf_error(spectrum: PictureSpectrum, power: Tensor, noise: float) -> float:
    """Return ε², the mean squared error of the transfer function, where the picture's spectrum gives it away; else 0.

    A wrong PSF leaves light at frequencies where the assumed transfer is next to nothing. Minimises the negative
    log-likelihood under ``v = τ_b² W ∗ ((|K|² + ε²) / |D|²) + σ²``, W the window's spectrum, with a τ_b² of its own
    for each ring and sector b of the frequency plane, so that a picture with few fine or slanted edges is not taken
    for an error of the PSF.

    Notes
    -----
    Cost: 6 to 13 candidates of ε, each with 4 steps of Fisher scoring over the spectrum. The error is assumed
    to be white: the same at every frequency, and its harm in proportion to the picture there.
    """
    used, bins = spectrum.sectors()
    passed = float(spectrum.transfer.min() / spectrum.transfer.max())
    if len(used) < 4 * RINGS * SECTORS or passed > EMPTIED:
        return 0.0
    exact, extra, seen = spectrum.leaked_blur[used], spectrum.leaked_scene[used], power[used]

    def cost(error: float) -> float:
        gain = exact + error * extra
        variance = _scored(gain, seen, noise, bins)[bins] * gain + noise
        return float((variance.log() + seen / variance).sum())

    costs = {index: cost(PSF_ERRORS[index]) for index in range(0, len(PSF_ERRORS), COARSE)}
    best = min(costs, key=costs.__getitem__)
    if cost(0.0) - costs[best] < LEAST_GAIN / 2:
        return 0.0
    for index in range(max(best - COARSE + 1, 0), min(best + COARSE, len(PSF_ERRORS))):
        costs[index] = costs.get(index, 0.0) or cost(PSF_ERRORS[index])
    best = min(costs, key=costs.__getitem__)
    gained = cost(0.0) - costs[best]
    if gained < LEAST_GAIN:
        return 0.0
    low, high = BELIEVED_GAIN
    belief = (gained / len(used) - low) / (high - low)
    return PSF_ERRORS[best] * min(max(belief, 0.0), 1.0)


def _scored(gain: Tensor, seen: Tensor, noise: float, bins: Tensor) -> Tensor:
    """Return the likeliest τ_b² of ``v = τ_b² gain + σ²`` for each ring and sector, by Fisher scoring."""

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(RINGS * SECTORS).index_add_(0, bins, values)

    scale = (total(seen - noise) / total(gain).clamp(min=1e-300)).clamp(min=1e-12)
    for _ in range(SCORING_STEPS):
        weight = gain / (scale[bins] * gain + noise).square().clamp(min=1e-300)
        better = total(weight * (seen - noise)) / total(weight * gain).clamp(min=1e-300)
        scale = torch.maximum(better, 1e-3 * scale)
    return scale


def banded_power(spectrum: PictureSpectrum, power: Tensor, noise: float, expected: float) -> Tensor:
    """Return the likely power of the scene at every frequency, ``τ_b² / |D|²``, σ² given.

    The likeliest τ_b² of a ring and sector is drawn towards the ``expected`` τ² of the whole spectrum as if that were
    known to its own size: where the blur leaves nothing to read, what noise leaves would else be taken for a scene.
    Frequencies without a ring (the lowest, and the corners) take the nearest.
    """
    used, bins = spectrum.sectors()
    gain = spectrum.leaked_blur[used]
    scale = _scored(gain, power[used], noise, bins)
    known = (gain / (expected * gain + noise)).square()
    known = known.new_zeros(RINGS * SECTORS).index_add_(0, bins, known) * expected**2
    scale = (known * scale + expected) / (known + 1)
    return scale[spectrum.nearest_bin()] / spectrum.differences
