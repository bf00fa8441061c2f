"""Rules that restore the picture at each strength they try: for any prior and boundary, at the cost of doing so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from convpinv.imaging.model import UNKNOWN, BlurModel, taps_before
from convpinv.imaging.regularization.rules import crossing
from convpinv.imaging.regularization.selection import StrengthChoice, StrengthSelection
from convpinv.linalg import Conv2dOperator

# Factors about the automatic strength that are tried first, and about the best of them after that.
COARSE = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0, 64.0)
FINE = (0.5, 2.0)
# Square root of the least weight that a pixel is compared with, against the largest: thirty times the noise.
LEAST_ROOT = 1 / 32

Restore = Callable[[Tensor, Tensor], Tensor]

IN_WORDS = {
    "discrepancy": "discrepancy principle: the result, blurred again, misses the picture by the noise",
    "gcv": "generalised cross-validation, its trace from one random probe",
    "sure": "Stein's unbiased estimate of the risk of the blurred-again result, its divergence from one random probe",
}


def measured_strength(
    rule: str,
    model: BlurModel,
    planes: Tensor,
    sigma: Tensor,
    first: StrengthChoice,
    restore: Restore,
    weight: Tensor | None = None,
) -> StrengthChoice:
    """Choose the strength by a rule, by restoring at strengths about the automatic one.

    With r = √w (A x_λ − y) over the N pixels that are compared, w their weights, σ the noise where w is 1, and
    t = div(A x_λ) / N, estimated as ``√w b · (A x_λ(y + σ b / √w) − A x_λ(y)) / (σ N)`` with b a random ±1 at each:

    ============= ===============================
    discrepancy   ``‖r‖² / (N σ²)``, sought: 1
    gcv           ``(‖r‖² / N) / (1 − t)²``
    sure          ``‖r‖² / N + 2 σ² t − σ²``
    ============= ===============================

    Parameters
    ----------
    rule
        One of the three.
    model, planes, sigma
        The blur; pictures (N, H, W) of unit scale; their noise (N,).
    first
        The automatic choice, whose strength is the middle of the search.
    restore
        ``restore(planes, strength)`` with strengths (N,).
    weight
        That of each pixel in the data term, (N, H, W); those of hardly any are not compared. None for 1.

    Notes
    -----
    Cost: 9 restorations for "discrepancy", 18 for the others. Source of the probe: S. Ramani, T. Blu and M. Unser,
    "Monte-Carlo SURE", IEEE Transactions on Image Processing 17 (2008); D. A. Girard, "A fast Monte-Carlo
    cross-validation procedure", Numerische Mathematik 56 (1989).
    """
    noise = sigma.to(planes.dtype)[:, None, None]
    generator = torch.Generator().manual_seed(0)
    # One probe for all: a batch gives what its pictures give alone.
    probe = (2 * torch.randint(0, 2, planes.shape[1:], generator=generator) - 1).to(planes).expand_as(planes)

    # Those of hardly any weight would be shaken out of all proportion.
    root = torch.ones_like(planes[:1]) if weight is None else weight.sqrt()
    counted = root >= LEAST_ROOT * root.amax((-2, -1), keepdim=True)
    shake = noise * torch.where(counted, probe / root, 0)
    told = (root * counted * probe, root.expand_as(planes), counted.to(planes).expand_as(planes))
    direction, roots, counts = (compared(model, planes, part)[1] for part in told)

    def mean(values: Tensor) -> Tensor:
        return (counts * values).sum((-2, -1)) / counts.sum((-2, -1)).clamp(min=1)

    def criterion(strength: Tensor) -> Tensor:
        again, seen = compared(model, restore(planes, strength), planes)
        misfit = mean((roots * (again - seen)).square())
        variance = noise[:, 0, 0].square()
        if rule == "discrepancy":
            return misfit / variance
        shifted, _ = compared(model, restore(planes + shake, strength), planes)
        trace = mean(direction * (shifted - again)) / noise[:, 0, 0]
        if rule == "gcv":
            return misfit / (1 - trace).square().clamp(min=1e-12)
        return misfit + 2 * variance * trace - variance

    tried = {factor: criterion(factor * first.strength).to(torch.float64) for factor in COARSE}
    middles = _best(rule, tried)
    for step in FINE:
        factors = step * middles
        values = criterion(factors * first.strength).to(torch.float64)
        for index, factor in enumerate(factors.tolist()):
            column = tried.setdefault(factor, torch.full_like(values, torch.nan))
            column[index] = values[index]
    selections = tuple(_selection(rule, tried, start, index) for index, start in enumerate(first.selections))
    strength = torch.tensor([one.strength for one in selections], dtype=torch.float64, device=planes.device)
    edges = any(one.at_edge for one in selections)
    doubts = (f"the strength lies at an end of the range that {rule!r} searched",) if edges else ()
    return StrengthChoice(strength, IN_WORDS[rule], selections, first.warnings + doubts, first.spectrum)


def _best(rule: str, tried: dict[float, Tensor]) -> Tensor:
    """Return the best factor of each plane."""
    factors = torch.tensor(list(tried), dtype=torch.float64)
    values = torch.stack(list(tried.values()))
    distance = values.clamp(min=1e-300).log().abs() if rule == "discrepancy" else values
    return factors.to(values.device)[distance.argmin(0)]


def _selection(rule: str, tried: dict[float, Tensor], start: StrengthSelection, index: int) -> StrengthSelection:
    """Make the receipt of one plane."""
    pairs = sorted((factor * start.strength, float(values[index])) for factor, values in tried.items())
    candidates, criterion = zip(*[pair for pair in pairs if pair[1] == pair[1]], strict=True)
    if rule == "discrepancy":
        strength = crossing(list(candidates), list(criterion))
    else:
        strength = candidates[min(range(len(criterion)), key=criterion.__getitem__)]
    return dataclasses.replace(
        start,
        rule=rule,
        strength=strength,
        candidates=candidates,
        criterion=criterion,
        alternatives={**start.alternatives, rule: strength},
    )


def compared(model: BlurModel, restored: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the restored planes blurred again and the planes, where both are known.

    Where the border is unknown that is the inner picture only, else all of it.
    """
    if model.boundary != UNKNOWN:
        return model.camera()(restored[:, None])[:, 0], planes
    inner = Conv2dOperator(model.flipped_psf(), model.picture)(restored[:, None])[:, 0]
    top, left = (taps_before(k) for k in model.psf.shape)
    return inner, planes[:, top : top + inner.shape[-2], left : left + inner.shape[-1]]
