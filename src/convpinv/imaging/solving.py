"""Which solver serves a prior: from pictures of unit scale and a strength to restored ones."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from convpinv.imaging import priors, regularization
from convpinv.imaging.material import Task, Unit
from convpinv.imaging.report import Job

IN_SINGLE = ("tv", "hyperlaplacian", "nonlocal")


def solve_apart(task: Task, strength: Tensor, first_strength: Tensor | None) -> priors.Restoration:
    """Run the prior on pictures that were seen alike together, and on the others by themselves."""
    groups = task.seen_alike()
    if len(groups) == 1:
        return solve(groups[0][1], strength, first_strength)
    planes = torch.empty_like(task.unit.pictures)
    parts = []
    for some, part in groups:
        first = None if first_strength is None else first_strength[some]
        parts.append(solve(part, strength[some], first))
        planes[some] = parts[-1].planes
    slowest = max(parts, key=lambda part: (part.status.startswith("stopped"), part.iterations))
    said = tuple(dict.fromkeys(warning for part in parts for warning in part.warnings))
    return dataclasses.replace(slowest, planes=planes, strength=strength, warnings=said)


def solve(task: Task, strength: Tensor, first_strength: Tensor | None = None) -> priors.Restoration:
    """Run the prior: pictures (n, C, H, W) at unit scale in and out, λ (n,).

    ``first_strength`` is that of total variation, whose scene a denoiser starts from. Priors whose iteration ends at a
    change of 1e-3 or more work in single precision: in double twelve pictures of 500² took 1.2 to 1.7 times as long, to
    results 8e-7 of the deviation away (root mean square; 2.5e-4 by the hyper-Laplacian, which is not convex).
    """
    double = task.unit.pictures.dtype
    if task.job.prior not in IN_SINGLE or double != torch.float64:
        return _solve(task, strength, first_strength)
    restoration = _solve(task.to(torch.float32), strength, first_strength)
    return dataclasses.replace(restoration, planes=restoration.planes.to(double))


def _solve(task: Task, strength: Tensor, first_strength: Tensor | None) -> priors.Restoration:
    job, models, material = task.job, task.models, task.material
    model, planes, observation = models[0], task.unit.pictures[:, 0], task.observation
    if job.prior == "none":
        return _of_pictures(priors.pseudo_inverse(model, planes))
    if job.prior == "tikhonov":
        if material.is_complete:
            return _of_pictures(priors.tikhonov(model, planes, strength))
        return priors.weighted_tikhonov(model, observation, strength)
    bounded = job.bounds != (None, None)
    if job.prior == "gradient" and material.clipped is None and not bounded:
        return priors.gradient(model, observation, strength, job.progress)
    # One-sided pixels: by active sets the gradient prior took ten times as long, to the same quality.
    schedule = priors.Schedule() if material.clipped is None else priors.CLIPPED
    sparsity: priors.Sparsity = priors.TotalVariation()
    if job.prior == "gradient":
        sparsity = priors.SquaredDifferences()
    elif job.prior == "hyperlaplacian" and job.exponent < 1:
        sparsity, schedule = priors.HyperLaplacian(job.exponent), priors.CONTINUATION
    if len(models) > 1:
        model = dataclasses.replace(model, psf=torch.stack([each.psf for each in models]))
    low, high = (None if end is None else task.unit.of_units(end) for end in job.bounds)
    constraint = priors.Constraint.of(model, low, high)
    if job.prior not in regularization.DENOISERS:
        problem = priors.Problem(model, observation, sparsity, strength, constraint, schedule)
        return priors.minimise(problem, job.progress)
    # A denoiser starts from the scene of total variation, which goes on beyond the border.
    weight = strength if first_strength is None else first_strength
    problem = priors.Problem(model, observation, priors.TotalVariation(), weight, constraint, schedule.patiently())
    start = priors.minimise(problem, keep_scene=True)
    first = start.planes if model.boundary_is_known or start.scene is None else start.scene
    denoisers = [_denoiser(job, task.unit, index) for index in range(len(first))]
    return priors.plug_and_play(model, observation, strength, denoisers, first, job.progress)


def _denoiser(job: Job, unit: Unit, index: int) -> priors.Denoiser:
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
