"""``convpinv deblur``: a blurred picture file in, a restored one out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv import __version__
from convpinv.app import axes, images, masks, outputs, psf_source, stacks
from convpinv.app.console import Working, row
from convpinv.app.files import TargetError, UnreadableFileError
from convpinv.app.light import Light, choose
from convpinv.app.raster import Image
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

# Of more numbers, one a plane, the summary shows the range.
_LISTED = 6


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of ``convpinv deblur``; None is automatic."""

    source: Path
    target: Path
    psf: str | None = None
    prior: str = "tv"
    strength: float | str | None = None
    noise: float | None = None
    boundary: str = "unknown"
    device: str = "cpu"
    report: Path | None = None
    overwrite: bool = False
    mask: Path | None = None
    linear: str = "auto"
    axes: str | None = None
    check_io: bool = False
    memory: str | None = None
    dry_run: bool = False
    workers: int | None = None
    scheduler: str | None = None
    resume: bool = False

    @property
    def psf_text(self) -> str:
        """The PSF, without which there is nothing to undo."""
        if self.psf is None:
            raise ArgumentError("--psf is missing; give a file or a text like gaussian:sigma=1.6")
        return self.psf


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
    psf = request.psf_text
    from convpinv.app.tiles import run

    if run.wanted(request):
        return Outcome(*run.deblur_large(request))
    # What can be refused without work is refused first, and the names before the contents.
    outputs.check_targets(
        {"OUT": request.target, "--report": request.report},
        {"IN": request.source, "--psf": psf_source.file_of(psf), "--mask": request.mask},
        overwrite=request.overwrite,
        replaceable={("OUT", "IN")},
    )
    _check_report(request.report)
    images.format_of(request.target)
    image = images.read(request.source, gaps=True, stacks=True, axes=axes.parse(request.axes))
    images.check_format(image, request.target)
    _check_any(image, request.source)
    light = choose(image, request.linear)
    source = psf_source.load(psf)
    seen = None if request.mask is None else masks.read(request.mask, image)

    with Working(str(request.source)) as working:
        pixels, said, left = _restored(image, request, source.psf, seen, light, working)
        seconds = working.seconds
    data, clipped = images.encode(image.with_pixels(pixels), request.target, gaps=bool(left))
    facts = {
        "version": __version__,
        "input": str(request.source),
        "output": str(request.target),
        "psf": source.text,
        "mask": None if request.mask is None else str(request.mask),
        "light": light.text,
        "axes": image.names,
        "device": _device_name(request.device),
        "seconds": round(seconds, 3),
        "clipped_pixels": clipped,
        "notes": [*image.remarks, *source.notes, *left, *images.losses(image, request.target)],
        **said,
    }
    report = _plain(facts)
    outputs.write_all({request.target: data, **_report_file(request.report, report)})
    return Outcome(report, tuple(_summary(image, report)))


def _checked(request: Request) -> Outcome:
    """Copy the file through reading and writing, and say what that kept."""
    from convpinv.app import checking

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


def _restored(
    image: Image, request: Request, psf: Tensor, seen: Any, light: Light, working: Working
) -> tuple[Any, dict[str, Any], list[str]]:
    """Restore each plane of a picture; return the pixels, the report, and notes on planes that were left alone."""
    import numpy as np

    from convpinv.imaging import deblur, estimate_noise

    _check_device(request.device)
    psf = psf.to(request.device)
    planes = list(axes.planes(image))
    pixels = image.pixels if len(planes) == 1 and not image.axes else image.pixels.copy()
    reports, empty = [], []
    for count, (name, index) in enumerate(planes):
        plane = image.pixels[index]
        if not np.isfinite(plane).any():
            empty.append(name)
            continue
        working.name = f"{request.source}, {name}" if name else str(request.source)
        noise, estimated = request.noise, False
        if light.curve is not None:
            # The noise of a picture for the screen is nearer to white in its own values; in light it grows with the
            # brightness, and the estimate, which looks at the calmest patches, would be that of the shadows.
            if noise is None and seen is None and np.isfinite(plane).all():
                noise, estimated = estimate_noise(plane), True
            noise = None if noise is None else light.curve.noise(noise, plane)
            plane = light.curve.decode(plane)
        result = deblur(
            plane_tensor(plane, request.device),
            stacks.psf_of_plane(psf, image, index),
            noise=noise,
            prior=request.prior,
            boundary=request.boundary,
            strength=request.strength,
            mask=None if seen is None else seen[index] if seen.ndim > 2 else seen,
            full_output=True,
            noise_is_estimate=estimated,
            progress=working if len(planes) == 1 else None,
        )
        working(count + 1, len(planes))
        found = to_pixels(result.image)
        found = found if light.curve is None else light.curve.encode(found)
        if pixels is image.pixels:
            pixels = found
        else:
            pixels[index] = found
        report = result.report.to_dict()
        if light.curve is not None and noise is not None:
            report["noise_rule"] += ", in the values of the file; here as its root mean square in light"
        reports.append((name, report))
    left = []
    if empty:
        others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        left = [f"plane {empty[0]}{others} holds no number at all and was left as it is"]
    return pixels, stacks.merge(reports), left


def _check_any(image: Image, path: Path) -> None:
    import numpy as np

    if not np.isfinite(image.pixels).any():
        count = image.pixels.size
        raise UnreadableFileError(path, f"holds {count} values that are NaN or infinite; fill them in first")


def _check_report(path: Path | None) -> None:
    if path is not None and path.suffix.lower() != ".json":
        raise TargetError(path, "reports are written as JSON; name it .json")


def _report_file(path: Path | None, report: Mapping[str, Any]) -> dict[Path, bytes]:
    return {} if path is None else {path: (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()}


def to_tensor(image: Image, device: str = "cpu") -> Tensor:
    """Return the pixels as torch holds pictures: (C, H, W), on the device that the user named."""
    return plane_tensor(image.pixels, device)


def _check_device(device: str) -> None:
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise ArgumentError(f"--device {device}: torch sees no such device here; use --device cpu")


def plane_tensor(pixels: Any, device: str = "cpu") -> Tensor:
    """Return one plane, (H, W) or (H, W, C), as torch holds pictures."""
    import numpy as np
    import torch

    _check_device(device)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes)).to(device)


def to_pixels(tensor: Tensor) -> Any:
    """Return (C, H, W) as the pixels of a picture: (H, W) or (H, W, C)."""
    array = tensor.detach().cpu().numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)


def number(text: str, option: str, *, zero: bool) -> float | None:
    """Read ``auto`` (None) or a number above 0; ``zero`` says whether 0 will do."""
    if text.strip().lower() == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf or (value == 0.0 and not zero):
        raise ArgumentError(f"{option} is {text!r}; it may be auto or a number {'of at least' if zero else 'above'} 0")
    return value


def strength(text: str) -> float | str | None:
    """Read ``auto`` (None), the name of a rule, or a number above 0."""
    from convpinv.imaging import RULES

    name = text.strip().lower()
    if name in RULES:
        return name
    try:
        return number(text, "--strength", zero=False)
    except ArgumentError:
        raise ArgumentError(
            f"--strength is {text!r}; it may be auto, a number above 0, or a rule: {', '.join(RULES)}"
        ) from None


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
