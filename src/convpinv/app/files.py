"""Files: their bytes, what tells that they changed, and the errors that name the file, what is wrong and the remedy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from convpinv.arguments import ConvpinvError

# As a name of a file: standard input or standard output.
PIPE = "-"


class FileError(ConvpinvError):
    """Something about a file; the message names the file, what is wrong and the remedy."""

    def __init__(self, path: str | os.PathLike[str], problem: str):
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{self.path}: {problem}")


class UnreadableFileError(FileError):
    """An input file that cannot be read, or that holds what this version does not serve."""


class MissingExtraError(ConvpinvError):
    """An optional package is not installed; the message gives the command that installs it."""


class TargetError(FileError):
    """An output file that cannot be written as asked; raised before the work starts."""


class WriteError(FileError):
    """Writing failed; nothing is left behind."""


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular, non-empty file, or of standard input for ``-``."""
    try:
        if str(path) == PIPE:
            data = b"" if sys.stdin is None else sys.stdin.buffer.read()
            if not data:
                raise UnreadableFileError(path, "standard input is empty; send a picture into it")
            return data
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableFileError(path, "is a folder; name one file in it")
        if not stat.S_ISREG(mode):
            raise UnreadableFileError(path, "is not a regular file; save the data to a file first")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UnreadableFileError(path, "no such file; check the name and the folder") from None
    except PermissionError:
        raise UnreadableFileError(path, "permission denied; make the file readable for you") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise UnreadableFileError(path, f"cannot be read ({reason(error)}); check the name and the disk") from None
    if not data:
        raise UnreadableFileError(path, "is empty; get the file again from where it came")
    return data


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file or a folder of files is replaced: its size, and its time of change.

    Writing into a file in a folder changes neither the folder's size nor its time, and new files may be older than
    those that were there. So a folder's second number is a digest of the names, sizes and times of all its files.
    """
    if not path.is_dir():
        found = path.stat()
        return found.st_size, found.st_mtime_ns
    parts = []
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a link to nothing
                found = os.stat(os.path.join(place, name))
                parts.append((os.path.relpath(os.path.join(place, name), path), found.st_size, found.st_mtime_ns))
    digest = hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()
    return sum(size for _, size, _ in parts), int(digest[:15], 16)


def content(path: Path) -> tuple[int, str]:
    """Return the size and the digest of a file, or of a folder of files."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    parts = [(part.relative_to(path).as_posix(), *content(part)) for part in path.rglob("*") if part.is_file()]
    return sum(size for _, size, _ in parts), _folder_digest((name, digest) for name, _, digest in parts)


def content_of(data: bytes | Mapping[str, bytes]) -> tuple[int, str]:
    """Return what :func:`content` says once the bytes of a file, or of the files of a folder, are written."""
    if isinstance(data, bytes):
        return len(data), hashlib.sha256(data).hexdigest()
    digest = _folder_digest((name, hashlib.sha256(part).hexdigest()) for name, part in data.items())
    return sum(len(part) for part in data.values()), digest


def _folder_digest(parts: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a folder: of the names in it and the digests of their contents."""
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def reason(error: BaseException) -> str:
    """Return what an error of another library says, in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # Libraries name the buffers that they were given; an address in memory tells a user nothing.
    line = " ".join(re.sub(r"<\S+ object at 0x[0-9a-fA-F]+>", "", str(text)).split())
    return line if len(line) <= 120 else line[:117] + "…"
