"""Output files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from convpinv.app.images import TargetError, WriteError, check_target, reason


def check_targets(
    targets: Mapping[str, str | os.PathLike[str] | None],
    sources: Mapping[str, str | os.PathLike[str] | None],
    *,
    overwrite: bool,
    replaceable: tuple[str, ...] = (),
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
        The sources that ``overwrite`` allows to be replaced as well.
    """
    seen: dict[str, str] = {}
    for name, target in targets.items():
        if target is None:
            continue
        key = os.path.realpath(target)
        for source_name, source in sources.items():
            if source is None or not _same(target, source):
                continue
            if source_name not in replaceable:
                raise TargetError(target, f"{name} and {source_name} are one file; give {name} another name")
            if not overwrite:
                raise TargetError(target, f"{name} and {source_name} are one file; give --overwrite to replace it")
        if key in seen:
            raise TargetError(target, f"{name} and {seen[key]} are one file; give one of them another name")
        seen[key] = name
        check_target(target, overwrite=overwrite)


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write files so that each is there whole or not at all.

    Every file is first written beside its target and forced to the disk; only when all of them are, they take
    their names. Whatever goes wrong before, nothing is left behind.

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
        for temporary, target in staged.items():
            try:
                os.replace(temporary, target)
            except OSError as error:
                raise WriteError(target, f"could not be written ({reason(error)}); choose another name") from None
    finally:
        for temporary in staged:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _write(temporary: Path, data: bytes, target: Path) -> None:
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
