"""Pictures on their way through a restoration: as they came, and at unit scale."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging import regularization
from convpinv.imaging.model import BlurModel
from convpinv.imaging.observing import nearly_best
from convpinv.imaging.priors import Observation
from convpinv.imaging.report import Job

# Up to these shares of pixels that were not seen a result is judged, and the spectrum of a scene believed.
MOST_UNSEEN_TO_JUDGE, MOST_UNSEEN = 0.1, 0.75
# Above this share of clipped pixels the spectrum is not that of a blurred scene, and nothing is judged by it.
MOST_CLIPPED = 0.005
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

    @property
    def unseen(self) -> Tensor:
        """The share of each picture's pixels (n,) that were not seen, or are hardly believed, in its worst channel."""
        if self.weight is None:
            return self.sigma.new_zeros(len(self.sigma))
        return 1 - nearly_best(self.weight).to(torch.float64).mean((-2, -1)).amin(1)

    @property
    def cut_off(self) -> Tensor:
        """The share of each picture's pixels (n,) that are clipped."""
        if self.clipped is None:
            return self.sigma.new_zeros(len(self.sigma))
        return (self.clipped != 0).to(torch.float64).mean((-3, -2, -1))

    @property
    def is_mostly_seen(self) -> bool:
        """Whether of no picture so much is missing that its spectrum says nothing of the scene."""
        return bool((self.unseen <= MOST_UNSEEN).all())

    @property
    def can_be_judged(self) -> bool:
        """Whether of no picture so much is missing, or clipped, that the spectrum is no judge of a result."""
        return bool(((self.unseen <= MOST_UNSEEN_TO_JUDGE) & (self.cut_off <= MOST_CLIPPED)).all())

    def seen_alike(self) -> list[tuple[Tensor, Material]]:
        """Return the pictures with no, few and many gaps and clipped pixels, apart, each with their indices.

        So that none is judged, or solved for, in another way for its neighbour's sake.
        """
        unseen, cut_off = self.unseen, self.cut_off
        gaps = (unseen > MOST_UNSEEN_TO_JUDGE).long() + (unseen > MOST_UNSEEN)
        if self.weight is not None:
            gaps += (self.weight != 1).flatten(1).any(1)
        ends = (cut_off > 0).long() + (cut_off > MOST_CLIPPED)
        groups = []
        for gap, end in torch.stack([gaps, ends], 1).unique(dim=0).tolist():
            some = torch.nonzero((gaps == gap) & (ends == end))[:, 0]
            groups.append((some, self.part(some, gap > 0, end > 0)))
        return groups

    def part(self, some: Tensor, gaps: bool, ends: bool) -> Material:
        """Return some of the pictures, with what is known of their gaps and ends of range or without."""
        which = _index(some, len(self.pictures))
        return Material(
            self.pictures[which],
            self.kernels,
            self.sigma[which],
            self.weight[which] if gaps and self.weight is not None else None,
            self.clipped[which] if ends and self.clipped is not None else None,
        )


@dataclass(frozen=True)
class Unit:
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

    def noise(self, sigma: Tensor, prior: str) -> Tensor:
        """Return noise (n, C) of the pictures' own units at unit scale, as the choice of a strength takes it."""
        floor = regularization.NOISE_FLOOR_OF_IDENTITY if prior == "tikhonov" else regularization.NOISE_FLOOR
        return (sigma / self.scale[:, None]).clamp(floor, regularization.NOISE_CEILING)

    @staticmethod
    def of(pictures: Tensor, centred: bool, rounding: float) -> Unit:
        """Bring pictures (n, C, H, W) to deviation 1 over all their channels, and each channel to mean 0.

        In double precision, and after the largest magnitude has been divided out: the squares of the largest and
        smallest numbers there are, and small deviations from a large mean, would be lost.
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
        return Unit(unit, centre * largest, (scale * largest)[:, 0, 0, 0], flat[:, 0, 0, 0])


@dataclass(frozen=True)
class Task:
    """Pictures at unit scale, and all that their restoration depends on but the strength.

    ``models`` is one blur, or one a channel; ``deviation`` the noise at unit scale, (n, C); ``gain`` the largest |K|².
    """

    job: Job
    models: list[BlurModel]
    material: Material
    unit: Unit
    deviation: Tensor
    gain: float = 1.0

    @property
    def observation(self) -> Observation:
        """The pictures and how far each pixel is to be believed."""
        return Observation(self.unit.pictures, self.material.weight, self.material.clipped)

    def seen_alike(self) -> list[tuple[Tensor, Task]]:
        """Return the tasks of :meth:`Material.seen_alike`, each with the indices of its pictures."""
        return [(some, self.part(some, material)) for some, material in self.material.seen_alike()]

    def to(self, dtype: torch.dtype) -> Task:
        """Return the task at another precision; strengths and scales stay what they are."""
        material, unit = self.material, self.unit
        weight = None if material.weight is None else material.weight.to(dtype)
        return dataclasses.replace(
            self,
            models=[dataclasses.replace(model, psf=model.psf.to(dtype)) for model in self.models],
            material=dataclasses.replace(material, weight=weight),
            unit=dataclasses.replace(unit, pictures=unit.pictures.to(dtype)),
        )

    def part(self, some: Tensor, material: Material) -> Task:
        """Return the task of some of the pictures, whose material is given."""
        unit, which = self.unit, _index(some, len(self.unit.pictures))
        part = Unit(unit.pictures[which], unit.centre[which], unit.scale[which], unit.flat[which])
        return dataclasses.replace(self, material=material, unit=part, deviation=self.deviation[which])


def _index(some: Tensor, count: int) -> Tensor | slice:
    """Return what picks some of so many pictures: where they are all of them a slice, which copies nothing."""
    return some if len(some) < count else slice(None)
