"""Where a PSF comes from on the command line: a maker's text or a file."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import images, signatures
from convpinv.app.files import UnreadableFileError, read_bytes, reason
from convpinv.app.light import choose
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
        A file that exists (a picture, Zarr or ``.npy``), or a maker's text such as ``motion:length=21,angle=30``.
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


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A PSF to find in pictures: the option that asks for it, its files, the size wanted, and ``--linear``."""

    option: str
    paths: tuple[Path, ...]
    size: int
    linear: str = "auto"


def one_of(
    text: str | None,
    points: Path | None,
    edge: Path | None,
    pair: tuple[Path, Path] | None,
    size: int | None,
    linear: str = "auto",
) -> str | Measurement:
    """Return the one source that the user gave: a text or file, or a measurement with its size."""
    asked = {
        "--from-points": None if points is None else (points,),
        "--from-edge": None if edge is None else (edge,),
        "--from-pair": pair,
    }
    given = [(option, paths) for option, paths in asked.items() if paths is not None]
    if len(given) + (text is not None) != 1:
        raise ArgumentError(f"give one of SPEC|FILE, {', '.join(asked)}")
    if text is not None:
        if size is not None:
            raise ArgumentError(
                "--size is for a PSF that is measured; a text holds its own, like gaussian:sigma=1,size=9"
            )
        if linear != "auto":
            raise ArgumentError("--linear is for a PSF that is measured in pictures; the values of a PSF are light")
        return text
    ((option, paths),) = given
    if size is None:
        raise ArgumentError(f"{option} needs --size N: the rows and columns of the PSF, an odd number like 21")
    return Measurement(option, paths, size, linear)


def measure(asked: Measurement) -> PsfSource:
    """Return the PSF that pictures of points, of an edge, or of one scene sharp and blurred hold.

    Parameters
    ----------
    asked
        ``--from-points``, ``--from-edge`` or ``--from-pair`` with its files, ``--size`` and ``--linear``.

    Returns
    -------
    PsfSource
        The PSF, and notes on how well it is known.

    Raises
    ------
    ArgumentError, UnreadableFileError
        With one line that names the file: it cannot be read, or does not show what is needed.
    """
    from convpinv.imaging import psf

    planes, notes = [], []
    for path in asked.paths:
        image = images.read(path)
        notes += image.notes
        # A PSF that mixes light is none of the values that a file for the screen holds.
        light = choose(image, asked.linear)
        notes.append(f"{path}: {light.one_way}")
        pixels = light.of(image.pixels)
        if pixels.ndim == 3:
            notes.append(f"{path}: the mean of its channels was measured")
        planes.append(pixels if pixels.ndim == 2 else pixels.mean(axis=2))
    text = " ".join((asked.option, *map(str, asked.paths)))
    try:
        if asked.option == "--from-points":
            points = psf.from_points(planes[0], asked.size)
            found, error = points.psf, points.uncertainty
            left_out = "".join(f", {count} {reason}" for reason, count in points.rejected.items())
            notes.append(f"{points.count} point{'s' * (points.count > 1)} used; left out: {left_out[2:] or 'none'}")
        elif asked.option == "--from-edge":
            edge = psf.from_edge(planes[0], asked.size)
            found, error = edge.psf, edge.uncertainty
            notes.append(f"the edge is slanted by {edge.angle:.1f} degrees; the PSF is taken to be round")
        else:
            pair = psf.from_pair(planes[0], planes[1], asked.size)
            found, error = pair.psf, pair.uncertainty
            notes.append(
                f"the blurred picture lies {pair.shift[0]} rows lower and {pair.shift[1]} columns further right, which "
                f"is not in the PSF; {pair.noise:.2g} of it is unexplained"
            )
    except ArgumentError as error_of_picture:
        names = " and ".join(map(str, asked.paths))
        raise ArgumentError(f"{names}: {without_call(error_of_picture)}") from None
    share = 100 * float(error.square().mean().sqrt() / found.max())
    notes.append(f"each value is known to {share:.2g} % of the peak (one standard deviation, in the mean)")
    return PsfSource(found, text, None, tuple(notes))


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

    data = b"" if path.is_dir() else read_bytes(path)
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
