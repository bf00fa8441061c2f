"""``convpinv deblur`` of a picture larger than memory."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convpinv.app import axes, outputs, psf_source, raster, signatures
from convpinv.app.console import ComputationError, InterruptedWorkError, Working
from convpinv.app.files import TargetError, UnreadableFileError, stamp
from convpinv.app.request import Request
from convpinv.app.tiles import memory, planning, reporting, sinks
from convpinv.app.tiles.arrays import Source
from convpinv.app.tiles.plan import Tile
from convpinv.app.tiles.planning import Plan
from convpinv.app.tiles.progress import Progress
from convpinv.app.tiles.sources import is_tileable, opened
from convpinv.app.tiles.work import Work
from convpinv.arguments import ArgumentError, ConvpinvError

# A restoration in memory takes up to this many times the float32 picture.
_IN_MEMORY = 30
# Priors that a tile of a picture can be restored by.
_PRIORS = ("tv", "hyperlaplacian", "nonlocal", "gradient", "tikhonov")


def wanted(request: Request) -> bool:
    """Tell whether a request goes in tiles: it says so, or its picture does not fit half of the available memory."""
    if request.memory or request.dry_run or request.workers or request.scheduler:
        return True
    if request.resume and Progress(request.target).exists():
        return True
    free = memory.available()
    try:
        if not request.source.is_dir():
            if not request.source.is_file():  # a pipe would be waited for
                return False
            with open(request.source, "rb") as file:
                array = file.read(16).startswith(signatures.NUMPY)
            # What is small in the file, and cannot be large out of it, is not opened twice.
            if not (array or is_tileable(request.source)) or free is None:
                return False
            if request.source.stat().st_size * _IN_MEMORY < free // 64:
                return False
        with opened(request.source, axes.parse(request.axes)) as source:
            # A stack is held whole, and restored plane by plane.
            needed = math.prod(source.shape) * (4 * _IN_MEMORY + 16 * (source.planes - 1))
            large = free is not None and needed > free // 2
            # What claims far more than it holds is damaged, which whoever reads it whole says.
            return large and raster.is_plausible(math.prod(source.shape) * source.planes, _bytes(request.source))
    except axes.AxesError:
        raise  # whoever reads it whole would say the same, and read all of it first
    except (OSError, ConvpinvError):
        return False  # whoever reads it whole says what is wrong, or can read it


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(part.stat().st_size for part in path.rglob("*"))


def deblur_large(
    request: Request, *, core: int | None = None, grain: int | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Restore a picture tile by tile.

    Parameters
    ----------
    request
        The files and the options.
    core, grain
        Largest side of a tile without its surroundings, and what it is a multiple of; the memory decides if not given.

    Returns
    -------
    dict, tuple of str
        The report, and the lines that say what was done, or what would be.

    Raises
    ------
    ConvpinvError
        Of the class that says whether the input or the work was at fault. OUT is not there then; what is finished
        lies beside it, for ``--resume``.
    """
    _check(request)
    progress = Progress(request.target)
    try:
        return _restored(request, progress, core, grain)
    except KeyboardInterrupt:
        left = None if request.dry_run else _left_by_interruption(request, progress)
        if left is None:
            raise
        raise InterruptedWorkError(f"interrupted; {left}") from None


def _restored(
    request: Request, progress: Progress, core: int | None, grain: int | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    begun = None if request.dry_run else _begun(request, progress)
    with opened(request.source, axes.parse(request.axes)) as source:
        _check_disk(request, source)
        plan = begun or planning.make(request, source, core, grain)
        if request.dry_run:
            said = reporting.report(plan, request)
            _write_report(request, said)
            return said, tuple(reporting.plan_lines(plan))
        if begun is None:
            like = request.source if source.format == "zarr" else None
            progress.begin(plan.to_dict(), lambda path: sinks.make(path, plan.form, like))
    done = progress.done()
    pending = [tile for tile in plan.layout.tiles() if tile.index not in done]
    start = time.perf_counter()
    try:
        with Working(str(request.source)) as working:
            steps = (
                _on_cluster(plan, request, pending)
                if request.workers or request.scheduler
                else _here(plan, request, pending)
            )
            for finished, line in enumerate(steps, 1):
                working(len(done) + finished, plan.layout.count)
                if line:
                    print(line, flush=True)
    except BaseException:
        if not progress.done():
            progress.remove()
        raise
    facts = progress.facts()
    sinks.finish(progress.pixels, progress.target, plan.form)
    progress.remove()
    seconds = time.perf_counter() - start
    said = reporting.report(plan, request, reporting.Done(seconds, len(done), facts))
    _write_report(request, said)
    return said, tuple(reporting.done_lines(plan, said))


def _write_report(request: Request, said: Mapping[str, Any]) -> None:
    if request.report is not None:
        outputs.write_all({request.report: (json.dumps(said, indent=2, allow_nan=False) + "\n").encode()})


def _left_by_interruption(request: Request, progress: Progress) -> str | None:
    """Say what stays of a work that the user ended; None where nothing does."""
    if progress.exists() and not progress.pixels.exists():
        # They have become OUT, and what it replaced was being removed.
        progress.remove()
        return f"{request.target} is finished" + (", its report is not" if request.report is not None else "")
    if progress.plan() is None:
        return None
    tiles = len(progress.done())
    return f"{tiles} finished tiles are kept in {progress.folder}; the same command with --resume goes on"


def _here(plan: Plan, request: Request, tiles: list[Tile]) -> Iterator[str]:
    work = Work(plan, request.target)
    try:
        for tile in tiles:
            work.do(tile)
            yield ""
    finally:
        work.close()


def _on_cluster(plan: Plan, request: Request, tiles: list[Tile]) -> Iterator[str]:
    from convpinv.app.tiles import cluster

    return cluster.run(plan, request.target, tiles, request.workers, request.scheduler)


def _check(request: Request) -> None:
    sources = {"IN": request.source, "--psf": psf_source.file_of(request.psf_text)}
    if request.mask is not None:
        raise ArgumentError("--mask is not for tiles; write NaN into a floating-point picture where it was not seen")
    # What is given and not served is refused: a large picture goes in tiles by itself.
    for option, is_given in (
        ("--plot", request.plot is not None),
        ("--linear on", request.linear == "on"),
        ("--clip", request.clip is not None),
        ("--bounds", request.bounds is not None),
        ("--exponent", request.exponent != Request.exponent),
    ):
        if is_given:
            raise ArgumentError(f"{option} is not for tiles; leave it out, or restore a part that memory holds")
    if request.prior not in _PRIORS:
        raise ArgumentError(f"--prior {request.prior} has no end to its reach; in tiles it may be {', '.join(_PRIORS)}")
    if request.scheduler and request.workers:
        raise ArgumentError("--workers starts a cluster here and --scheduler uses yours; give one of them")
    sinks.check_name(request.target)
    if request.scheduler and request.target.suffix.lower() != ".zarr":
        raise TargetError(request.target, "is no Zarr store, into which alone a cluster writes; name it .zarr")
    if request.report is not None and request.report.suffix.lower() != ".json":
        raise TargetError(request.report, "reports are written as JSON; name it .json")
    if not request.source.exists():
        raise UnreadableFileError(request.source, "no such file; check the name and the folder")
    outputs.check_targets(
        {"OUT": None if request.dry_run else request.target, "--report": request.report},
        sources,
        overwrite=request.overwrite,
        replaceable={("OUT", "IN")},
    )


def _begun(request: Request, progress: Progress) -> Plan | None:
    """Return the plan to go on with; None to make one."""
    if not progress.exists():
        return None
    if not request.resume:
        if request.overwrite:
            progress.remove()
            return None
        raise TargetError(
            progress.folder, "holds an unfinished restoration; give --resume to go on, or --overwrite to start afresh"
        )
    stored = progress.plan()
    if stored is None:
        return None
    try:
        plan = Plan.from_dict(stored)
    except (TypeError, KeyError):
        raise TargetError(progress.folder, "was begun by another version; give --overwrite to start afresh") from None
    changed = [name for name, value in planning.asked(request).items() if plan.asked.get(name) != value]
    if changed:
        raise TargetError(
            progress.folder, f"was begun with another --{changed[0]}; give the same, or --overwrite to start afresh"
        )
    if plan.source != str(request.source.absolute()) or plan.stamp != stamp(request.source):
        raise TargetError(progress.folder, f"was begun for another {request.source}; give --overwrite to start afresh")
    return plan


def _check_disk(request: Request, source: Source) -> None:
    if request.dry_run:
        return
    free = shutil.disk_usage(request.target.absolute().parent).free
    import numpy as np

    needed = math.prod(source.shape) * np.dtype(source.dtype).itemsize
    # A TIFF, and a file in another order, is put together beside the pixels that it is made of.
    kind, order = request.target.suffix.lower(), planning.order_of(source, request.target)
    needed *= 2 if kind in (".tif", ".tiff") or (kind == ".npy" and order != source.order) else 1
    if not Progress(request.target).exists() and needed > free:
        raise ComputationError(
            f"{request.target}: takes {memory.text(needed)} on the way and the disk has {memory.text(free)}; free space"
        )
