"""Whether deblurring helps: what is to be expected before the work, and whether the result keeps it.

Both stand on the picture's spectrum in rings and sectors, each with a power τ_b² of its own: under Gaussian statistics
the scene that is expected after the picture has been seen is the Wiener restoration x_W of that spectrum, and for any
restoration x

    E‖x − scene‖² − E‖y − scene‖² = ‖x − x_W‖² − ‖y − x_W‖².

A better prior than that of the spectrum comes out ahead of x_W, but hardly further from it than the blurred picture is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging.model import BlurModel
from convpinv.imaging.regularization import FittedSpectrum
from convpinv.imaging.regularization.spectrum import RINGS, SECTORS, banded_power, fit_spectrum
from convpinv.imaging.regularization.window import window

# A PSF that passes every frequency with at least this share leaves noise and texture alike.
AMBIGUOUS = 0.1
# One that passes so much is nearly a point: with estimated noise, and less to be gained than this (dB), the picture is
# given back. Grass under a Gaussian of 0.22 pixels at 0.16 % of noise was expected to gain 0.8 dB, and lost 1 dB.
NEARLY_A_POINT = 0.5
LEAST_GAIN = 1.0
# The quietest parts: this share of blocks of so many pixels a side, and what white noise shows there.
QUIET_BLOCKS = 0.05
BLOCK = 8
QUIET_BLOCKS_OF_NOISE = 0.77
# A block counts where so much of it is surrounded by pixels that were seen.
LEAST_TOLD = 0.25
# The noise of the quietest parts against the estimate: 0.93 to 1.1 where the noise is noise, 0.72 to 0.91 where most of
# it is grass or gravel.
QUIET_OF_NOISE, QUIET_SLOPE = 0.96, 0.06
# Where texture hides the noise entirely: no less than this share of the estimate.
LEAST_SHARE = 0.1
# A PSF larger than this share of the picture brings too much light from beyond the window to judge by.
LARGEST_REACH = 1 / 3
# Where the spectrum does not fit the PSF: the share of pixels on either side of the picture's range, further outside
# than ROOM of it, at which all of a result is believed, and nothing. See docs/decisions/0025.
ROOM = 0.3
OUTSIDE_SPARSE, OUTSIDE_QUADRATIC = (0.005, 0.01), (0.01, 0.02)
# Where w* (see :func:`judged`) lies for nothing and for all of a restoration. Sparse priors do better than x_W, and
# half way is as far from the scene as the picture is; the quadratic ones do no better, and less well at the border,
# which the window does not see.
SPARSE = (0.3, 0.5)
QUADRATIC = (0.45, 0.75)


@dataclass(frozen=True)
class Verdict:
    """What is expected of planes (N,): ``gain`` in dB over the blurred picture, ``weight`` of the restoration in it.

    The result that does no harm is ``picture + weight · (restored − picture)``. ``error`` is the mean square by which
    the blurred picture misses the scene, and ``noise`` that of the noise in it, both at unit scale; ``trials`` the mean
    gain of the trials in dB, NaN where there were none.
    """

    gain: Tensor
    weight: Tensor
    error: Tensor
    noise: Tensor
    trials: Tensor | None = None


def judged(
    fitted: FittedSpectrum,
    planes: Tensor,
    restored: Tensor,
    share: float,
    seen: Tensor | None = None,
    *,
    estimated: bool,
    sparse: bool,
) -> Verdict:
    """Judge restored planes (N, H, W) against the blurred ones, of unit scale, by the spectrum fitted to these.

    Pixels that were not ``seen`` are the same in both, and tell nothing of the noise. This is what the fit found to be
    reckoned with, of which only ``share`` was.

    With x_W as above and ``d = restored − picture``, the estimated error along ``picture + w d`` is smallest at
    ``w* = ⟨x_W − y, d⟩ / ‖d‖²``, and from w* = 1/2 on the restoration is expected to be no further from the scene than
    the picture is. Over a short range below, it gives way to the picture; where the spectrum does not fit the PSF, also
    as far as it leaves the picture's range (:func:`within_range`).

    Notes
    -----
    Cost: two FFTs a plane, and where not all of the noise was reckoned with another fit.
    """
    model, spectrum = fitted.model, fitted.spectrum
    sigma = fitted.fit.noise / share
    believed = torch.ones_like(sigma)
    for index in torch.nonzero(fitted.fit.capped)[:, 0].tolist():
        believed[index] = within_range(planes[index], restored[index], None if seen is None else seen[index], sparse)
    reach = max(taps / size for taps, size in zip(model.psf.shape, model.picture, strict=True))
    if spectrum.power.shape[-1] < 4 * RINGS * SECTORS or reach > LARGEST_REACH:
        return Verdict(torch.zeros_like(sigma), believed, torch.ones_like(sigma), sigma.square())
    fit = fitted.fit if share == 1 else fit_spectrum(spectrum, sigma, examine_psf=False)
    kernel = _centred_transfer(model).flatten()[spectrum.kept]
    taper = window(model.picture, planes.device)
    passed = math.sqrt(float(spectrum.transfer.min() / spectrum.transfer.max()))
    ambiguous = estimated and passed > AMBIGUOUS
    nothing, everything = SPARSE if sparse else QUADRATIC
    gains, weights, errors, noises = [], [], [], []
    for index, (plane, result) in enumerate(zip(planes, restored, strict=True)):
        plane, level = plane.to(torch.float64), float(sigma[index])
        if ambiguous:
            level = believable_noise(plane, level, passed, None if seen is None else seen[index])
        picture = torch.fft.rfft2(taper * plane).flatten()[spectrum.kept]
        step = torch.fft.rfft2((result - plane).mul_(taper)).flatten()[spectrum.kept]
        length = float(step.abs().square().sum())
        power = banded_power(spectrum, spectrum.power[index], level**2, float(fit.power[index]))
        variance = (kernel.abs().square() * power + level**2).clamp(min=1e-300)
        before = ((1 - kernel).abs().square() * power + level**2).mean()
        gains.append(10 * math.log10(float(before / (power * level**2 / variance).mean().clamp(min=1e-300))))
        errors.append(float(before))
        noises.append(level**2)
        agreement = float(((kernel.conj() * power / variance - 1) * picture * step.conj()).real.sum())
        weight = (agreement / length - nothing) / (everything - nothing) if length else 1.0
        # Where next to nothing is blurred, an estimate that holds texture is worth more than what is to be gained.
        if estimated and passed > NEARLY_A_POINT and gains[-1] < LEAST_GAIN:
            weight = 0.0
        weights.append(min(max(weight, 0.0), 1.0) * float(believed[index]))
    found = (torch.tensor(some, dtype=torch.float64) for some in (gains, weights, errors, noises))
    return Verdict(*(some.to(planes.device) for some in found))


def within_range(plane: Tensor, result: Tensor, seen: Tensor | None, sparse: bool) -> float:
    """Return how much is believed, 0 to 1, of a result that asks for more contrast than a photograph has.

    Ringing leaves the picture's range on both sides, what was small and bright (stars) or dark (letters) on one.
    """
    low, high = torch.aminmax(plane if seen is None else plane[seen])
    room = ROOM * (high - low)
    outside = min(float(side.to(torch.float64).mean()) for side in (result < low - room, result > high + room))
    everything, nothing = OUTSIDE_SPARSE if sparse else OUTSIDE_QUADRATIC
    return min(max((nothing - outside) / (nothing - everything), 0.0), 1.0)


def believable_noise(plane: Tensor, estimate: float, passed: float, seen: Tensor | None = None) -> float:
    """Return the noise that can be believed of an estimate, where the PSF passes every frequency by ``passed`` or more.

    White noise is the same everywhere. Where the quietest parts of the picture hold clearly less than the estimate, it
    is made of texture; and as far as the PSF does not blur, nothing tells how much.
    """
    excess = (QUIET_OF_NOISE - quiet_noise(plane, seen) / max(estimate, 1e-300)) / QUIET_SLOPE
    return estimate * (1 - (1 - LEAST_SHARE) * passed * min(max(excess, 0.0), 1.0))


def quiet_noise(plane: Tensor, seen: Tensor | None = None) -> float:
    """Return the noise that the quietest blocks of a plane would have; constant blocks do not count.

    Of the mask [1 −2 1; −2 4 −2; 1 −2 1] / 6, which leaves white noise its deviation, where all nine pixels were
    ``seen``; 0 where too few were. Source: J. Immerkær, "Fast noise variance estimation", Computer Vision and Image
    Understanding 64 (1996).
    """
    mask = torch.tensor([1.0, -2.0, 1.0], dtype=plane.dtype, device=plane.device)
    if min(plane.shape) < BLOCK + 2:
        return 0.0
    detail = torch.nn.functional.conv2d(plane[None, None], (mask[:, None] * mask / 6)[None, None]).square()
    whole = torch.ones_like(detail)
    if seen is not None:
        whole -= torch.nn.functional.max_pool2d((~seen).to(plane)[None, None], 3, 1)
    told = torch.nn.functional.avg_pool2d(whole, BLOCK).flatten()
    blocks = torch.nn.functional.avg_pool2d(detail * whole, BLOCK).flatten()
    counted = (blocks > 0) & (told >= LEAST_TOLD)
    if not bool(counted.any()):
        return 0.0
    blocks, told = (blocks[counted] / told[counted]).sqrt(), told[counted]
    # Of fewer pixels the quietest blocks lie further below the noise.
    return float(blocks.quantile(QUIET_BLOCKS)) / (1 - (1 - QUIET_BLOCKS_OF_NOISE) / math.sqrt(float(told.mean())))


def _centred_transfer(model: BlurModel) -> Tensor:
    """Return K, the centre of the PSF at 0, on the half plane of the picture."""
    height, width = model.psf.shape
    padded = model.psf.new_zeros(model.picture, dtype=torch.float64)
    padded[:height, :width] = model.psf
    rolled = torch.roll(padded, (-(height // 2), -(width // 2)), (0, 1))
    return torch.fft.rfft2(rolled)
