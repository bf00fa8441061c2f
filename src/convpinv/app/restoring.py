"""``convpinv deblur``: a blurred picture file in, a restored one out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from convpinv import __version__
from convpinv.app import deblur_plot, images, outputs, plots, psf_source
from convpinv.app.console import Working, row
from convpinv.app.files import PIPE, TargetError, UnreadableFileError
from convpinv.app.psf_source import PsfSource
from convpinv.app.raster import Image, size_text
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from convpinv.imaging import DeblurReport


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of ``convpinv deblur``; None is automatic."""

    source: Path
    target: Path
    psf: str
    prior: str = "tv"
    strength: float | str | None = None
    noise: float | None = None
    boundary: str = "unknown"
    device: str = "cpu"
    report: Path | None = None
    overwrite: bool = False
    mask: Path | None = None
    clip: tuple[float | None, float | None] | Literal[False] | None = None
    bounds: tuple[float | None, float | None] | None = None
    exponent: float = 2 / 3
    plot: Path | None = None


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What was read of a request's files: the picture, and which pixels were seen."""

    image: Image
    seen: Any = None


@dataclasses.dataclass(frozen=True)
class Restored:
    """The restored pixels (H, W) or (H, W, C), what is said of them, and the seconds that they took."""

    pixels: Any
    report: DeblurReport
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
    check(request)
    loaded = load(request)
    restored = restore(request, loaded, psf_source.load(request.psf))
    files, outcome = encode(request, loaded, restored)
    outputs.write_all(files)
    return outcome


def check(request: Request) -> None:
    """Refuse what can be refused without work, and the names before the contents."""
    plots.check(request.plot)
    outputs.check_targets(
        {"OUT": None if _is_pipe(request) else request.target, "--report": request.report, "--plot": request.plot},
        {"IN": request.source, "--psf": psf_source.file_of(request.psf), "--mask": request.mask},
        overwrite=request.overwrite,
        replaceable={("OUT", "IN")},
    )
    if request.report is not None and request.report.suffix.lower() != ".json":
        raise TargetError(request.report, "reports are written as JSON; name it .json")
    if not _is_pipe(request):
        images.format_of(request.target)


def load(request: Request) -> Loaded:
    """Read the picture and its mask, and refuse an output that cannot hold it."""
    image = images.read(request.source, gaps=True)
    if not _is_pipe(request):
        images.check_format(image, request.target)
    return Loaded(image, None if request.mask is None else _mask(request.mask, image))


def restore(request: Request, loaded: Loaded, psf: PsfSource, *, bar: bool = True) -> Restored:
    """Compute; ``bar`` says whether a long work may show its progress."""
    from convpinv.imaging import deblur

    with Working(str(request.source)) as working:
        result = deblur(
            to_tensor(loaded.image, request.device),
            psf.psf.to(request.device),
            noise=request.noise,
            prior=request.prior,
            boundary=request.boundary,
            strength=request.strength,
            mask=loaded.seen,
            clip=request.clip,
            bounds=request.bounds,
            exponent=request.exponent,
            full_output=True,
            progress=working if bar else None,
        )
        return Restored(to_pixels(result.image), result.report, psf, working.seconds)


def encode(request: Request, loaded: Loaded, restored: Restored) -> tuple[dict[Path, bytes], Outcome]:
    """Return the bytes of all files that were asked for, and what is said of them."""
    image = loaded.image
    after = image.with_pixels(restored.pixels)
    data, clipped = images.encode(after, request.target)
    facts = {
        "version": __version__,
        "input": str(request.source),
        "output": str(request.target),
        "psf": restored.psf.text,
        "mask": None if request.mask is None else str(request.mask),
        "device": _device_name(request.device),
        "seconds": round(restored.seconds, 3),
        "clipped_pixels": clipped,
        "notes": [*image.remarks, *restored.psf.notes],
        **restored.report.to_dict(),
    }
    report = _plain(facts)
    files = {request.target: data}
    if request.report is not None:
        files[request.report] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    if request.plot is not None:
        files[request.plot] = deblur_plot.draw(image, after, restored.report, str(request.source))
    return files, Outcome(report, tuple(_summary(image, report)))


def _is_pipe(request: Request) -> bool:
    return str(request.target) == PIPE


def _mask(path: Path, image: Image) -> Any:
    """Read which pixels were seen, (H, W): those that are not 0 in any channel."""
    pixels = images.read(path).pixels
    if pixels.shape[:2] != image.pixels.shape[:2]:
        sizes = f"is {size_text(pixels.shape)} pixels, and the picture {size_text(image.pixels.shape)}"
        raise UnreadableFileError(path, f"{sizes}; a mask must be of the picture's size")
    seen = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(-1)
    if not seen.any():
        raise UnreadableFileError(path, "is 0 everywhere; in a mask, what is not 0 was seen")
    return seen


def to_tensor(image: Image, device: str = "cpu") -> Tensor:
    """Return the pixels as torch holds pictures: (C, H, W), on the device that the user named."""
    import numpy as np
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise ArgumentError(f"--device {device}: torch sees no such device here; use --device cpu")
    planes = image.pixels[None] if image.pixels.ndim == 2 else image.pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes)).to(device)


def to_pixels(tensor: Tensor) -> Any:
    """Return (C, H, W) as the pixels of a picture: (H, W) or (H, W, C)."""
    array = tensor.detach().cpu().numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)


def show(value: Any) -> str:
    """Write a number, or one a channel, for people; one that holds for all channels stands there once."""
    if isinstance(value, list | tuple):
        entries = [show(entry) for entry in value]
        return entries[0] if len(set(entries)) == 1 else ", ".join(entries)
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def clipped_line(image: Image, clipped: int) -> str:
    """Say how many pixels lay outside the range of the file."""
    if not image.is_integer:
        return "none (floating point holds every value)"
    share = 100 * clipped / math.prod(image.pixels.shape[:2])
    return f"{clipped} pixels ({share:.2g} %) to the range of {image.dtype}"


def _summary(image: Image, report: Mapping[str, Any]) -> list[str]:
    rows = [
        ("wrote", f"{report['output']}: {image.describe()}"),
        ("psf", report["psf"]),
        *((("mask", report["mask"]),) if report["mask"] else ()),
        ("prior", report["prior"]),
        ("strength", _with_rule(report, "strength")),
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
