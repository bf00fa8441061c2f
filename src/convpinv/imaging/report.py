"""What is said of a restoration: how it was done, and what speaks against it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv.arguments import Pictures
from convpinv.imaging import priors
from convpinv.imaging.no_harm import Verdict
from convpinv.imaging.observing import Account
from convpinv.imaging.regularization import DISAGREEMENT, StrengthSelection

# A misfit above this many times the noise says that the blur is not the one assumed.
SUSPICIOUS_MISFIT = 1.5
# Noise below this share of the picture's deviation is no measure of a misfit.
LEAST_NOISE = 2e-3
# Above this share of clipped pixels the report says what that means.
CLIPPED_SHARE = 0.005


@dataclass(frozen=True)
class DeblurReport:
    """How a picture was restored, and what speaks against the result.

    ``strength``, ``noise`` and ``residual`` are floats for one plane, tuples with one entry a plane for more (channels
    within pictures). ``noise`` and ``residual`` (the root mean square of ``A x − y``) are in the picture's units.
    ``selection`` is the receipt of the strength, a tuple of them for more planes, None where nothing was chosen;
    ``predicted_gain`` what the picture's spectrum lets expect, in dB; ``trial_gain`` the mean gain of two trials whose
    scene is known, the picture and the result blurred once more (None where none were made: only small changes ask for
    them); ``restored_share`` how much of the restoration is in the result, the rest being the picture that was given.
    ``masked`` counts the values that were not seen, ``saturated`` those that were clipped, hide light and
    count as bounds.
    """

    prior: str
    boundary: str
    strength: float | tuple[float, ...] | None
    strength_rule: str
    noise: float | tuple[float, ...]
    noise_rule: str
    solver: str
    iterations: int
    residual: float | tuple[float, ...]
    status: str
    warnings: tuple[str, ...]
    selection: StrengthSelection | tuple[StrengthSelection, ...] | None = None
    predicted_gain: float | tuple[float, ...] | None = None
    restored_share: float | tuple[float, ...] = 1.0
    trial_gain: float | tuple[float | None, ...] | None = None
    masked: int = 0
    saturated: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report in lists, numbers and texts, ready for JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, StrengthSelection):
                return value.to_dict()
            return [plain(entry) for entry in value] if isinstance(value, tuple) else value

        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True)
class DeblurResult:
    """A restored picture, of the kind that was given, and the report on it."""

    image: Any
    report: DeblurReport


@dataclass(frozen=True)
class Job:
    """What was asked for; ``rounding`` is the relative rounding of the picture's values."""

    prior: str
    boundary: str
    strength: float | None
    estimated: bool
    rounding: float
    progress: priors.Progress | None
    rule: str | None
    finds_clipping: bool = True
    exponent: float = 2 / 3
    bounds: tuple[float | None, float | None] = (None, None)
    denoiser: Callable[[Tensor, float], Tensor] | None = None

    @property
    def automatic(self) -> bool:
        """Whether neither the noise nor the strength was given."""
        return self.estimated and self.strength is None


@dataclass(frozen=True)
class Piece:
    """What the report says of planes that were restored together, float64."""

    scale: Tensor
    noise: Tensor
    noise_share: float
    strength: Tensor
    rule: str
    residual: Tensor
    solver: str
    iterations: int
    status: str
    warnings: tuple[str, ...]
    selections: tuple[StrengthSelection, ...] = ()
    verdict: Verdict | None = None
    saturated: int = 0

    @property
    def predicted_gain(self) -> Tensor:
        """What is expected of each plane, in dB; 0 where nothing was judged."""
        return torch.zeros_like(self.scale) if self.verdict is None else self.verdict.gain

    @property
    def trial_gain(self) -> Tensor:
        """What the trials of each plane gained, in dB; NaN where there were none."""
        none = torch.full_like(self.scale, torch.nan)
        return none if self.verdict is None or self.verdict.trials is None else self.verdict.trials

    @property
    def restored_share(self) -> Tensor:
        """How much of each plane is the restoration, 0 to 1; the rest is the picture that was given."""
        return torch.ones_like(self.scale) if self.verdict is None else self.verdict.weight


def report(
    job: Job,
    pictures: Pictures,
    psf_findings: tuple[str, ...],
    pieces: list[tuple[list[int], Piece]],
    account: Account,
) -> DeblurReport:
    """Put together what was found on the PSF and what the pieces say, each with its planes."""

    def gathered(name: str) -> Tensor:
        values = torch.zeros(len(pictures.stack), dtype=torch.float64)
        for planes, piece in pieces:
            values[planes] = getattr(piece, name).to(values)
        return values

    strength, residual, noise, scale = (gathered(name) for name in ("strength", "residual", "noise", "scale"))
    last = pieces[-1][1]
    doubts = [*psf_findings, *(warning for _, piece in pieces for warning in piece.warnings)]
    statuses = [piece.status for _, piece in pieces]
    stopped = [status for status in statuses if status.startswith("stopped")]
    if stopped:
        doubts.append(f"the iteration {stopped[0]}, before its tolerance; a larger strength converges faster")
    noise_rule = "estimated from the smoothest patches of the picture" if job.estimated else "given"
    share = min(piece.noise_share for _, piece in pieces)
    if share < 1:
        noise_rule += f", and {share:.2g} of it taken, for the rest may be texture"
    chosen = _in_order(pieces)
    doubts += _wrong_psf(chosen)
    doubts += _disagreeing(chosen)
    trials = tuple(None if math.isnan(gain) else gain for gain in gathered("trial_gain").tolist())
    doubts += _little_help(gathered("restored_share"), trials)
    saturated = sum(piece.saturated for _, piece in pieces)
    doubts += [*_doubts(job, scale, noise, residual, gathered("restored_share")), *account.remarks]
    if saturated > CLIPPED_SHARE * pictures.stack.numel():
        doubts.append(
            f"{saturated} values ({100 * saturated / pictures.stack.numel():.2g} %) are clipped at an end of the "
            "picture's range and hide light: each counts as a bound of what was there, not as its measure"
        )
    return DeblurReport(
        prior=job.prior,
        boundary=job.boundary,
        strength=None if job.prior == "none" else _one_or_many(strength),
        strength_rule=last.rule,
        noise=_one_or_many(noise),
        noise_rule=noise_rule,
        solver=last.solver,
        iterations=max(piece.iterations for _, piece in pieces),
        residual=_one_or_many(residual),
        status=stopped[0] if stopped else statuses[0],
        warnings=tuple(dict.fromkeys(doubts)),
        predicted_gain=_one_or_many(gathered("predicted_gain")) if chosen else None,
        restored_share=_one_or_many(gathered("restored_share")),
        trial_gain=None if all(gain is None for gain in trials) else trials[0] if len(trials) == 1 else trials,
        selection=(chosen[0] if len(chosen) == 1 else chosen) if chosen else None,
        masked=account.masked,
        saturated=saturated,
    )


def _in_order(pieces: list[tuple[list[int], Piece]]) -> tuple[StrengthSelection, ...]:
    """Return the receipts in the order of the planes; none where a plane has none."""
    found = {plane: chosen for planes, piece in pieces for plane, chosen in zip(planes, piece.selections, strict=False)}
    complete = len(found) == sum(len(planes) for planes, _ in pieces)
    return tuple(found[plane] for plane in sorted(found)) if complete else ()


def _wrong_psf(chosen: tuple[StrengthSelection, ...]) -> list[str]:
    worst = max(chosen, key=lambda one: one.psf_error, default=None)
    if worst is None or not worst.psf_error:
        return []
    return [
        f"the picture's spectrum gives away an error of the PSF, about {100 * worst.psf_error:.2g} % of its light at "
        f"each frequency: the strength allows for it as for {worst.effective_noise:.2g} of noise"
    ]


def _disagreeing(chosen: tuple[StrengthSelection, ...]) -> list[str]:
    worst = max(chosen, key=lambda one: one.disagreement, default=None)
    if worst is None or worst.disagreement <= DISAGREEMENT:
        return []
    others = ", ".join(f"{rule} {value:.2g}" for rule, value in worst.alternatives.items())
    return [
        f"the rules for the strength disagree by a factor of {worst.disagreement:.2g} ({others}): the picture may "
        "not be like a photograph, or its noise not be white"
    ]


def _little_help(share: Tensor, trials: tuple[float | None, ...]) -> list[str]:
    least = float(share.min())
    if least == 1:
        return []
    given = "the picture is given back" if least == 0 else f"only {100 * least:.0f} % of the change is applied"
    lost = trials[int(share.argmin())]
    by_trials = "" if lost is None or lost > 0 else f" and by trials on it ({lost:+.2g} dB)"
    source = "by the picture's spectrum" + by_trials
    return [f"deblurring would not help here, going {source}: {given}; give a strength to have all of it"]


def _doubts(job: Job, scale: Tensor, noise: Tensor, residual: Tensor, share: Tensor) -> list[str]:
    """Return what the picture itself says against the model, of planes that were not given back."""
    doubts = []
    noise = noise.clamp(min=torch.finfo(noise.dtype).tiny).maximum(LEAST_NOISE * scale)
    excess = (residual > SUSPICIOUS_MISFIT * noise) & (share > 0)
    if job.strength is None and bool(excess.any()):
        worst = float((residual / noise)[excess].max())
        doubts.append(
            f"the result, blurred again, misses the picture by {worst:.1f} times the noise: the PSF, the boundary or "
            "the noise may not be right"
        )
    return doubts


def _one_or_many(values: Tensor) -> float | tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    return numbers[0] if len(numbers) == 1 else numbers
