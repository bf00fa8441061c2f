"""Where ``convpinv deblur`` reads and writes: one file, many, or a pipe."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from convpinv.app import batch, batch_plan, images, outputs, psf_source, restoring
from convpinv.app.files import PIPE, UnreadableFileError
from convpinv.app.restoring import Request
from convpinv.arguments import ArgumentError

# What a picture that is written to a pipe is called where a name has to have an ending.
_ENDINGS = {name: f".{name}" for name in ("png", "webp", "fits", "npy", "zarr")} | {"jpeg": ".jpg", "tiff": ".tif"}

_TILES = ("--memory", "--dry-run", "--workers", "--scheduler")


@dataclasses.dataclass(frozen=True)
class Places:
    """What the user wrote for IN and OUT, and the options about them."""

    sources: tuple[str, ...]
    target: str
    recursive: bool = False
    suffix: str = ""
    format: str | None = None
    jobs: int | None = None


def deblur(request: Request, places: Places, echo: Callable[[str], None]) -> None:
    """Restore what the places name, with the options of ``request``, and say what was done."""
    if PIPE in (*places.sources, places.target):
        _refuse(places, "a pipe", "--recursive", "--suffix", "--jobs")
        _alone(request, "--resume", "--check-io", *_TILES)
        if len(places.sources) > 1:
            raise ArgumentError("- is one picture; give one IN and one OUT with it")
        _through_pipe(request, places.format, echo)
    elif batch_plan.is_for_folders(places.sources, places.target):
        folder = next((name for name in places.sources if Path(name).is_dir()), None)
        if request.check_io and folder is not None:
            raise UnreadableFileError(folder, "is a folder; name one file in it")
        _alone(request, "--check-io", *_TILES)
        folders = batch.Folders(
            places.sources,
            places.target,
            batch_plan.Naming(places.suffix, places.format),
            places.recursive,
            request.resume,
            places.jobs,
        )
        batch.deblur_folder(request, folders, echo)
    else:
        _refuse(places, "one file", "--recursive", "--suffix", "--format", "--jobs")
        for line in restoring.deblur_file(request).lines:
            echo(line)


def _alone(request: Request, *options: str) -> None:
    for option in options:
        if getattr(request, option.removeprefix("--").replace("-", "_")):
            raise ArgumentError(f"{option} is for one picture in a file; give one IN and one OUT with it")


def _refuse(places: Places, what: str, *options: str) -> None:
    for option in options:
        if getattr(places, option.removeprefix("--")) not in (False, "", None):
            raise ArgumentError(
                f"{option} is for folders, and this is {what}; leave it out, or write OUT/ for a folder"
            )


def _through_pipe(request: Request, form: str | None, echo: Callable[[str], None]) -> None:
    """Restore one picture from standard input, to standard output, or both."""
    if str(request.target) != PIPE:
        if form is not None:
            raise ArgumentError("--format is for folders and for OUT -; the name of OUT says its format")
        for line in restoring.deblur_file(request).lines:
            echo(line)
        return
    batch_plan.Naming(format=form)
    if sys.stdout.isatty():
        raise ArgumentError("OUT is - and standard output is a terminal; send it to a file or to another program")
    restoring.check(request)
    loaded = restoring.load(request)
    ending = f".{form}" if form is not None else _ENDINGS[loaded.image.format]
    named = dataclasses.replace(request, target=Path(f"standard output{ending}"))
    images.check_format(loaded.image, named.target)
    restored = restoring.restore(named, loaded, psf_source.load(request.psf_text))
    files, outcome = restoring.encode(named, loaded, restored)
    data = files.pop(named.target)
    if not isinstance(data, bytes):
        raise ArgumentError("OUT is -, and a Zarr store is a folder; give it a name, or another --format")

    def send() -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    outputs.write_all(files, send)
    for line in outcome.lines:
        print(line, file=sys.stderr)
