"""What is said of a strength: the rule that chose it, what was tried, and what other rules would have chosen."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from convpinv.imaging.regularization.spectrum import FittedSpectrum

# Rules that lie further apart than this speak against each other.
DISAGREEMENT = 10.0


@dataclass(frozen=True)
class StrengthSelection:
    """How the strength of one plane was chosen: its receipt.

    Attributes
    ----------
    rule
        ``"likelihood"``, ``"discrepancy"``, ``"gcv"``, ``"sure"``; or ``"given"``.
    strength
        The strength that was used, in the units of :func:`convpinv.deblur`'s ``strength``.
    candidates, criterion
        The strengths that were tried, rising, and the rule's criterion there: the smallest is the best, but for
        "discrepancy", which looks for the value 1. Empty for ``"given"``.
    alternatives
        What each rule would have chosen, by its name, where that costs no more than a pass over the spectrum.
    psf_error
        The root mean square error of the transfer function that the picture's spectrum gives away; 0 for none.
    effective_noise
        The white noise that the strength reckons with, in the picture's units: the noise, and what an error of the
        PSF adds to it.
    """

    rule: str
    strength: float
    candidates: tuple[float, ...] = ()
    criterion: tuple[float, ...] = ()
    alternatives: dict[str, float] = dataclasses.field(default_factory=dict)
    psf_error: float = 0.0
    effective_noise: float = 0.0

    @property
    def search_range(self) -> tuple[float, float] | None:
        """The smallest and the largest strength that was tried."""
        return (self.candidates[0], self.candidates[-1]) if self.candidates else None

    @property
    def at_edge(self) -> bool:
        """Whether the best value of the criterion lies at an end of the range: the best strength may lie outside."""
        if len(self.candidates) < 2:
            return False
        if self.rule == "discrepancy":
            return not min(self.criterion) <= 1 <= max(self.criterion)
        best = min(range(len(self.criterion)), key=self.criterion.__getitem__)
        return best in (0, len(self.criterion) - 1)

    @property
    def disagreement(self) -> float:
        """The largest ratio between the strength used and that of another rule, either way; 1 without others."""
        ratios = [value / self.strength for value in self.alternatives.values() if value > 0 and self.strength > 0]
        return max([1.0, *(max(ratio, 1 / ratio) for ratio in ratios)])

    def in_units(self, strength: float, noise: float) -> StrengthSelection:
        """Return the selection with its strengths and its noise multiplied."""
        return dataclasses.replace(
            self,
            strength=self.strength * strength,
            candidates=tuple(value * strength for value in self.candidates),
            alternatives={rule: value * strength for rule, value in self.alternatives.items()},
            effective_noise=self.effective_noise * noise,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return lists, numbers and texts, ready for JSON; values that are not finite become None."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        return {
            "rule": self.rule,
            "strength": self.strength,
            "candidates": list(self.candidates),
            "criterion": [plain(value) for value in self.criterion],
            "search_range": list(self.search_range) if self.search_range else None,
            "at_edge": self.at_edge,
            "alternatives": dict(self.alternatives),
            "disagreement": plain(self.disagreement),
            "psf_error": self.psf_error,
            "effective_noise": self.effective_noise,
        }


@dataclass(frozen=True)
class StrengthChoice:
    """The strength of a prior for each plane (N,), the rule in words, the receipts, and what speaks against it.

    ``spectrum`` is what it stands on.
    """

    strength: Tensor
    rule: str
    selections: tuple[StrengthSelection, ...]
    warnings: tuple[str, ...]
    spectrum: FittedSpectrum
