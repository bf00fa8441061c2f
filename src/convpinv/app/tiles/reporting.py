"""What is said of a restoration in tiles: the report, of the form that one in memory has, and the lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convpinv.app.console import row
from convpinv.app.request import Request
from convpinv.app.tiles import memory
from convpinv.app.tiles.planning import Plan


@dataclass(frozen=True)
class Done:
    """The work: its seconds, how many tiles an earlier run had finished, and what was recorded of each tile."""

    seconds: float
    tiles_before: int
    facts: Sequence[Mapping[str, Any]]

    def total(self, name: str) -> int:
        """Return a count over all tiles."""
        return sum(facts[name] for facts in self.facts)


def report(plan: Plan, request: Request, done: Done | None = None) -> dict[str, Any]:
    """Return the report, JSON-ready: the plan, and what every report holds; null where ``done`` alone could say it."""
    agreement = plan.agreement
    planned = plan.to_dict()
    estimated = planned.pop("seconds")
    known = {
        "version": plan.version,
        "input": str(request.source),
        "output": str(request.target),
        "psf": plan.psf,
        "mask": None,
        "light": "the values of the file are taken as light",
        "axes": plan.form.names,
        "device": plan.device,
        "seconds": None if done is None else round(done.seconds, 3),
        "clipped_pixels": None if done is None else done.total("clipped"),
        "masked": None if done is None else done.total("masked"),
        "saturated": None if done is None else done.total("saturated"),
        "notes": plan.notes,
        "prior": agreement["prior"],
        "boundary": agreement["boundary"],
        "strength": _one_or_all(agreement["strength"]),
        "strength_rule": agreement["strength_rule"],
        "noise": _one_or_all(agreement["noise"]),
        "noise_rule": agreement["noise_rule"],
        "solver": f"{plan.layout.count} tiles of at most {plan.layout.core}x{plan.layout.core} px; {plan.halo}",
        # Each tile has its own, and what they come to is in the seam that the halo leaves.
        "iterations": None,
        "residual": None,
        "status": "planned" if done is None else "done",
        "warnings": [*agreement["warnings"], *([] if done is None else _gaps(plan, done))],
        "tiles": plan.layout.count,
        "estimated_seconds": estimated,
    }
    if done is not None:
        known |= {"tiles_done_before": done.tiles_before, "peak_memory": memory.peak()}
    return {**planned, **known}


def _one_or_all(values: Sequence[float]) -> float | list[float]:
    """Return the numbers of all channels, or that of the only one."""
    return values[0] if len(values) == 1 else list(values)


def _gaps(plan: Plan, done: Done) -> list[str]:
    masked = done.total("masked")
    if not masked:
        return []
    share = 100 * masked / (plan.layout.planes * math.prod(plan.layout.size) * plan.channels)
    found = f"{masked} values ({share:.2g} %) are NaN, infinite or nodata"
    return [f"{found}: they count as not seen, and what stands there now was made up from their surroundings"]


def plan_lines(plan: Plan) -> list[str]:
    """Return the lines that say what is going to be done."""
    layout, agreement = plan.layout, plan.agreement
    sizes = sorted({f"{columns}x{rows}" for rows, columns, _, _ in layout.windows()})
    base, largest = memory.text(plan.base), memory.text(plan.largest)
    rows = [
        ("picture", f"{plan.source}: {plan.describe()}"),
        ("psf", plan.psf),
        ("prior", plan.agreement["prior"]),
        ("strength", f"{_numbers(agreement['strength'])} ({agreement['strength_rule']})"),
        ("noise", f"{_numbers(agreement['noise'])} ({agreement['noise_rule']})"),
        ("tiles", f"{layout.count} of at most {layout.core}x{layout.core} px; {plan.halo}"),
        ("windows", f"{', '.join(sizes[:6])}{' …' if len(sizes) > 6 else ''}"),
        ("memory", f"{base} before the work, and up to {largest} a tile; limit {memory.text(plan.limit)}"),
        ("time", f"about {_duration(plan.seconds)}, estimated on a block of the picture"),
        *(("note", note) for note in plan.notes),
        *(("warning", warning) for warning in agreement["warnings"]),
    ]
    return [line for name, text in rows for line in row(name, text)]


def done_lines(plan: Plan, said: Mapping[str, Any]) -> list[str]:
    """Return the lines that say what was done."""
    before = said["tiles_done_before"]
    share = 100 * said["clipped_pixels"] / (plan.layout.planes * math.prod(plan.layout.size))
    integer, peak = plan.dtype.startswith("uint"), memory.text(said["peak_memory"])
    clipped = f"{said['clipped_pixels']} pixels ({share:.2g} %) to the range of {plan.dtype}" if integer else "none"
    rows = [
        ("wrote", f"{said['output']}: {plan.describe()}"),
        ("result", f"{said['tiles']} tiles, {before} of them done before" if before else f"{said['tiles']} tiles"),
        ("took", f"{said['seconds']:.2f} s on {plan.device}; at most {peak} in this process"),
        ("clipped", clipped),
        # Those of the sample stand with the plan.
        *(("warning", warning) for warning in said["warnings"][len(plan.agreement["warnings"]) :]),
    ]
    return [*plan_lines(plan), *(line for name, text in rows for line in row(name, text))]


def _numbers(values: Any) -> str:
    shown = list(dict.fromkeys(f"{value:.3g}" for value in values))
    return ", ".join(shown)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 7200 else f"{seconds / 3600:.2g} h"
