"""Which files a run over many pictures reads and writes: folders, patterns, names; all that is refused before work."""

from __future__ import annotations

import dataclasses
import glob
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from convpinv.app import images, signatures
from convpinv.app.files import TargetError, UnreadableFileError, reason
from convpinv.app.outputs import check_target, is_store
from convpinv.arguments import ArgumentError

# What a format stores as a folder is one picture, not a folder of pictures.
_PICTURE_FOLDERS = (".zarr",)


@dataclasses.dataclass(frozen=True)
class Task:
    """One picture: where it is, where its restoration goes, and that place's name within the output folder."""

    source: Path
    target: Path
    name: str


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file of a folder that is no picture, and why."""

    source: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done, and what is left aside.

    ``failed`` are pictures that cannot have an output (their name has no format that is written); ``hidden`` files
    and ``folders`` that were not entered are counted.
    """

    folder: Path
    tasks: tuple[Task, ...]
    failed: tuple[tuple[Path, str], ...] = ()
    skipped: tuple[Skipped, ...] = ()
    hidden: int = 0
    folders: int = 0


@dataclasses.dataclass(frozen=True)
class Naming:
    """How outputs are called: as the input, ``suffix`` after its stem, with another ending if ``format`` is given."""

    suffix: str = ""
    format: str | None = None

    def __post_init__(self) -> None:
        if any(sign in self.suffix for sign in ("/", os.sep, "\0")):
            raise ArgumentError(f"--suffix is {self.suffix!r}; it may be a text to add to names, like -sharp")
        if self.format is not None and f".{self.format}" not in images.FORMATS:
            may_be = ", ".join(ending.removeprefix(".") for ending in images.FORMATS)
            raise ArgumentError(f"--format is {self.format!r}; it may be {may_be}")

    def of(self, name: Path) -> Path:
        """Return the output's name for an input's, both relative to their folders."""
        ending = name.suffix if self.format is None else f".{self.format}"
        return name.with_name(f"{name.stem}{self.suffix}{ending}")


def is_for_folders(sources: Sequence[str], target: str) -> bool:
    """Whether OUT is a folder: it is one, ends like one, or there is more to read than one named file."""
    if _is_folder(Path(target)) or (target.endswith(("/", os.sep)) and not is_store(Path(target))):
        return True
    return len(sources) != 1 or _is_folder(Path(sources[0])) or _is_pattern(sources[0])


def make(
    sources: Sequence[str],
    target: str,
    naming: Naming,
    *,
    recursive: bool,
    apart: Sequence[Path | None],
    overwrite: bool,
) -> Plan:
    """Find the pictures, give each its output, and refuse what cannot go well.

    Parameters
    ----------
    sources
        Files, folders, and patterns that match no file by their letters.
    target
        The output folder.
    naming
        How outputs are called.
    recursive
        Whether the folders in a folder are entered.
    apart
        Files that are no pictures to restore though they may lie among them: the PSF, the mask.
    overwrite
        Whether an output may be its own input.

    Returns
    -------
    Plan
        In the order of the command line, names sorted within a folder. Nothing is written, and whether outputs exist
        is not looked at.

    Raises
    ------
    TargetError, UnreadableFileError, ArgumentError
        Two pictures with one output, an output that is another input, a folder that cannot be read, nothing to do.
    """
    folder = Path(target)
    _check_folder(folder, target)
    found = _Search(folder, recursive, [os.path.realpath(path) for path in apart if path is not None])
    for source in sources:
        found.look_at(source)
    tasks, failed = [], list(found.failed)
    for source, name in found.pictures:
        output = folder / naming.of(name)
        try:
            images.format_of(output)
        except TargetError as error:
            failed.append((source, f"has no output: {error.problem}, or give --format"))
            continue
        tasks.append(Task(source, output, output.relative_to(folder).as_posix()))
    _check_collisions(tasks, [os.path.realpath(path) for path in apart if path is not None], overwrite)
    if not tasks and not failed:
        left = f"; {len(found.skipped)} files are no pictures" if found.skipped else ""
        into = f"; {found.folders} folders were not entered, --recursive does" if found.folders else ""
        raise ArgumentError(f"{', '.join(sources)}: no picture to restore{left}{into}")
    return Plan(folder, tuple(tasks), tuple(failed), tuple(found.skipped), found.hidden, found.folders)


def make_folders(plan: Plan) -> None:
    """Make the folders of the outputs and try that they can be written."""
    for folder in sorted({task.target.parent for task in plan.tasks} | {plan.folder}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(folder, f"cannot be made ({reason(error)}); choose another") from None
        check_target(folder / f"convpinv-{secrets.token_hex(4)}", overwrite=False)


def _check_folder(folder: Path, given: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise TargetError(folder, "is a file; several pictures go into a folder, name one as the last argument")
    if is_store(folder):
        raise TargetError(folder, "is a Zarr store, one picture; several pictures go into a folder, name one")
    if not folder.exists() and not given.endswith(("/", os.sep)) and folder.suffix.lower() in images.FORMATS:
        raise TargetError(
            folder, f"several pictures go into a folder, and this is a picture's name; write {given}/ if it is a folder"
        )


def _check_collisions(tasks: Sequence[Task], apart: Sequence[str], overwrite: bool) -> None:
    sources = {os.path.realpath(task.source): task.source for task in tasks}
    by_target: dict[str, Path] = {}
    for task in tasks:
        place = os.path.realpath(task.target)
        # On file systems that take A.png and a.png for one, so does this.
        key = os.path.normcase(place)
        if key in by_target:
            both = f"{by_target[key]} and {task.source} would both be written there"
            raise TargetError(task.target, f"{both}; restore them into two folders, or rename one")
        by_target[key] = task.source
        if place in apart:
            raise TargetError(task.target, "is the PSF or the mask; choose another folder or give --suffix")
        if place not in sources:
            continue
        if place != os.path.realpath(task.source):
            raise TargetError(task.target, f"the output of {task.source} is another input; choose another folder")
        if not overwrite:
            raise TargetError(
                task.target, "the output would replace its input; give --overwrite, --suffix, or another folder"
            )


class _Search:
    """Collects the pictures that files, folders and patterns name, each with its name below the output folder."""

    def __init__(self, folder: Path, recursive: bool, apart: Sequence[str]):
        self._output = os.path.realpath(folder)
        self._recursive = recursive
        self._apart = set(apart)
        self._seen: set[str] = set()
        self.pictures: list[tuple[Path, Path]] = []
        self.failed: list[tuple[Path, str]] = []
        self.skipped: list[Skipped] = []
        self.hidden = 0
        self.folders = 0

    def look_at(self, source: str) -> None:
        path = Path(source)
        if _is_folder(path):
            for file in self._walk(path, top=True):
                self._choose(file, file.relative_to(path))
        elif _is_pattern(source):
            base = _fixed_part(source)
            matches = sorted(glob.glob(source, recursive=True))
            if not matches:
                raise UnreadableFileError(source, "no file matches this pattern; check the folder and the ending")
            for match in map(Path, matches):
                if not _is_folder(match) and not self._is_output(match, base):
                    self._choose(match, match.relative_to(base))
        else:
            # A file that the user named is taken at the word: whatever is wrong with it is an error.
            self._add(path, Path(path.name))

    def _walk(self, folder: Path, *, top: bool = False) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            problem = f"the folder cannot be read ({reason(error)}); make it readable for you"
            if top:
                raise UnreadableFileError(folder, problem) from None
            self.failed.append((folder, problem))
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                self.hidden += 1
            elif _is_folder(path):
                if os.path.realpath(path) == self._output:
                    continue  # outputs of an earlier run
                if self._recursive and not entry.is_symlink():  # a link to a folder above would never end
                    yield from self._walk(path)
                else:
                    self.folders += 1
            else:
                yield path

    def _choose(self, path: Path, name: Path) -> None:
        """Take what is a picture by its name or by its content, and say what is not."""
        if os.path.realpath(path) in self._apart:
            self.skipped.append(Skipped(path, "is the PSF or the mask"))
            return
        if path.suffix.lower() not in images.FORMATS and not os.path.isdir(path):
            try:
                # A named pipe would be waited for without end.
                start = _start(path) if path.is_file() else b""
            except OSError as error:
                self.skipped.append(Skipped(path, f"is no picture by its name and cannot be read ({reason(error)})"))
                return
            if signatures.format_in(start) is None:
                self.skipped.append(Skipped(path, signatures.stranger(start)))
                return
        self._add(path, name)

    def _add(self, path: Path, name: Path) -> None:
        # The same file twice, by its name and by a pattern, say, is one picture.
        key = f"{os.path.realpath(path)}\0{name}"
        if key not in self._seen:
            self._seen.add(key)
            self.pictures.append((path, name))

    def _is_output(self, path: Path, base: Path) -> bool:
        """Whether a match lies in an output folder below the pattern's own."""
        below = self._output.startswith(os.path.join(os.path.realpath(base), ""))
        return below and os.path.join(os.path.realpath(path.parent), "").startswith(os.path.join(self._output, ""))


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(64)


def _is_folder(path: Path) -> bool:
    # Not Path.is_dir, which raises for a name that is too long. A store is one picture, whatever its name.
    return path.suffix.lower() not in _PICTURE_FOLDERS and os.path.isdir(path) and not is_store(path)


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source) and not os.path.lexists(source)


def _fixed_part(pattern: str) -> Path:
    """Return the folder that a pattern starts in: what lies below it keeps its folders."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])
