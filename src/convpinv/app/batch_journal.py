"""The journal of an output folder: which outputs are finished, and what of, so that a killed run can go on.

A record is on the disk before its output takes its name, and holds the digest of the output's bytes. So a file that has
the digest of its record is finished, whenever the run was killed; any other file is somebody else's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from convpinv.app.batch_plan import Task
from convpinv.app.files import TargetError, content, content_of, reason, stamp
from convpinv.app.restoring import Request

NAME = ".convpinv-journal.jsonl"
# The files that outputs.write_all writes first, by the name that they would have taken.
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part")
# What does not change the pixels.
_NO_SETTINGS = {
    *("source", "target", "report", "overwrite", "device", "plot"),
    *("memory", "dry_run", "workers", "scheduler", "resume", "check_io"),
}
# What names a file whose content matters, not its name.
_FILES = {"psf", "mask"}


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished output: the input's stamp (:func:`stamp`), the digest of the settings, and that of the output."""

    output: str
    input_size: int
    input_mtime: int
    settings: str
    size: int
    digest: str


def record(task: Task, source: tuple[int, int], settings: str, data: bytes | Mapping[str, bytes]) -> Record:
    """Return the record of an output that is about to take its name; ``source`` is the input's stamp as it was read."""
    return Record(task.name, *source, settings, *content_of(data))


def settings_digest(request: Request) -> str:
    """Return a digest of all that the pixels of an output depend on, but for the input."""
    from convpinv import __version__

    facts: dict[str, Any] = {"version": __version__}
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if field.name in _NO_SETTINGS:
            continue
        if field.name in _FILES and value is not None:
            with contextlib.suppress(OSError, ValueError):  # a maker's text is no file
                value = content(Path(value))[1]
        facts[field.name] = value
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def append(folder: Path, entry: Record) -> None:
    """Add a record and force it to the disk; one write, so that those of several processes do not mix."""
    line = json.dumps(dataclasses.asdict(entry)) + "\n"
    file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(folder: Path) -> dict[str, list[Record]]:
    """Return the records by their output; a line that a killed run left torn counts for nothing."""
    found: dict[str, list[Record]] = {}
    try:
        text = (folder / NAME).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return found
    except OSError as error:
        raise TargetError(folder / NAME, f"cannot be read ({reason(error)}); make it readable or remove it") from None
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            entry = Record(**json.loads(line))
            found.setdefault(entry.output, []).append(entry)
    return found


def mend(folder: Path) -> None:
    """End a torn last line, or the next record would be torn with it."""
    with contextlib.suppress(FileNotFoundError), open(folder / NAME, "r+b") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def is_ours(task: Task, records: Iterable[Record]) -> Record | None:
    """Return the record whose output the file at the task's target is, byte for byte."""
    records = list(records)
    try:
        if task.target.is_file() and not any(entry.size == task.target.stat().st_size for entry in records):
            return None
        _, digest = content(task.target)
    except OSError:
        return None
    return next((entry for entry in reversed(records) if entry.digest == digest), None)


def is_current(task: Task, entry: Record, settings: str) -> bool:
    """Whether an output was made of the input as it is now, with the settings that hold now."""
    if os.path.realpath(task.source) == os.path.realpath(task.target):
        # In place, the input is the output by now; once more would deblur it twice.
        return True
    try:
        now = stamp(task.source)
    except OSError:
        return False
    return (entry.input_size, entry.input_mtime, entry.settings) == (*now, settings)


def remove_unfinished(tasks: Iterable[Task]) -> int:
    """Remove what killed runs left beside the outputs, and nothing else; return how many files that was."""
    names: dict[Path, set[str]] = {}
    for task in tasks:
        # write_all goes through links.
        real = Path(os.path.realpath(task.target))
        names.setdefault(real.parent, set()).add(real.name[:100])
    removed = 0
    for folder, own in names.items():
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(folder)):
                match = _UNFINISHED.fullmatch(entry.name)
                if match and match["name"] in own:
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)
                    removed += 1
    return removed


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once are the user's risk there
        yield
        return
    with open(folder / NAME, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TargetError(folder, "another run is writing into this folder; wait for its end") from None
        except OSError:  # a network disk without locks
            pass
        yield
