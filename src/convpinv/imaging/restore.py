"""From pictures in their own units to restored ones: unit scale, strength, prior, and back."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging import no_harm, priors, regularization, saturation
from convpinv.imaging.inpaint import filled
from convpinv.imaging.model import UNKNOWN, BlurModel, taps_before
from convpinv.imaging.psf_check import is_point
from convpinv.imaging.report import Job, Piece
from convpinv.linalg import Conv2dOperator

# A PSF that passes every frequency with at least this share hides no texture, which the estimate then takes for noise.
READABLE_TRANSFER = 0.25
# So much of the estimate is then believed: (a, b) in a − b · that share. The less the PSF blurs, the less is lost by
# leaving noise in; where it does blur, noise that is not reckoned with is made louder.
CAUTIOUS_SHARE = (0.85, 2 / 3)
HARDLY_BLURS = (
    "the PSF hardly blurs: texture may be taken for noise, so only a share of the estimated noise is believed; if the "
    "noise is known, give it"
)
NOTHING_VARIES = "the picture does not vary by more than the rounding of its values: it is given back as it is"
# Strengths outside this range, for pictures of deviation 1, do what its ends do, and would overflow in float32.
STRENGTHS = (1e-15, 1e15)
# Pixels of less than this share of the largest weight are filled in where the strength is chosen.
BELIEVED = 0.5
# Above this share of clipped pixels the spectrum is not that of a blurred scene, and nothing is judged by it.
MOST_CLIPPED = 0.005
# What clipped light hides may exceed the picture's deviation many times: smaller penalties let it rise there sooner.
# Lamps of 3 to 10 times the clipping level: 0.7 to 1.6 dB above what the usual penalty reaches in twice the iterations.
CLIPPED_PENALTY = 0.05
# The strength of C channels that share their edges is C^a times that of one: alike channels would ask for 1/2, others
# for 0. Measured on three colour photographs under three blurs: factors of 1.25 to 1.5 are best at 0.3, 1 and 3 % of
# noise, and gain 0.4, 0.55 and 0.57 dB on average over channels by themselves.
COUPLED_POWER = 0.25
# A picture whose deviation is within this many roundings of its mean is a constant one.
ROUNDINGS = 4.0


@dataclass(frozen=True)
class Material:
    """Pictures (n, C, H, W) in their own units whose channels are restored together, and what is known of them.

    ``kernels`` (1 or C, h, w), ``sigma`` (n, C), float64; ``weight`` and ``clipped`` as in
    :class:`convpinv.imaging.priors.Observation`, of the pictures' shape or None. Values of weight 0 are made up.
    """

    pictures: Tensor
    kernels: Tensor
    sigma: Tensor
    weight: Tensor | None = None
    clipped: Tensor | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every pixel was seen, and as it was."""
        return self.weight is None and self.clipped is None


@dataclass(frozen=True)
class _Unit:
    """Pictures at mean 0 and deviation 1: what was subtracted and divided by, and which were constant (n,)."""

    pictures: Tensor
    centre: Tensor  # (n, C, 1, 1), float64
    scale: Tensor  # (n,), float64
    flat: Tensor

    def in_units(self, values: Tensor) -> Tensor:
        """Return values of unit scale in the pictures' own units."""
        return (values * self.scale[:, None, None, None] + self.centre).to(self.pictures.dtype)

    def of_units(self, value: float) -> Tensor:
        """Return a value of the pictures' own units at unit scale, (n, C, 1, 1)."""
        return ((value - self.centre) / self.scale[:, None, None, None]).to(self.pictures.dtype)


def restore(job: Job, material: Material) -> Piece:
    """Restore pictures that share their PSFs."""
    pictures = material.pictures
    if job.automatic and material.is_complete and all(is_point(kernel) for kernel in material.kernels):
        return _untouched(pictures, material.sigma)
    size = (pictures.shape[-2], pictures.shape[-1])
    models = [BlurModel.build(kernel, size, job.boundary) for kernel in material.kernels]
    transfers = [model.transfer() for model in models]
    # The strength refers to a PSF whose largest transfer is 1.
    gain = max(float(transfer.max()) for transfer in transfers)
    doubts: tuple[str, ...] = ()
    sigma, share = material.sigma, 1.0
    passed = math.sqrt(min(float(transfer.min()) / float(transfer.max()) for transfer in transfers))
    if job.automatic and job.prior != "none" and passed > READABLE_TRANSFER:
        share = CAUTIOUS_SHARE[0] - CAUTIOUS_SHARE[1] * passed
        sigma = share * sigma
        doubts += (HARDLY_BLURS,)

    # A constant passes through the blur unchanged, unless there is darkness outside; the bare pseudo-inverse is bare.
    keeps_constants = job.boundary != Boundary.ZEROS and job.prior != "none"
    unit = _unit_scale(material.pictures, keeps_constants, job.rounding)
    if bool(unit.flat.any()) and keeps_constants:
        doubts += (NOTHING_VARIES,)
    floor = regularization.NOISE_FLOOR_OF_IDENTITY if job.prior == "tikhonov" else regularization.NOISE_FLOOR
    deviation = (sigma / unit.scale[:, None]).clamp(floor, regularization.NOISE_CEILING)
    if material.clipped is not None and job.finds_clipping:
        material = dataclasses.replace(material, clipped=_hiding(models, unit, deviation, material))
    strength, rule, said, selections = _strength(job, models, material, unit, deviation, gain)
    restoration = _solve(job, models, material, unit, deviation, strength, gain)
    verdict = _verdict(job, models, material, unit, restoration.planes, selections, share)
    if verdict is not None:
        weight = verdict.weight.reshape(pictures.shape[:2])[..., None, None].to(unit.pictures)
        restoration = dataclasses.replace(restoration, planes=torch.lerp(unit.pictures, restoration.planes, weight))

    kept = unit.flat & keeps_constants
    solved = torch.where(kept[:, None, None, None], unit.pictures, restoration.planes)
    restored = torch.where(kept[:, None, None, None], material.pictures, unit.in_units(solved))
    channels = pictures.shape[1]
    scale = unit.scale.repeat_interleave(channels)
    units = _strength_units(job, unit.scale)
    misfit = _misfit(models, solved, unit.pictures, material)
    return Piece(
        restored.flatten(0, 1),
        scale,
        sigma.flatten(),
        share,
        (restoration.strength.to(units) * units / gain).repeat_interleave(channels),
        rule,
        misfit.to(scale) * scale,
        dataclasses.replace(restoration, planes=restoration.planes.flatten(0, 1)),
        doubts + said + restoration.warnings,
        tuple(
            chosen.in_units(float(factor) / gain, float(size))
            for chosen, factor, size in zip(selections, units.repeat_interleave(channels), scale, strict=False)
        ),
        verdict,
        0 if material.clipped is None else int((material.clipped != 0).sum()),
    )


def _hiding(models: list[BlurModel], unit: _Unit, deviation: Tensor, material: Material) -> Tensor | None:
    """Return which clipped pixels hide light, channel by channel; None where none does."""
    if material.clipped is None:
        return None
    result = torch.empty_like(material.clipped)
    for channel in range(result.shape[1]):
        some = slice(channel, channel + 1)
        weight = None if material.weight is None else material.weight[:, some]
        model, noise = models[channel % len(models)], deviation[:, channel]
        result[:, some] = saturation.hiding(model, unit.pictures[:, some], noise, weight, material.clipped[:, some])
    return result if bool(result.any()) else None


def _strength_units(job: Job, scale: Tensor) -> Tensor:
    """Return what a strength at unit scale is multiplied by: squares cost scale², |D x|^p costs scale^p."""
    if job.prior in regularization.SPARSE:
        return scale ** (2 - (1.0 if job.prior == "tv" else job.exponent))
    if job.prior in regularization.DENOISERS:
        return scale.square()
    return torch.ones_like(scale)


def _strength(
    job: Job, models: list[BlurModel], material: Material, unit: _Unit, deviation: Tensor, gain: float
) -> tuple[Tensor, str, tuple[str, ...], tuple[regularization.StrengthSelection, ...]]:
    """Return λ of each picture at unit scale (n,), the rule in words, what speaks against it, a receipt a plane."""
    count, channels = unit.pictures.shape[:2]
    if job.prior == "none":
        return torch.zeros_like(unit.scale), "none: the pseudo-inverse", (), ()
    if job.strength is not None:
        given = torch.full_like(unit.scale, job.strength * gain) / _strength_units(job, unit.scale)
        return given.clamp(*STRENGTHS), "given", (), ()
    chosen = torch.empty_like(deviation)
    receipts: dict[int, regularization.StrengthSelection] = {}
    rule, said = "", ()
    for index, model in enumerate(models):
        some = slice(index, None, len(models))
        choice = _choice(job, model, material, unit, deviation, some)
        chosen[:, some] = choice.strength.to(chosen).reshape(count, -1)
        rule, said = choice.rule, said + choice.warnings
        places = torch.arange(count * channels).reshape(count, channels)[:, some].flatten().tolist()
        receipts.update(zip(places, choice.selections, strict=True))
    strength = chosen.log().mean(1).exp() if channels > 1 else chosen[:, 0]
    if channels > 1 and job.prior in regularization.SPARSE:
        rule += f"; the channels' geometric mean, times {channels}^{COUPLED_POWER:g} for edges that they share"
        strength = strength * channels**COUPLED_POWER
    used = [
        dataclasses.replace(receipts[place], strength=float(strength[place // channels])) for place in sorted(receipts)
    ]
    return strength, rule, said, tuple(used)


def _choice(
    job: Job, model: BlurModel, material: Material, unit: _Unit, deviation: Tensor, some: slice
) -> regularization.StrengthChoice:
    """Choose for the channels that share a PSF, each plane by itself."""
    planes, noise = unit.pictures[:, some].flatten(0, 1), deviation[:, some].flatten()
    spectral = "likelihood" if job.rule else None
    complete = material.weight is None
    looked_at = planes
    if material.weight is not None:
        # The spectrum of pixels that are hardly believed would be that of their noise.
        weights = material.weight[:, some].flatten(0, 1)
        looked_at = filled(planes, weights * (weights >= BELIEVED * weights.amax((-2, -1), keepdim=True)))
    choice = regularization.automatic_strength(
        job.prior, model, looked_at, noise, spectral, complete=complete, exponent=job.exponent
    )
    if job.rule in (None, "likelihood"):
        return choice
    weight, clipped = (
        None if part is None else part[:, some].flatten(0, 1)[:, None] for part in (material.weight, material.clipped)
    )
    alone = dataclasses.replace(material, weight=weight, clipped=clipped)
    seen = None if weight is None else weight[:, 0]
    if clipped is not None:
        unclipped = (clipped[:, 0] == 0).to(planes)
        seen = unclipped if seen is None else seen * unclipped

    def restored(data: Tensor, tried: Tensor) -> Tensor:
        return _solve(
            job, [model], alone, dataclasses.replace(unit, pictures=data[:, None]), noise[:, None], tried
        ).planes[:, 0]

    return regularization.measured_strength(job.rule, model, planes, noise, choice, restored, seen)


def _verdict(
    job: Job,
    models: list[BlurModel],
    material: Material,
    unit: _Unit,
    restored: Tensor,
    selections: tuple[regularization.StrengthSelection, ...],
    share: float,
) -> no_harm.Verdict | None:
    """Judge an automatic restoration, a plane at a time; what was not seen as it was cannot be judged."""
    clipped = 0.0 if material.clipped is None else float((material.clipped != 0).float().mean())
    if not selections or material.weight is not None or clipped > MOST_CLIPPED:
        return None
    count, channels = restored.shape[:2]
    noise = torch.tensor([chosen.effective_noise / share for chosen in selections], dtype=torch.float64)
    noise = noise.to(restored.device).reshape(count, channels)
    gain, weight = torch.empty_like(noise), torch.empty_like(noise)
    for index, model in enumerate(models):
        some = slice(index, None, len(models))
        verdict = no_harm.judged(
            model,
            unit.pictures[:, some].flatten(0, 1),
            restored[:, some].flatten(0, 1),
            noise[:, some].flatten(),
            estimated=job.estimated,
            sparse=job.prior not in ("gradient", "tikhonov"),
        )
        gain[:, some] = verdict.gain.reshape(count, -1)
        weight[:, some] = verdict.weight.reshape(count, -1)
    return no_harm.Verdict(gain.flatten(), weight.flatten())


def _solve(
    job: Job,
    models: list[BlurModel],
    material: Material,
    unit: _Unit,
    deviation: Tensor,
    strength: Tensor,
    gain: float = 1.0,
) -> priors.Restoration:
    """Run the prior: pictures (n, C, H, W) at unit scale in and out."""
    model, planes = models[0], unit.pictures[:, 0]
    observation = priors.Observation(unit.pictures, material.weight, material.clipped)
    if job.prior == "none":
        return _of_pictures(priors.pseudo_inverse(model, planes))
    if job.prior == "tikhonov":
        if material.is_complete:
            return _of_pictures(priors.tikhonov(model, planes, strength))
        return priors.weighted_tikhonov(model, observation, strength)
    bounded = job.bounds != (None, None)
    if job.prior == "gradient" and material.clipped is None and not bounded:
        if model.boundary_is_known and material.is_complete:
            return _of_pictures(priors.gradient(model, planes, strength))
        return priors.weighted_gradient(model, observation, strength, job.progress)
    # One-sided pixels: by active sets the gradient prior took ten times as long, to the same quality.
    schedule = priors.Schedule() if material.clipped is None else priors.Schedule(start=CLIPPED_PENALTY)
    sparsity: priors.Sparsity = priors.TotalVariation()
    if job.prior == "gradient":
        sparsity = priors.SquaredDifferences()
    elif job.prior == "hyperlaplacian" and job.exponent < 1:
        sparsity, schedule = priors.HyperLaplacian(job.exponent), priors.CONTINUATION
    if len(models) > 1:
        model = dataclasses.replace(model, psf=torch.stack([each.psf for each in models]))
    low, high = (None if end is None else unit.of_units(end) for end in job.bounds)
    constraint = priors.Constraint.of(model, low, high)
    if job.prior not in regularization.DENOISERS:
        problem = priors.Problem(model, observation, sparsity, strength, constraint, schedule)
        return priors.minimise(problem, job.progress)
    # Where a denoiser starts from: total variation, whose scene goes on beyond the border.
    total_variation = dataclasses.replace(job, prior="tv", strength=None)
    weight = _strength(total_variation, models, material, unit, deviation, gain)[0]
    problem = priors.Problem(model, observation, priors.TotalVariation(), weight, constraint, schedule)
    start = priors.minimise(problem, keep_scene=True)
    first = start.planes if model.boundary_is_known or start.scene is None else start.scene
    denoisers = [_denoiser(job, unit, index) for index in range(len(first))]
    return priors.plug_and_play(model, observation, strength, denoisers, first, job.progress)


def _denoiser(job: Job, unit: _Unit, index: int) -> priors.Denoiser:
    """Return the denoiser of one picture; that of the caller sees the picture's own units."""
    denoise = job.denoiser
    if denoise is None:
        return priors.NonlocalBayes()
    scale, centre = float(unit.scale[index]), unit.centre[index].to(unit.pictures.dtype)

    def at_unit_scale(scene: Tensor, sigma: float) -> Tensor:
        return (denoise(scene * scale + centre, sigma * scale) - centre) / scale

    return priors.GivenDenoiser(at_unit_scale, "a function of the caller's")


def _of_pictures(restoration: priors.Restoration) -> priors.Restoration:
    """Give planes (n, H, W) the axis of the channels."""
    return dataclasses.replace(restoration, planes=restoration.planes[:, None])


def _untouched(pictures: Tensor, sigma: Tensor) -> Piece:
    """Give pictures back: where nothing blurs, and nobody says how much noise there is, nothing is to be done."""
    planes, nothing = pictures.flatten(0, 1), torch.zeros_like(sigma.flatten())
    solver = "none: the PSF is one point"
    restoration = priors.Restoration(planes, nothing, solver, 0, "converged")
    doubts = ("the PSF is one point: there is no blur to undo, and the picture is given back as it is",)
    scale = _unit_scale(planes[:, None], True, 0.0).scale
    return Piece(planes, scale, sigma.flatten(), 1.0, nothing, solver, nothing, restoration, doubts)


def _unit_scale(pictures: Tensor, centred: bool, rounding: float) -> _Unit:
    """Bring pictures (n, C, H, W) to deviation 1 over all their channels, and each channel to mean 0.

    In double precision, and after the largest magnitude has been divided out: the squares of the largest and smallest
    numbers there are, and small deviations from a large mean, would be lost.
    """
    exact = pictures.to(torch.float64)
    largest = exact.abs().amax((-3, -2, -1), keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    exact = exact / largest
    mean = exact.mean((-2, -1), keepdim=True)
    centre = mean if centred else torch.zeros_like(mean)
    exact -= centre
    scale = exact.square().mean((-3, -2, -1), keepdim=True).sqrt()
    flat = scale <= ROUNDINGS * rounding * centre.abs().amax(1, keepdim=True)
    scale = torch.where(flat, torch.ones_like(scale), scale)
    unit = (exact / scale).to(pictures.dtype)
    return _Unit(unit, centre * largest, (scale * largest)[:, 0, 0, 0], flat[:, 0, 0, 0])


def _misfit(models: list[BlurModel], restored: Tensor, pictures: Tensor, material: Material) -> Tensor:
    """Return the root mean square of A x − y over what was seen (n · C,), inside an unknown border's reach."""
    squares = []
    for index, model in enumerate(models):
        some = slice(index, None, len(models))
        weight = model.flipped_psf()
        top = left = 0
        if model.boundary != UNKNOWN:
            again = model.camera()(restored[:, some])
        else:
            again = Conv2dOperator(weight, model.picture)(restored[:, some])
            top, left = (taps_before(k) for k in model.psf.shape)
        inner = (..., slice(top, top + again.shape[-2]), slice(left, left + again.shape[-1]))
        measured = priors.Observation(
            pictures[:, some][inner],
            None if material.weight is None else material.weight[:, some][inner],
            None if material.clipped is None else material.clipped[:, some][inner],
        )
        counts, square = measured.weight_at(again), (again - measured.data).square()
        if counts is None:
            squares.append(square.mean((-2, -1)))
        else:
            squares.append((counts * square).sum((-2, -1)) / counts.sum((-2, -1)).clamp(min=1))
    together = torch.stack(squares, 2).flatten(1)
    return together.sqrt().flatten()
