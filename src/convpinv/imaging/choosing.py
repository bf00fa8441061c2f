"""The strength of a restoration, and the verdict on it: plane by plane, for channels that belong together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging import no_harm, regularization, saturation
from convpinv.imaging.material import Task
from convpinv.imaging.observing import nearly_best
from convpinv.imaging.report import Job
from convpinv.imaging.solving import solve
from convpinv.imaging.stand_in import fitted_spectrum, reached

# Strengths outside this range, for pictures of deviation 1, do what its ends do, and would overflow in float32.
STRENGTHS = (1e-15, 1e15)
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
    if fitted is None:
        fitted = fitted_spectrum(task, model, some)
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


def verdict(task: Task, chosen: Chosen, restored: Tensor, share: float) -> no_harm.Verdict | None:
    """Judge an automatic restoration, a plane at a time; what was not seen as it was cannot be judged.

    ``share`` is that of the noise which the strength reckons with.
    """
    material = task.material
    if not chosen.selections or not material.can_be_judged:
        return None
    count = len(restored)
    found = torch.empty((4, *task.deviation.shape), dtype=torch.float64, device=restored.device)
    for index, part in enumerate(chosen.parts):
        some = slice(index, None, len(task.models))
        planes, result = task.unit.pictures[:, some].flatten(0, 1), restored[:, some].flatten(0, 1)
        if material.clipped is not None:
            # The spectrum knows nothing of light that was cut off: what was made of it is not held against the result.
            result = torch.where(reached(material.clipped[:, some].flatten(0, 1), task.models[index]), planes, result)
        believed = None
        if material.weight is not None:
            believed = nearly_best(material.weight[:, some]).flatten(0, 1)
            result = torch.where(believed, result, planes)
        judged = no_harm.judged(
            part.spectrum,
            planes,
            result,
            share,
            believed,
            estimated=task.job.estimated,
            sparse=task.job.prior not in regularization.LINEAR,
        )
        values = torch.stack([judged.gain, judged.weight, judged.error, judged.noise])
        found[:, :, some] = values.reshape(4, count, -1)
    return no_harm.Verdict(*found.flatten(1))
