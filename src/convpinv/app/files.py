"""Files: their bytes, and the errors that name the file, what is wrong and the remedy."""

from __future__ import annotations

import os
import re
import stat
import sys
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


def reason(error: BaseException) -> str:
    """Return what an error of another library says, in one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # Libraries name the buffers that they were given; an address in memory tells a user nothing.
    line = " ".join(re.sub(r"<\S+ object at 0x[0-9a-fA-F]+>", "", str(text)).split())
    return line if len(line) <= 120 else line[:117] + "…"
