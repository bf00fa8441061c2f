"""Pictures in files: PNG, JPEG and TIFF, read and written at their own depth.

The pixels travel as floating point; alpha, colour profile and EXIF travel beside them, untouched. What a file is,
its first bytes say, never its name; what a file will be, its name says, and a name that cannot hold the picture is
refused before any work starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import raster, signatures
from convpinv.app.files import TargetError, UnreadableFileError, WriteError, read_bytes, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

READABLE = "PNG, JPEG and TIFF"
FORMATS: Mapping[str, str] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"}
_NAMES = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF"}
_DEPTHS = {
    "png": raster.INTEGER_DEPTHS,
    "jpeg": ("uint8",),
    "tiff": (*raster.INTEGER_DEPTHS, "float16", "float32", "float64"),
}


def read(path: str | os.PathLike[str], *, gaps: bool = False) -> raster.Image:
    """Read a picture.

    Parameters
    ----------
    path
        A PNG, JPEG or TIFF file; its content decides, not its name.
    gaps
        Whether NaN and infinity may stand for pixels that are not there.

    Returns
    -------
    raster.Image
        The pixels and all that belongs to them.

    Raises
    ------
    UnreadableFileError
        With one line that names the file, the reason and the remedy.
    """
    data = read_bytes(path)
    kind = signatures.format_in(data)
    if kind == "png":
        from convpinv.app import png

        return png.decode(data, path)
    if kind == "jpeg":
        from convpinv.app import jpeg

        return jpeg.decode(data, path)
    if kind == "tiff":
        from convpinv.app import tiff

        return tiff.decode(data, path, gaps=gaps)
    raise UnreadableFileError(path, f"{signatures.stranger(data)}; convert it to one of {READABLE}")


def encode(image: raster.Image, path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return the bytes of the file ``path`` for a picture, and how many pixels had to be clipped for it.

    Integer depths are rounded to the nearest level; values outside [0, 1] are clipped there, and only there.
    """
    check_format(image, path)
    stored, clipped = stored_values(image, path)
    kind = format_of(path)
    try:
        if kind == "png":
            from convpinv.app import png

            return png.encode(stored, image), clipped
        if kind == "jpeg":
            from convpinv.app import jpeg

            return jpeg.encode(stored, image), clipped
        from convpinv.app import tiff

        return tiff.encode(stored, image), clipped
    except (OSError, ValueError, RuntimeError) as error:  # a side over 65535 pixels for JPEG, too long an EXIF block
        problem = f"cannot be written as {_NAMES[kind]} ({reason(error)}); choose another format"
        raise WriteError(path, problem) from None


def stored_values(image: raster.Image, path: str | os.PathLike[str]) -> tuple[NDArray[Any], int]:
    """Return pixels and alpha as the file stores them, (H, W) or (H, W, C), and the number of clipped pixels."""
    import numpy as np

    if not np.isfinite(image.pixels).all():
        raise WriteError(path, "the result holds NaN or infinity; nothing was written")
    clipped = 0
    if image.is_integer:
        top = np.iinfo(image.dtype).max
        levels = np.rint(image.pixels * top)
        outside = (levels < 0) | (levels > top)
        clipped = int((outside if outside.ndim == 2 else outside.any(axis=-1)).sum())
        colours = np.clip(levels, 0, top).astype(image.dtype)
    else:
        colours = np.asarray(image.pixels)
        largest = np.finfo(image.dtype).max
        if np.abs(colours).max(initial=0) > largest:
            raise WriteError(
                path, f"the result exceeds {float(largest):.3g}, the largest number that {image.dtype} holds"
            )
        colours = colours.astype(image.dtype)
    whole = colours if image.alpha is None else np.dstack([colours, image.alpha])
    return np.ascontiguousarray(whole), clipped


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that a file's name asks for."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        has = f"the ending {suffix!r} is not one that is written" if suffix else "the name has no ending"
        raise TargetError(path, f"{has}; name it {', '.join(FORMATS)}")
    return FORMATS[suffix]


def check_format(image: raster.Image, path: str | os.PathLike[str]) -> None:
    """Refuse an output name whose format cannot hold the picture."""
    kind = format_of(path)
    name = _NAMES[kind]
    if image.dtype not in _DEPTHS[kind]:
        remedy = "name it .png or .tif" if image.is_integer else "name it .tif"
        holds = " or ".join(depth.removeprefix("uint") for depth in _DEPTHS[kind])
        raise TargetError(path, f"the picture is {image.dtype} and {name} holds {holds} bits of integers; {remedy}")
    if kind == "jpeg" and image.alpha is not None:
        raise TargetError(path, "the picture has transparency (alpha) and JPEG holds none; name it .png or .tif")
