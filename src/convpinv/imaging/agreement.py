"""What is decided once for a picture too large to be restored at once; whatever a part decided by itself would show."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import Boundary
from convpinv.imaging import choosing, psf_examine, regularization
from convpinv.imaging.clipping import clipped_pixels
from convpinv.imaging.coupling import of_one_size, together
from convpinv.imaging.inpaint import filled
from convpinv.imaging.material import Material, Task, Unit
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.noise import noise_of_planes
from convpinv.imaging.reach import LARGEST_HALO, LOCAL_PRIORS, MEASURED_SEAMS, Reach, reach
from convpinv.imaging.report import Job
from convpinv.imaging.restore import cautious_share
from convpinv.linalg import fast_size

__all__ = ["Agreement", "agree", "largest_power", "restored_together", "task_of"]

# A plateau is clipped light for the whole picture if at least this share of it hides light in the sample.
HIDING_SHARE = 0.5
# Frequencies a side at which the largest transfer is looked for; that of a PSF without negative light is its sum.
GAIN_GRID = 256


@dataclass(frozen=True)
class Agreement:
    """What holds for every part of a picture; numbers in the picture's units, tuples one entry a channel.

    Attributes
    ----------
    prior, boundary
        As in :func:`convpinv.deblur`.
    kernels
        The PSFs (1 or C, h, w), put right, float64.
    noise, mean
        Standard deviation of the noise, and the mean.
    strength
        As a number in :func:`convpinv.deblur`; ``first`` that of total variation from which "nonlocal" starts.
    strength_rule, noise_rule
        How they were chosen.
    deviation
        Standard deviation of the picture, to which the tolerances of the iterations refer.
    low, high
        Smallest and largest value of the sample.
    clip
        Levels at which light was cut off; None for open ends.
    warnings
        What is to be said of the PSF and the sample.
    """

    prior: str
    boundary: str
    kernels: Tensor
    noise: tuple[float, ...]
    strength: tuple[float, ...]
    first: tuple[float, ...]
    strength_rule: str
    noise_rule: str
    mean: tuple[float, ...]
    deviation: float
    low: float
    high: float
    clip: tuple[float | None, float | None] = (None, None)
    warnings: tuple[str, ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether the restoration is a convolution away from the border: nothing iterates and nothing is one-sided."""
        return self.prior in regularization.LINEAR and self.clip == (None, None)

    def reach(self, tolerance: float, largest: int = LARGEST_HALO) -> Reach:
        """Return how far the restoration looks, the farthest of all channels, and no farther than ``largest``."""
        found = [
            reach(
                self.kernels,
                self.prior,
                strength=strength,
                tolerance=tolerance,
                span=max(self.high - self.low, 1e-30),
                deviation=self.deviation,
                largest=largest,
            )
            for strength in dict.fromkeys(self.strength)
        ]
        most = max(found, key=lambda one: (one.halo, one.seam))
        if most.is_bound and not self.is_linear:  # clipped light is restored by an iteration
            seam = max(MEASURED_SEAMS.values())
            return dataclasses.replace(most, is_bound=False, seam=max(most.seam, seam * self.deviation))
        return most


def agree(
    blocks: Tensor,
    psf: Any,
    *,
    noise: float | None = None,
    prior: str = "tv",
    boundary: str = UNKNOWN,
    strength: float | None = None,
) -> Agreement:
    """Decide, from blocks of a picture, what holds for all of it.

    Parameters
    ----------
    blocks
        A sample (B, C, h, w), floating. NaN and infinity were not seen.
    psf, noise, prior, boundary, strength
        As in :func:`convpinv.deblur`; the prior one that :func:`convpinv.imaging.reach` knows, the strength a number
        or None.

    Returns
    -------
    Agreement
        The noise is the median of the blocks' estimates, the strength the geometric mean of those that the blocks
        would choose, weighted by their variance: blocks that hold nothing have no say. Light counts as clipped where
        the sample has a plateau at an end of its range and half of it hides light.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above.

    Notes
    -----
    Cost: for each block an estimate of the noise and a fit of its spectrum, as :func:`convpinv.deblur` makes them.

    Examples
    --------
    >>> import torch
    >>> from convpinv import imaging
    >>> blocks = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> agreement = imaging.agree(blocks, "gaussian:sigma=1", prior="gradient", strength=0.1, noise=0.01)
    >>> print(agreement.reach(tolerance=0.01))
    halo 8 px, seam < 0.0057 (bound)
    """
    call = "deblur"
    pictures = arguments.pictures(call, "image", blocks, largest_ndim=4, gaps=True)
    name = arguments.choice(call, "prior", prior, LOCAL_PRIORS)
    border = arguments.choice(call, "boundary", boundary, (UNKNOWN, *(str(mode) for mode in Boundary)))
    given = None if noise is None else arguments.non_negative(call, "noise", noise)
    number = None if strength is None else arguments.positive(call, "strength", strength)
    kernels, findings = _kernels(call, psf, pictures)

    count, channels = blocks.shape[:2]
    stack = pictures.stack
    weight = None if pictures.finite is None else pictures.finite.to(stack)
    if weight is not None:
        stack = filled(stack, weight)
    seen = stack if pictures.finite is None else stack[pictures.finite]
    low, high = (float(end) for end in torch.aminmax(seen))
    if given is None:
        estimates = noise_of_planes(stack, weight).reshape(count, channels)
        sigma = estimates.to("cpu", torch.float64).median(0).values
    else:
        sigma = torch.full((channels,), given, dtype=torch.float64)
    share, doubts = 1.0, findings
    job = Job(name, border, number, given is None, torch.finfo(stack.dtype).eps, None, None)
    models = [BlurModel.build(kernel.to(stack), (stack.shape[-2], stack.shape[-1]), border) for kernel in kernels]
    if job.automatic:
        ends = [torch.aminmax(model.transfer()) for model in models]
        share, remarks = cautious_share(math.sqrt(min(float(end.min) / float(end.max) for end in ends)))
        sigma, doubts = share * sigma, (*doubts, *remarks)

    planes = stack.reshape(count, channels, *stack.shape[-2:])
    mean = planes.to(torch.float64).mean((0, 2, 3))
    centred = planes.to(torch.float64) - mean[:, None, None]
    deviation = float(centred.square().mean().sqrt())
    clip, strengths, firsts, rule = (None, None), [], [], "given"
    plateau = clipped_pixels(stack.reshape(-1, stack.shape[-1]), _flat(pictures.finite))
    signs = plateau.reshape(planes.shape) if bool(plateau.any()) else None
    for channel, width in restored_together(name, border, channels, len(kernels)):
        some = slice(channel, channel + width)
        own = kernels if len(kernels) == width else kernels[channel % len(kernels)][None]
        material = Material(
            planes[:, some],
            own.to(stack),
            sigma[some].expand(count, width),
            None if weight is None else weight.reshape(planes.shape)[:, some],
            None if signs is None else signs[:, some],
        )
        task = task_of(job, material)
        if signs is not None:
            hidden = choosing.hiding(task)
            clip = _joined(clip, signs[:, some], hidden, (low, high))
            task = dataclasses.replace(task, material=dataclasses.replace(material, clipped=hidden))
        chosen, first = torch.empty_like(task.unit.scale), torch.empty_like(task.unit.scale)
        for blocks_alike, part in task.seen_alike():
            choice = choosing.strength(part)
            chosen[blocks_alike] = choice.strength
            first[blocks_alike] = choice.strength if choice.first is None else choice.first
            rule = choice.rule
            doubts = (*doubts, *choice.warnings)
        units = choosing.strength_units(job, task.unit.scale)
        # What a block has beyond its noise is its say.
        say = (task.unit.scale.square() - float(sigma[some].square().mean())).clamp(min=1e-3 * deviation**2)
        strengths += [_mean(chosen * units / task.gain, say)] * width
        firsts += [_mean(first * task.unit.scale, say)] * width
    if number is not None:
        strengths = [number] * channels
    else:
        rule += f"; over {count} blocks, weighted by their variance"
    found = f"estimated: the median of {count} blocks" + (f", and {share:.2g} of it taken" if share < 1 else "")
    return Agreement(
        name,
        border,
        kernels,
        tuple(sigma.tolist()),
        tuple(strengths),
        tuple(firsts),
        rule,
        "given" if given is not None else found,
        tuple(mean.tolist()),
        deviation or 1.0,
        low,
        high,
        clip,
        tuple(dict.fromkeys(doubts)),
    )


def restored_together(prior: str, boundary: str, channels: int, kernels: int) -> list[tuple[int, int]]:
    """Return (first channel, how many) of the channels that are restored together, as :func:`convpinv.deblur` does."""
    width = together("deblur", prior, None, boundary, channels, kernels)
    return [(channel, width) for channel in range(0, channels, width)]


def _kernels(call: str, psf: Any, pictures: arguments.Pictures) -> tuple[Tensor, tuple[str, ...]]:
    """Return the PSFs (1 or C, h, w) as a restoration of the picture would use them, and what is to be said."""
    kernels, findings = psf_examine.for_call(call, psf, pictures, True)
    return of_one_size(kernels).to("cpu", torch.float64), findings


def task_of(job: Job, material: Material, unit: Unit | None = None, gap: tuple[int, int] | None = None) -> Task:
    """Return all that a restoration depends on; with a ``unit`` that of a larger picture, else of these pictures.

    ``gap`` is by how much the larger picture's grid exceeds it.
    """
    pictures = material.pictures
    size = (pictures.shape[-2], pictures.shape[-1])
    models = [BlurModel.build(kernel, size, job.boundary, gap) for kernel in material.kernels]
    gain = largest_power(material.kernels)
    if unit is None:
        unit = Unit.of(pictures, job.boundary != Boundary.ZEROS, job.rounding)
    return Task(job, models, material, unit, unit.noise(material.sigma, job.prior), gain)


def largest_power(kernels: Tensor) -> float:
    """Return the largest |K|² of PSFs (1 or C, h, w), the same for parts of all sizes."""
    exact = kernels.to("cpu", torch.float64)
    size = tuple(max(GAIN_GRID, fast_size(taps)) for taps in exact.shape[-2:])
    return float(torch.fft.rfft2(exact, size).abs().square().max())


def _flat(finite: Tensor | None) -> Tensor | None:
    return None if finite is None else finite.reshape(-1, finite.shape[-1])


def _mean(values: Tensor, say: Tensor) -> float:
    return float(((values.log() * say).sum() / say.sum()).exp())


def _joined(
    clip: tuple[float | None, float | None], signs: Tensor, hidden: Tensor | None, ends: tuple[float, float]
) -> tuple[float | None, float | None]:
    """Return the levels, with those at which the plateaus of these channels hide light."""
    if hidden is None:
        return clip
    result = list(clip)
    for place, sign in ((0, -1), (1, 1)):
        count = int((signs == sign).sum())
        if count and int((hidden == sign).sum()) >= HIDING_SHARE * count:
            result[place] = ends[place]
    return result[0], result[1]
