"""What is said of a restoration by :func:`convpinv.richardson_lucy`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["RestoredPlane", "RichardsonLucyReport", "RichardsonLucyResult", "report"]


@dataclass(frozen=True)
class RichardsonLucyReport:
    """How a picture was restored by :func:`convpinv.richardson_lucy`.

    Numbers are floats for one plane, tuples with one entry a plane for more. ``gain`` is the value of one photon,
    ``deviance`` the Poisson deviance for each pixel that was seen (about 1 if the model is right and photons are many,
    less where they are few), ``flux`` the light of the result, blurred again, over that of the picture.
    """

    strength: float | tuple[float, ...]
    strength_rule: str
    gain: float | tuple[float, ...]
    gain_rule: str
    boundary: str
    iterations: int | tuple[int, ...]
    stopping_rule: str
    deviance: float | tuple[float, ...]
    flux: float | tuple[float, ...]
    status: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report in lists, numbers and texts, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }


@dataclass(frozen=True)
class RichardsonLucyResult:
    """A restored picture, of the kind that was given, and the report on it."""

    image: Any
    report: RichardsonLucyReport


@dataclass(frozen=True)
class RestoredPlane:
    """A restored plane in the picture's units, and what the report says of it."""

    plane: Tensor
    strength: float
    gain: float
    iterations: int
    deviance: float
    flux: float
    converged: bool
    warnings: tuple[str, ...]


def report(
    found: list[RestoredPlane], gain_rule: str, boundary: str, strength: float | None, steps: int | None
) -> RichardsonLucyReport:
    """Put together what the planes say; ``strength`` and ``steps`` are what the user gave, or None."""

    def gathered(name: str) -> Any:
        values = tuple(getattr(plane, name) for plane in found)
        return values[0] if len(values) == 1 else values

    rule = "given"
    if strength is None:
        rule = "deblur's rule for total variation, at white noise of the photons' mean variance"
    if strength == 0:
        stopping = "given" if steps else "best prediction of a fifth of the photons, held out"
    else:
        stopping = "a cycle lowers the cost by less than 1e-5 a pixel"
    stopped = [plane.iterations for plane in found if not plane.converged]
    return RichardsonLucyReport(
        strength=gathered("strength"),
        strength_rule=rule,
        gain=gathered("gain"),
        gain_rule=gain_rule,
        boundary=boundary,
        iterations=gathered("iterations"),
        stopping_rule=stopping,
        deviance=gathered("deviance"),
        flux=gathered("flux"),
        status=f"stopped after {max(stopped)} iterations" if stopped else "converged",
        warnings=tuple(dict.fromkeys(warning for plane in found for warning in plane.warnings)),
    )
