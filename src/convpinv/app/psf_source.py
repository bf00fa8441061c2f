"""Where a PSF comes from on the command line: a maker's text or a file."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import images, signatures
from convpinv.app.files import UnreadableFileError, read_bytes, reason
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclasses.dataclass(frozen=True)
class PsfSource:
    """A PSF (h, w) or (C, h, w) with sum 1, the text that named it, and its file if it came from one."""

    psf: Tensor
    text: str
    path: Path | None = None
    notes: tuple[str, ...] = ()


def load(text: str, option: str = "--psf") -> PsfSource:
    """Return the PSF that the user named.

    Parameters
    ----------
    text
        A file that exists (a picture or ``.npy``), or a maker's text such as ``motion:length=21,angle=30``.
    option
        How the command calls this argument, for the error.

    Returns
    -------
    PsfSource
        The PSF, checked and normalised.

    Raises
    ------
    ArgumentError, UnreadableFileError
        With one line: what the text is not, or what is wrong with the file.
    """
    from convpinv.imaging import psf

    path = file_of(text)
    if path is not None:
        return _from_file(path)
    if text.partition(":")[0].strip().lower() in psf.MAKERS:
        try:
            return PsfSource(psf.parse(text), text)
        except ArgumentError as error:
            raise ArgumentError(f"{option} {text}: {without_call(error)}") from None
    examples = ", ".join(maker.example for maker in psf.MAKERS.values())
    raise ArgumentError(f"{option} {text!r} is neither a file that exists nor a PSF like {examples}")


def without_call(error: Exception) -> str:
    """Return an error's text without the Python call that it names first: here the command is what was called."""
    text = str(error)
    head, colon, rest = text.partition(": ")
    return rest if colon and " " not in head else text


def file_of(text: str) -> Path | None:
    """Return the path that a text names if something is there, and None for a maker's text."""
    try:
        return Path(text) if Path(text).exists() else None
    except (OSError, ValueError):  # a name that no file system takes
        return None


def _from_file(path: Path) -> PsfSource:
    from convpinv.imaging import psf

    data = read_bytes(path)
    notes: tuple[str, ...] = ()
    if data.startswith(signatures.NUMPY):
        array = _numpy_array(data, path)
    else:
        image = images.read(path)
        array = image.pixels
        notes = image.notes
        if image.alpha is not None:
            notes = (*notes, "the alpha channel of the PSF is left out")
        if array.ndim == 3:
            # A grey PSF saved by a paint program comes as RGB with three equal channels.
            grey = (array == array[..., :1]).all()
            array = array[..., 0] if grey else array.transpose(2, 0, 1)
    try:
        return PsfSource(psf.from_array(array), str(path), path, notes)
    except ArgumentError as error:
        raise UnreadableFileError(path, f"is no PSF: {without_call(error)}") from None


def _numpy_array(data: bytes, path: Path) -> NDArray[Any]:
    import numpy as np

    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise UnreadableFileError(path, f"is a damaged .npy file ({reason(error)}); save it again") from None
