"""From pictures in their own units to restored ones: unit scale, strength, prior, and back."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging import choosing, priors
from convpinv.imaging.material import Material, Task, Unit
from convpinv.imaging.model import BlurModel
from convpinv.imaging.psf_check import is_point
from convpinv.imaging.report import Job, Piece
from convpinv.imaging.solving import solve
from convpinv.imaging.trials import tried

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


def restore(job: Job, material: Material) -> tuple[Tensor, list[tuple[Tensor, Piece]]]:
    """Restore pictures that share their PSFs.

    Returns planes (n · C, H, W) in the pictures' units, and what is said of which pictures. Those that were seen alike
    are restored together and the others by themselves, so that a batch gives what its pictures give alone: the choice
    of a strength and the verdict on it ask whether every pixel was seen.
    """
    parts = [
        (some[which], planes, piece)
        for some, part in material.seen_alike()
        for which, planes, piece in _restored(job, part)
    ]
    if len(parts) == 1:
        return parts[0][1].flatten(0, 1), [(parts[0][0], parts[0][2])]
    restored = torch.empty_like(material.pictures)
    for some, planes, _ in parts:
        restored[some] = planes
    return restored.flatten(0, 1), [(some, piece) for some, _, piece in parts]


def _restored(job: Job, material: Material) -> list[tuple[Tensor, Tensor, Piece]]:
    """Restore pictures (n, C, H, W) that were seen alike; apart, where the clipped light of some hides nothing."""
    pictures = material.pictures
    if job.automatic and material.weight is None and all(is_point(kernel) for kernel in material.kernels):
        return [(torch.arange(len(pictures), device=pictures.device), *_untouched(material))]
    size = (pictures.shape[-2], pictures.shape[-1])
    models = [BlurModel.build(kernel, size, job.boundary) for kernel in material.kernels]
    ends = [torch.aminmax(model.transfer()) for model in models]
    # The strength refers to a PSF whose largest transfer is 1.
    gain = max(float(end.max) for end in ends)
    doubts: tuple[str, ...] = ()
    share = 1.0
    if job.automatic and job.prior != "none":
        share, doubts = cautious_share(math.sqrt(min(float(end.min) / float(end.max) for end in ends)))
    unit = Unit.of(pictures, _keeps_constants(job), job.rounding)
    task = Task(job, models, material, unit, unit.noise(share * material.sigma, job.prior), gain)
    if material.clipped is not None and job.finds_clipping:
        material = dataclasses.replace(material, clipped=choosing.hiding(task))
        task = dataclasses.replace(task, material=material)
    return [(some, *_solved(part, share, doubts)) for some, part in task.seen_alike()]


def _solved(task: Task, share: float, doubts: tuple[str, ...]) -> tuple[Tensor, Piece]:
    """Choose, solve and judge; ``share`` is that of the noise which is reckoned with."""
    job, material, unit = task.job, task.material, task.unit
    sigma, shape = share * material.sigma, material.pictures.shape
    keeps_constants = _keeps_constants(job)
    if bool(unit.flat.any()) and keeps_constants:
        doubts += (NOTHING_VARIES,)
    chosen = choosing.strength(task)
    restoration = solve(task, chosen.strength, chosen.first)
    solved = restoration.planes
    verdict = choosing.verdict(task, chosen, solved, share)
    if verdict is not None:
        verdict = tried(verdict, task, chosen.strength, chosen.first, solved, sigma)
        # Channels that were restored together: one of them given back, or mixed otherwise, would tint every edge.
        least = verdict.weight.reshape(shape[:2]).amin(1, keepdim=True).expand(shape[:2])
        verdict = dataclasses.replace(verdict, weight=least.flatten())
    if verdict is not None and bool((verdict.weight < 1).any()):
        weight = verdict.weight.reshape(shape[:2])[..., None, None].to(unit.pictures)
        solved = torch.lerp(unit.pictures, solved, weight)

    misfit = _misfit(task.models, solved, unit.pictures, material)
    restored = unit.in_units(solved)
    # To the last bit: unit scale and back rounds.
    kept = (unit.flat & keeps_constants)[:, None].expand(shape[:2])
    if verdict is not None:
        kept = kept | (verdict.weight.reshape(kept.shape) == 0)
    if bool(kept.any()):
        restored[kept] = material.pictures[kept]
    channels = shape[1]
    scale = unit.scale.repeat_interleave(channels)
    units = choosing.strength_units(job, unit.scale)
    return restored, Piece(
        scale,
        sigma.flatten(),
        share,
        (restoration.strength.to(units) * units / task.gain).repeat_interleave(channels),
        chosen.rule,
        misfit.to(scale) * scale,
        restoration.solver,
        restoration.iterations,
        restoration.status,
        doubts + chosen.warnings + restoration.warnings,
        tuple(
            one.in_units(float(factor) / task.gain, float(size))
            for one, factor, size in zip(chosen.selections, units.repeat_interleave(channels), scale, strict=False)
        ),
        verdict,
        _clipped(material),
    )


def _keeps_constants(job: Job) -> bool:
    """Tell whether a constant passes unchanged: not with darkness outside; and the bare pseudo-inverse is bare."""
    return job.boundary != Boundary.ZEROS and job.prior != "none"


def cautious_share(passed: float) -> tuple[float, tuple[str, ...]]:
    """Return how much of estimated noise is believed where the blur passes at least so much of each frequency."""
    if passed <= READABLE_TRANSFER:
        return 1.0, ()
    return CAUTIOUS_SHARE[0] - CAUTIOUS_SHARE[1] * passed, (HARDLY_BLURS,)


def _untouched(material: Material) -> tuple[Tensor, Piece]:
    """Give pictures back: where nothing blurs, and nobody says how much noise there is, nothing is to be done."""
    planes, sigma = material.pictures.flatten(0, 1), material.sigma.flatten()
    nothing = torch.zeros_like(sigma)
    solver = "none: the PSF is one point"
    doubts = ("the PSF is one point: there is no blur to undo, and the picture is given back as it is",)
    scale = Unit.of(planes[:, None], True, 0.0).scale
    said = Piece(scale, sigma, 1.0, nothing, solver, nothing, solver, 0, "converged", doubts)
    return material.pictures.clone(), dataclasses.replace(said, saturated=_clipped(material))


def _clipped(material: Material) -> int:
    """Count the values that were clipped and count as bounds."""
    return 0 if material.clipped is None else int((material.clipped != 0).sum())


def _misfit(models: list[BlurModel], restored: Tensor, pictures: Tensor, material: Material) -> Tensor:
    """Return the root mean square of A x − y over what was seen (n · C,), inside an unknown border's reach."""
    squares = []
    for index, model in enumerate(models):
        some = slice(index, None, len(models))
        camera, (top, left) = model.camera_again()
        again = camera(restored[:, some])
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
