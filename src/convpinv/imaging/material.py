"""Pictures on their way through a restoration: as they came, and at unit scale."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging import regularization
from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors import Observation
from convpinv.imaging.report import Job

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
        """Return the pictures with and without gaps and clipped light, apart, each with their indices.

        So that none is solved for in another way for its neighbour's sake.
        """
        gaps = self._anywhere(None if self.material.weight is None else self.material.weight != 1)
        ends = self._anywhere(None if self.material.clipped is None else self.material.clipped != 0)
        groups = []
        for gap in (False, True):
            for end in (False, True):
                some = torch.nonzero((gaps == gap) & (ends == end))[:, 0]
                if len(some):
                    groups.append((some, self.part(some, gap, end)))
        return groups

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

    def _anywhere(self, mask: Tensor | None) -> Tensor:
        if mask is None:
            return torch.zeros(len(self.unit.pictures), dtype=torch.bool, device=self.unit.pictures.device)
        return mask.flatten(1).any(1)

    def part(self, some: Tensor, gaps: bool, ends: bool) -> Task:
        """Return some of the pictures, with what is known of their gaps and ends of range or without."""
        material, unit = self.material, self.unit
        # Without an index nothing is copied.
        which = some if len(some) < len(unit.pictures) else slice(None)
        part = Material(
            material.pictures[which],
            material.kernels,
            material.sigma[which],
            material.weight[which] if gaps and material.weight is not None else None,
            material.clipped[which] if ends and material.clipped is not None else None,
        )
        chosen = Unit(unit.pictures[which], unit.centre[which], unit.scale[which], unit.flat[which])
        return dataclasses.replace(self, material=part, unit=chosen, deviation=self.deviation[which])
