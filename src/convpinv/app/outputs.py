"""Output files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from convpinv.app import ngff
from convpinv.app.files import TargetError, WriteError, reason


def check_targets(
    targets: Mapping[str, str | os.PathLike[str] | None],
    sources: Mapping[str, str | os.PathLike[str] | None],
    *,
    overwrite: bool,
    replaceable: Collection[tuple[str, str]] = (),
) -> None:
    """Refuse, before any work, output places that cannot be written or that would destroy an input.

    Parameters
    ----------
    targets
        The output files by the name of their argument; None where the user asked for none.
    sources
        The input files by the name of their argument.
    overwrite
        Whether files that exist may be replaced.
    replaceable
        The pairs (target, source) that ``overwrite`` allows to be one file; no other source is ever replaced.
    """
    seen: dict[str, str] = {}
    for name, target in targets.items():
        if target is None:
            continue
        same = [source for source, path in sources.items() if path is not None and _same(target, path)]
        for source in same:
            if (name, source) not in replaceable:
                raise TargetError(target, f"{name} and {source} are one file; give {name} another name")
        if same and not overwrite:
            raise TargetError(target, f"{name} and {same[0]} are one file; give --overwrite to replace it")
        key = os.path.realpath(target)
        if key in seen:
            raise TargetError(target, f"{name} and {seen[key]} are one file; give one of them another name")
        seen[key] = name
        check_target(target, overwrite=overwrite)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse an output place that cannot be written, before any work is done."""
    target = Path(path)
    try:
        target.exists()
    except OSError as error:
        raise TargetError(target, f"cannot be a file's name ({reason(error)}); choose another") from None
    folder_of_zarr = target.suffix.lower() == ".zarr" and is_store(target)
    if target.is_dir() and not folder_of_zarr:
        raise TargetError(target, "is a folder; name a file in it")
    if target.exists():
        if not target.is_file() and not folder_of_zarr:
            raise TargetError(target, "is not a regular file; name another one")
        if not overwrite:
            raise TargetError(target, "exists already; give --overwrite to replace it, or another name")
    folder = target.parent
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise TargetError(target, f"the folder {folder} {problem}; make it first")
    try:
        # Permissions do not tell all: /proc and read-only disks refuse root as well. Nothing is left of this file.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TargetError(target, f"the folder {folder} cannot be written ({reason(error)}); choose another") from None


def is_store(path: Path) -> bool:
    """Whether a folder is a picture, which may be replaced as one; any other may hold whatever a user keeps there."""
    # Not Path.is_dir, which raises for a name that is too long.
    return os.path.isdir(path) and ngff.is_folder(path)


def write_all(
    files: Mapping[Path, bytes | Mapping[str, bytes]], before_naming: Callable[[], None] | None = None
) -> None:
    """Write files so that each is there whole or not at all.

    A mapping in place of bytes makes a folder of files. Every file is first written beside its target and forced to
    the disk; only when all of them are, they take their names. Whatever goes wrong before, nothing is left behind.
    ``before_naming`` is called in between.

    Raises
    ------
    WriteError
        Naming the file and the reason.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            # Through a link, the file that it points to is replaced, not the link.
            target = Path(os.path.realpath(path))
            try:
                temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
                staged[temporary] = target
                _write(temporary, data, target)
            except OSError as error:
                raise WriteError(
                    path, f"could not be written ({reason(error)}); free space or choose another"
                ) from None
        if before_naming is not None:
            before_naming()
        for temporary, target in staged.items():
            try:
                take_name(temporary, target)
            except OSError as error:
                raise WriteError(target, f"could not be written ({reason(error)}); choose another name") from None
    finally:
        for temporary in staged:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def take_name(temporary: Path, target: Path) -> None:
    """Give what is staged its name; what has the name goes only when the new one is there, and a folder never does.

    Raises
    ------
    OSError
        If it cannot, or if by now the name is that of a folder which is no picture.
    """
    if not temporary.is_dir() or not (target.is_file() or is_store(target)):
        os.replace(temporary, target)
        return
    aside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.old")
    os.replace(target, aside)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(aside, target)
        raise
    if not aside.is_dir():
        aside.unlink()
        return
    try:
        shutil.rmtree(aside, ignore_errors=True)
    except KeyboardInterrupt:  # a large store takes its time, and a hidden half of it would stay
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write(temporary: Path, data: bytes | Mapping[str, bytes], target: Path) -> None:
    if not isinstance(data, bytes):
        temporary.mkdir()
        for name, body in data.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(place, body, place)
        return
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        # A replaced file keeps its permissions, as it would if it had been written into.
        os.chmod(temporary, target.stat().st_mode & 0o7777)


def _same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
