"""Many planes, one report: what is said of a stack whose planes were restored one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from convpinv.app.raster import Image

# Each of these holds a number, or one a channel; of a stack, the numbers of all planes in their order.
_GATHERED = ("strength", "noise", "residual", "predicted_gain", "restored_share", "trial_gain", "selection")
_SUMMED = ("masked", "saturated")
_SHOWN = 8


def psf_of_plane(psf: Tensor, image: Image, index: tuple[int, ...]) -> Tensor:
    """Return the PSF that serves a plane: its channel's own, where there is one for each entry of the axis C."""
    at = image.names.find("C")
    if psf.ndim == 3 and len(psf) > 1 and 0 <= at < len(index) and image.stack_shape[at] == len(psf):
        return psf[index[at]]
    return psf


def merge(reports: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Put the reports of planes, each with the plane's name, together to one of the same form."""
    if len(reports) == 1:
        return dict(reports[0][1])
    every = [report for _, report in reports]
    merged = dict(every[0])
    for name in _GATHERED:
        merged[name] = _flat([report[name] for report in every], [report["noise"] for report in every])
    for name in _SUMMED:
        merged[name] = sum(report[name] for report in every)
    merged["iterations"] = max(report["iterations"] for report in every)
    for name in ("strength_rule", "noise_rule", "solver"):
        merged[name] = "; or ".join(dict.fromkeys(report[name] for report in every))
    stopped = [report["status"] for report in every if report["status"].startswith("stopped")]
    merged["status"] = stopped[0] if stopped else every[0]["status"]
    merged["planes"] = len(reports)
    places: dict[str, list[str]] = {}
    for name, report in reports:
        for warning in report["warnings"]:
            places.setdefault(warning, []).append(name)
    warnings = [
        warning if len(names) == len(reports) else f"{names[0]}{' and others' * (len(names) > 1)}: {warning}"
        for warning, names in places.items()
    ]
    if len(warnings) > _SHOWN:
        warnings = [*warnings[:_SHOWN], f"and {len(warnings) - _SHOWN} more of this kind in other planes"]
    merged["warnings"] = warnings
    return merged


def _flat(values: Sequence[Any], beside: Sequence[Any]) -> list[Any] | None:
    """Join numbers and lists of them; a plane that has none has as many Nones as there are numbers ``beside``."""
    if all(value is None for value in values):
        return None
    flat: list[Any] = []
    for value, other in zip(values, beside, strict=True):
        if value is None and isinstance(other, list):
            flat += [None] * len(other)
        else:
            flat += value if isinstance(value, list) else [value]
    return flat
