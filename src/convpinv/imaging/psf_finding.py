"""What is found on a PSF, as data that prints."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

AS_IT_IS = "if it is meant so, give correct_psf=False"


@dataclass(frozen=True)
class Finding:
    """One thing that was found on a PSF.

    ``name`` is one word for programs: "sum", "background", "inverted", "negative", "off-centre", "wrapped", "even",
    "empty-frame" or "orientation". ``seen``, ``done`` and ``remedy`` are for people; ``corrected`` says whether the
    PSF was changed, and ``matters`` whether a result may depend on it.
    """

    name: str
    seen: str
    done: str
    remedy: str = ""
    corrected: bool = False
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.seen}: {self.done}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Examination:
    """A PSF, put right where that is certain, sum 1 a channel, float64 on the CPU; and what was found on it."""

    psf: Tensor
    findings: tuple[Finding, ...]
