"""``convpinv deblur``: a blurred picture file in, a restored one out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv import __version__
from convpinv.app import axes, deblur_plot, images, masks, outputs, planes, plots, psf_source, raster, stacks
from convpinv.app.console import Working, row
from convpinv.app.files import PIPE, TargetError, UnreadableFileError
from convpinv.app.light import choose, for_screen
from convpinv.app.psf_source import PsfSource
from convpinv.app.raster import Image
from convpinv.app.request import Loaded, Request
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from convpinv.imaging import DeblurReport

# Of more numbers, one a plane, the summary shows the range.
_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Restored:
    """The restored pixels, what is said of them, and the seconds that they took.

    ``report`` is that of all planes, ``first`` that of the first; ``left`` says which planes were left alone.
    """

    pixels: Any
    report: Mapping[str, Any]
    first: DeblurReport | None
    left: tuple[str, ...]
    psf: PsfSource
    seconds: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was done, JSON-ready, and the lines that say so."""

    report: Mapping[str, Any]
    lines: tuple[str, ...]


def deblur_file(request: Request) -> Outcome:
    """Restore one file.

    Parameters
    ----------
    request
        The files and the options.

    Returns
    -------
    Outcome
        The report and its text; the files are written by then.

    Raises
    ------
    ConvpinvError
        Of the class that says whether the input or the work was at fault. No file is left behind then.
    """
    if request.check_io:
        return _checked(request)
    from convpinv.app.tiles import run

    if run.wanted(request):
        return Outcome(*run.deblur_large(request))
    check(request)
    loaded = load(request)
    restored = restore(request, loaded, psf_source.load(request.psf_text))
    files, outcome = encode(request, loaded, restored)
    outputs.write_all(files)
    return outcome


def check(request: Request) -> None:
    """Refuse what can be refused without work, and the names before the contents."""
    plots.check(request.plot)
    outputs.check_targets(
        {"OUT": None if _is_pipe(request) else request.target, "--report": request.report, "--plot": request.plot},
        {"IN": request.source, "--psf": psf_source.file_of(request.psf_text), "--mask": request.mask},
        overwrite=request.overwrite,
        replaceable={("OUT", "IN")},
    )
    _check_report(request.report)
    if not _is_pipe(request):
        images.format_of(request.target)


def load(request: Request) -> Loaded:
    """Read the picture and its mask, and refuse an output that cannot hold it."""
    image = images.read(request.source, gaps=True, stacks=True, axes=axes.parse(request.axes))
    if not _is_pipe(request):
        images.check_format(image, request.target)
    _check_any(image, request.source)
    if request.plot is not None and image.axes:
        raise ArgumentError("--plot draws one picture, and this is a stack; leave it out")
    seen = None if request.mask is None else masks.read(request.mask, image)
    return Loaded(image, choose(image, request.linear), seen)


def restore(request: Request, loaded: Loaded, psf: PsfSource, *, bar: bool = True) -> Restored:
    """Compute; ``bar`` says whether a long work may show its progress."""
    with Working(str(request.source)) as working:
        pixels, reports, left = planes.restored(request, loaded, psf.psf, working if bar else None)
        said = stacks.merge([(name, report.to_dict()) for name, report in reports])
        return Restored(pixels, said, reports[0][1] if reports else None, left, psf, working.seconds)


def encode(
    request: Request, loaded: Loaded, restored: Restored
) -> tuple[dict[Path, bytes | Mapping[str, bytes]], Outcome]:
    """Return the bytes of all files that were asked for, and what is said of them."""
    image = loaded.image
    after = image.with_pixels(restored.pixels)
    shown, curve_note = for_screen(after, images.format_of(request.target), request.linear)
    data, clipped = images.encode(shown, request.target, gaps=bool(restored.left))
    notes = [*image.remarks, *restored.psf.notes, *restored.left]
    facts = {
        "version": __version__,
        "input": str(request.source),
        "output": str(request.target),
        "psf": restored.psf.text,
        "mask": None if request.mask is None else str(request.mask),
        "light": loaded.light.text,
        "axes": image.names,
        "device": _device_name(request.device),
        "seconds": round(restored.seconds, 3),
        "clipped_pixels": clipped,
        "notes": [*notes, *images.losses(image, request.target), *curve_note],
        **restored.report,
    }
    report = _plain(facts)
    files = {request.target: data, **_report_file(request.report, report)}
    if request.plot is not None and restored.first is not None:
        files[request.plot] = deblur_plot.draw(image, after, restored.first, str(request.source))
    return files, Outcome(report, tuple(_summary(image, report)))


def _is_pipe(request: Request) -> bool:
    return str(request.target) == PIPE


def _checked(request: Request) -> Outcome:
    """Copy the file through reading and writing, and say what that kept."""
    from convpinv.app import checking

    checking.check_options(request)
    _check_report(request.report)
    facts, files = checking.check_file(
        request.source,
        request.target,
        request.report,
        axes=axes.parse(request.axes),
        overwrite=request.overwrite,
    )
    report = _plain({"version": __version__, **facts})
    outputs.write_all({**files, **_report_file(request.report, report)})
    rows = [
        ("wrote", f"{report['output']}: {report['picture']}"),
        ("pixels", report["pixels"]),
        ("kept", ", ".join(report["kept"]) or "nothing else was there"),
        *(("note", note) for note in report["notes"]),
    ]
    return Outcome(report, tuple(line for name, text in rows for line in row(name, str(text))))


def _check_any(image: Image, path: Path) -> None:
    import numpy as np

    if not np.isfinite(image.pixels).any():
        count = image.pixels.size
        gaps = raster.gaps_text(image.blank)
        raise UnreadableFileError(path, f"holds {count} values that are {gaps}; fill them in first")


def _check_report(path: Path | None) -> None:
    if path is not None and path.suffix.lower() != ".json":
        raise TargetError(path, "reports are written as JSON; name it .json")


def _report_file(path: Path | None, report: Mapping[str, Any]) -> dict[Path, bytes]:
    return {} if path is None else {path: (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()}


def show(value: Any) -> str:
    """Write a number, or one a channel, for people; one that holds for all channels stands there once."""
    if isinstance(value, list | tuple):
        entries = [show(entry) for entry in value]
        if len(set(entries)) > 1 and len(entries) > _LISTED:
            return f"{show(min(value))} to {show(max(value))}"
        return entries[0] if len(set(entries)) == 1 else ", ".join(entries)
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def clipped_line(image: Image, clipped: int) -> str:
    """Say how many pixels lay outside the range of the file."""
    if not image.is_integer:
        return "none (floating point holds every value)"
    share = 100 * clipped / math.prod((*image.stack_shape, *image.size))
    return f"{clipped} pixels ({share:.2g} %) to the range of {image.dtype}"


def _summary(image: Image, report: Mapping[str, Any]) -> list[str]:
    rows = [
        ("wrote", f"{report['output']}: {image.describe()}"),
        ("psf", report["psf"]),
        *((("mask", report["mask"]),) if report["mask"] else ()),
        ("prior", report["prior"]),
        ("strength", _with_rule(report, "strength")),
        ("light", report["light"]),
        ("noise", _with_rule(report, "noise")),
        ("boundary", report["boundary"]),
        ("solver", report["solver"].splitlines()[0].removeprefix("solver").strip()),
        ("result", f"{report['status']}; {report['iterations']} iterations, residual {show(report['residual'])}"),
        ("time", f"{report['seconds']:.2f} s on {report['device']}"),
        ("clipped", clipped_line(image, report["clipped_pixels"])),
        *(("note", note) for note in report["notes"]),
        *(("warning", warning) for warning in report["warnings"]),
    ]
    return [line for name, text in rows for line in row(name, str(text))]


def _with_rule(report: Mapping[str, Any], name: str) -> str:
    """Write a number of the report and the rule that chose it."""
    if report[name] is None:
        return "none"
    return f"{show(report[name])} ({report[name + '_rule']})"


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return f"{device} ({torch.cuda.get_device_name()})"


def _plain(value: Any) -> Any:
    """Return data that strict JSON can hold: NaN and infinity become null, NumPy's numbers Python's."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, str) or value is None:
        return str(value) if isinstance(value, str) else None
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) else str(value)
