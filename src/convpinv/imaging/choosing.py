"""The strength of a restoration, and the verdict on it: plane by plane, for channels that belong together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging import no_harm, regularization, saturation
from convpinv.imaging.inpaint import filled
from convpinv.imaging.material import Task
from convpinv.imaging.model import BlurModel
from convpinv.imaging.report import Job
from convpinv.imaging.solving import solve

# Strengths outside this range, for pictures of deviation 1, do what its ends do, and would overflow in float32.
STRENGTHS = (1e-15, 1e15)
# Pixels of less than this share of the largest weight are filled in where the strength is chosen.
BELIEVED = 0.5
# What the light of clipped pixels reaches is filled in there, if so much of the picture is left.
MOSTLY = 0.5
# Above this share of clipped pixels the spectrum is not that of a blurred scene, and nothing is judged by it.
MOST_CLIPPED = 0.005
# The strength of C channels that share their edges is C^a times that of one: alike channels would ask for 1/2, others
# for 0. Measured on three colour photographs under three blurs: 1.25 to 1.5 times what the spectrum says, of which 1.2
# are for any picture by total variation, is best at 0.3, 1 and 3 % of noise, and gains 0.4, 0.55 and 0.57 dB on average
# over channels by themselves.
COUPLED_POWER = {"tv": 0.17, "hyperlaplacian": 0.25}


@dataclass(frozen=True)
class Chosen:
    """λ of each picture at unit scale (n,), the rule in words, what speaks against it, and a receipt a plane.

    ``first`` is the strength of total variation where a denoiser starts from that; ``parts`` the choices for the
    channels of each PSF. Without receipts the strength was given, or there is none.
    """

    strength: Tensor
    rule: str
    warnings: tuple[str, ...] = ()
    selections: tuple[regularization.StrengthSelection, ...] = ()
    parts: tuple[regularization.StrengthChoice, ...] = ()
    first: Tensor | None = None


def hiding(task: Task) -> Tensor | None:
    """Return which clipped pixels hide light, channel by channel; None where none does."""
    clipped, weights = task.material.clipped, task.material.weight
    if clipped is None:
        return None
    result = torch.empty_like(clipped)
    for channel in range(result.shape[1]):
        some = slice(channel, channel + 1)
        weight = None if weights is None else weights[:, some]
        model, noise = task.models[channel % len(task.models)], task.deviation[:, channel]
        result[:, some] = saturation.hiding(model, task.unit.pictures[:, some], noise, weight, clipped[:, some])
    return result if bool(result.any()) else None


def strength_units(job: Job, scale: Tensor) -> Tensor:
    """Return what a strength at unit scale is multiplied by: squares cost scale², |D x|^p costs scale^p."""
    if job.prior in regularization.SPARSE:
        return scale ** (2 - (1.0 if job.prior == "tv" else job.exponent))
    if job.prior in regularization.DENOISERS:
        return scale.square()
    return torch.ones_like(scale)


def strength(task: Task) -> Chosen:
    """Return the strength that was given, or choose one."""
    job, scale = task.job, task.unit.scale
    if job.prior == "none":
        return Chosen(torch.zeros_like(scale), "none: the pseudo-inverse")
    if job.strength is None:
        chosen = _chosen(task)
    else:
        given = torch.full_like(scale, job.strength * task.gain) / strength_units(job, scale)
        chosen = Chosen(given.clamp(*STRENGTHS), "given")
    if job.prior not in regularization.DENOISERS:
        return chosen
    total_variation = dataclasses.replace(task, job=dataclasses.replace(job, prior="tv", strength=None))
    return dataclasses.replace(chosen, first=_chosen(total_variation, chosen.parts).strength)


def _chosen(task: Task, known: tuple[regularization.StrengthChoice, ...] = ()) -> Chosen:
    """Choose, for the channels of each PSF, and then for the pictures; ``known`` has what was fitted already."""
    count, channels = task.unit.pictures.shape[:2]
    chosen = torch.empty_like(task.deviation)
    receipts: dict[int, regularization.StrengthSelection] = {}
    parts = []
    for index in range(len(task.models)):
        some = slice(index, None, len(task.models))
        part = _of_channels(task, index, known[index].spectrum if known else None)
        parts.append(part)
        chosen[:, some] = part.strength.to(chosen).reshape(count, -1)
        places = torch.arange(count * channels).reshape(count, channels)[:, some].flatten().tolist()
        receipts.update(zip(places, part.selections, strict=True))
    result = chosen.log().mean(1).exp() if channels > 1 else chosen[:, 0]
    rule = parts[-1].rule
    power = COUPLED_POWER.get(task.job.prior)
    if channels > 1 and power is not None:
        rule += f"; the channels' geometric mean, times {channels}^{power:g} for edges that they share"
        result = result * channels**power
    used = [
        dataclasses.replace(receipts[place], strength=float(result[place // channels])) for place in sorted(receipts)
    ]
    said = tuple(warning for part in parts for warning in part.warnings)
    return Chosen(result, rule, said, tuple(used), tuple(parts))


def _of_channels(task: Task, index: int, fitted: regularization.FittedSpectrum | None) -> regularization.StrengthChoice:
    """Choose for the channels that share a PSF, each plane by itself."""
    job, model, material, some = task.job, task.models[index], task.material, slice(index, None, len(task.models))
    planes, noise = task.unit.pictures[:, some].flatten(0, 1), task.deviation[:, some].flatten()
    spectral = "likelihood" if job.rule else None
    # Light that was cut off is no error of the PSF, but would be taken for one: lamps, 2.5 dB below.
    complete = material.is_complete
    if fitted is None:
        fitted = regularization.FittedSpectrum.of(model, _looked_at(task, model, some), noise, complete=complete)
    choice = regularization.automatic_strength(job.prior, fitted, spectral, exponent=job.exponent)
    if job.rule in (None, "likelihood"):
        return choice
    weight, clipped = (
        None if part is None else part[:, some].flatten(0, 1)[:, None] for part in (material.weight, material.clipped)
    )
    alone = dataclasses.replace(
        task,
        models=[model],
        material=dataclasses.replace(material, weight=weight, clipped=clipped),
        deviation=noise[:, None],
    )
    seen = None if weight is None else weight[:, 0]
    if clipped is not None:
        unclipped = (clipped[:, 0] == 0).to(planes)
        seen = unclipped if seen is None else seen * unclipped

    # Its channels are pictures here, each with a unit of its own.
    whole = task.unit
    width = len(planes) // len(whole.scale)
    own = dataclasses.replace(
        whole,
        centre=whole.centre[:, some].flatten(0, 1)[:, None],
        scale=whole.scale.repeat_interleave(width),
        flat=whole.flat.repeat_interleave(width),
    )

    def restored(data: Tensor, tried: Tensor) -> Tensor:
        unit = dataclasses.replace(own, pictures=data[:, None])
        return solve(dataclasses.replace(alone, unit=unit), tried).planes[:, 0]

    return regularization.measured_strength(job.rule, model, planes, noise, choice, restored, seen)


def _looked_at(task: Task, model: BlurModel, some: slice) -> Tensor:
    """Return the planes (N, H, W) whose spectrum stands for the scene: what would mislead is filled in smoothly."""
    material, planes = task.material, task.unit.pictures[:, some].flatten(0, 1)
    if material.is_complete:
        return planes
    believed = torch.ones_like(planes)
    if material.weight is not None:
        # The spectrum of pixels that are hardly believed would be that of their noise.
        weights = material.weight[:, some].flatten(0, 1)
        believed = weights * (weights >= BELIEVED * weights.amax((-2, -1), keepdim=True))
    if material.clipped is not None:
        # Lamps would speak for a scene of sharp contrasts all over, and noise be left in.
        apart = believed.masked_fill(_reached(material.clipped[:, some].flatten(0, 1), model), 0.0)
        left = (apart > 0).to(torch.float32).mean((-2, -1)) >= MOSTLY
        believed = torch.where(left[:, None, None], apart, believed)
    return filled(planes, believed)


def verdict(task: Task, chosen: Chosen, restored: Tensor, share: float) -> no_harm.Verdict | None:
    """Judge an automatic restoration, a plane at a time; what was not seen as it was cannot be judged.

    ``share`` is that of the noise which the strength reckons with.
    """
    material = task.material
    clipped = 0.0 if material.clipped is None else float((material.clipped != 0).float().mean())
    if not chosen.selections or material.weight is not None or clipped > MOST_CLIPPED:
        return None
    count = len(restored)
    found = torch.empty((4, *task.deviation.shape), dtype=torch.float64, device=restored.device)
    for index, part in enumerate(chosen.parts):
        some = slice(index, None, len(task.models))
        planes, result = task.unit.pictures[:, some].flatten(0, 1), restored[:, some].flatten(0, 1)
        if material.clipped is not None:
            # The spectrum knows nothing of light that was cut off: what was made of it is not held against the result.
            result = torch.where(_reached(material.clipped[:, some].flatten(0, 1), task.models[index]), planes, result)
        judged = no_harm.judged(
            part.spectrum,
            planes,
            result,
            share,
            estimated=task.job.estimated,
            sparse=task.job.prior not in regularization.LINEAR,
        )
        values = torch.stack([judged.gain, judged.weight, judged.error, judged.noise])
        found[:, :, some] = values.reshape(4, count, -1)
    return no_harm.Verdict(*found.flatten(1))


def _reached(clipped: Tensor, model: BlurModel) -> Tensor:
    """Return the pixels that the light of clipped ones reaches, by the PSF: planes (N, H, W)."""
    near = (clipped != 0).to(torch.float32)[:, None]
    for axis, taps in enumerate(model.psf.shape):
        size = (2 * (taps // 2) + 1, 1) if axis == 0 else (1, 2 * (taps // 2) + 1)
        near = torch.nn.functional.max_pool2d(near, size, 1, (size[0] // 2, size[1] // 2))
    return near[:, 0] > 0
