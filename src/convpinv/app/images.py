"""Pictures in files, read and written at their own depth.

The pixels travel as floating point; alpha, colour profile and EXIF travel beside them, untouched. What a file is,
its first bytes say, never its name; what a file will be, its name says, and a name that cannot hold the picture is
refused before any work starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app import raster, signatures
from convpinv.app.files import TargetError, UnreadableFileError, WriteError, read_bytes, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

READABLE = "PNG, JPEG, WebP, TIFF, FITS, NPY and Zarr"
FORMATS: Mapping[str, str] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".npy": "npy",
    ".zarr": "zarr",
}
NAMES = {
    "png": "PNG",
    "jpeg": "JPEG",
    "webp": "WebP",
    "tiff": "TIFF",
    "fits": "FITS",
    "npy": "NPY",
    "zarr": "Zarr",
}
_DEPTHS = {
    "png": ("uint8", "uint16"),
    "jpeg": ("uint8",),
    "webp": ("uint8",),
    "tiff": raster.DEPTHS,
    "fits": tuple(depth for depth in raster.DEPTHS if depth != "float16"),
    "npy": raster.DEPTHS,
    "zarr": raster.DEPTHS,
}
# Those that hold one picture and no stack.
_SINGLE = ("png", "jpeg", "webp")
# What a note calls the tags of a TIFF that no other format has. The name of the program (305) is of the file, as a
# date of change is, and no loss.
_TIFF_TAGS = {
    "the texts of the TIFF": {269, 271, 272, 285, 306, 315, 316, 33432},
    "IPTC": {33723},
    "the Photoshop block": {34377},
    "GDAL's metadata": {42112},
}
# A file is bytes; a folder is the bytes of each file in it, by its name.
Encoded = bytes | Mapping[str, bytes]


def read(
    path: str | os.PathLike[str], *, gaps: bool = False, stacks: bool = False, axes: str | None = None
) -> raster.Image:
    """Read a picture.

    Parameters
    ----------
    path
        A file, or a folder of Zarr's; its content decides what it is, not its name.
    gaps
        Whether NaN and infinity may stand for pixels that are not there.
    stacks
        Whether the file may hold more than one plane.
    axes
        One letter for each axis of the array in the file, for files that do not say; see :mod:`convpinv.app.axes`.

    Returns
    -------
    raster.Image
        The pixels and all that belongs to them.

    Raises
    ------
    UnreadableFileError
        With one line that names the file, the reason and the remedy.
    """
    from convpinv.app import ngff

    folder = os.path.isdir(path) and ngff.is_folder(path)
    data: Encoded = ngff.read_folder(path) if folder else read_bytes(path)
    try:
        image = decode(data, path, gaps=gaps, axes=axes)
    except stack_axes.UnnamedAxesError as error:
        if stacks:
            raise
        # Names would not help: whatever the axes are, there is more than one picture.
        raise UnreadableFileError(path, f"{error.what} where one picture is needed; save one plane of it") from None
    return image if stacks else stack_axes.single(image, path)


def decode(data: Encoded, path: str | os.PathLike[str], *, gaps: bool = False, axes: str | None = None) -> raster.Image:
    """Return the picture in the bytes of a file; parameters as for :func:`read`."""
    if not isinstance(data, bytes):
        from convpinv.app import ngff

        return ngff.decode(data, path, gaps=gaps, axes=axes)
    kind = signatures.format_in(data)
    if kind == "tiff":
        from convpinv.app import tiff

        return tiff.decode(data, path, gaps=gaps, axes=axes)
    if kind == "fits":
        from convpinv.app import fits

        return fits.decode(data, path, gaps=gaps, axes=axes)
    if kind == "npy":
        from convpinv.app import npy

        return npy.decode(data, path, gaps=gaps, axes=axes)
    if axes is not None and axes not in ("YX", "YXS") and kind is not None:
        raise UnreadableFileError(path, f"is a {NAMES[kind]}, which has the axes YX or YXS; leave --axes out")
    if kind == "png":
        from convpinv.app import png

        return png.decode(data, path)
    if kind == "jpeg":
        from convpinv.app import jpeg

        return jpeg.decode(data, path)
    if kind == "webp":
        from convpinv.app import webp

        return webp.decode(data, path)
    raise UnreadableFileError(path, f"{signatures.stranger(data)}; convert it to one of {READABLE}")


def encode(image: raster.Image, path: str | os.PathLike[str], *, gaps: bool = False) -> tuple[Any, int]:
    """Return the bytes of the file ``path`` for a picture, and how many pixels had to be clipped for it.

    Integer depths are rounded to the nearest level; values outside the range are clipped there, and only there. For a
    folder, its files by their names. ``gaps``: NaN may be written, where the depth has a place for it.
    """
    check_format(image, path)
    stored, clipped = stored_values(image, path, gaps=gaps)
    kind = format_of(path)
    try:
        return _encoder(kind)(stored, image), clipped
    except (OSError, ValueError, RuntimeError) as error:  # a side over 65535 pixels for JPEG, too long an EXIF block
        problem = f"cannot be written as {NAMES[kind]} ({reason(error)}); choose another format"
        raise WriteError(path, problem) from None


def _encoder(kind: str) -> Any:
    if kind == "png":
        from convpinv.app import png

        return png.encode
    if kind == "jpeg":
        from convpinv.app import jpeg

        return jpeg.encode
    if kind == "webp":
        from convpinv.app import webp

        return webp.encode
    if kind == "fits":
        from convpinv.app import fits

        return fits.encode
    if kind == "npy":
        from convpinv.app import npy

        return npy.encode
    if kind == "zarr":
        from convpinv.app import ngff

        return ngff.encode
    from convpinv.app import tiff_writing

    return tiff_writing.encode


def stored_values(image: raster.Image, path: str | os.PathLike[str], *, gaps: bool = False) -> tuple[NDArray[Any], int]:
    """Return pixels and alpha as the file stores them, samples last, and the number of clipped pixels."""
    import numpy as np

    missing = ~np.isfinite(image.pixels)
    if missing.any() and not (gaps and (image.blank is not None or not image.is_integer)):
        raise WriteError(path, "the result holds NaN or infinity; nothing was written")
    clipped = 0
    if image.is_integer:
        low, top = np.iinfo(image.dtype).min, np.iinfo(image.dtype).max
        levels = np.rint(image.pixels * top)
        if missing.any():
            levels[missing] = 0
        outside = (levels < low) | (levels > top)
        clipped = int((outside.any(axis=-1) if image.is_colour else outside).sum())
        colours = np.clip(levels, low, top).astype(image.dtype)
        if image.blank is not None:
            # No pixel that is there may look like one that is not.
            colours[colours == image.blank] = image.blank + (1 if image.blank < top else -1)
            colours[missing] = image.blank
    else:
        colours = np.asarray(image.pixels)
        largest = np.finfo(image.dtype).max
        if np.abs(colours[~missing]).max(initial=0) > largest:
            raise WriteError(
                path, f"the result exceeds {float(largest):.3g}, the largest number that {image.dtype} holds"
            )
        colours = colours.astype(image.dtype)
        # Another format has no name for the number, and NaN says the same there.
        if image.blank is not None and image.format == format_of(path):
            _mark_blank(colours, image)
    if image.alpha is None:
        return np.ascontiguousarray(colours), clipped
    samples = colours if image.is_colour else colours[..., None]
    return np.ascontiguousarray(np.concatenate([samples, image.alpha[..., None]], axis=-1)), clipped


def _mark_blank(colours: NDArray[Any], image: raster.Image) -> None:
    """Give floating-point pixels that are still not there the number that says so, and take it from all others."""
    import numpy as np

    blank = colours.dtype.type(image.blank)
    colours[colours == blank] = np.nextafter(blank, colours.dtype.type(0 if blank else 1))
    if image.blank_at is not None:
        colours[image.blank_at & np.isnan(colours)] = blank


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
    name = NAMES[kind]
    if image.dtype not in _DEPTHS[kind]:
        remedy = "name it .png or .tif" if image.dtype == "uint16" else "name it .tif"
        if kind == "fits":
            raise TargetError(path, f"the picture is {image.dtype}, which FITS does not hold; name it .tif")
        holds = " or ".join(depth.removeprefix("uint") for depth in _DEPTHS[kind])
        raise TargetError(path, f"the picture is {image.dtype} and {name} holds {holds} bits of integers; {remedy}")
    if image.axes and kind in _SINGLE:
        raise TargetError(path, f"the picture is a stack ({image.describe()}) and {name} holds one; name it .tif")
    if kind == "jpeg" and image.alpha is not None:
        raise TargetError(path, "the picture has transparency (alpha) and JPEG holds none; name it .png or .tif")


def losses(image: raster.Image, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Say what of a picture the format of another name does not hold."""
    kind = format_of(path)
    if kind == image.format:
        return ()
    name, lost = NAMES[kind], []
    bare = kind in ("npy", "zarr", "fits")
    if image.icc is not None and bare:
        lost.append("the colour profile")
    if image.exif is not None and (bare or kind == "tiff"):
        lost.append("the EXIF block" if bare else "the EXIF block but its orientation")
    if image.xmp is not None and (bare or (kind == "jpeg" and _is_long(image.xmp))):
        lost.append("XMP")
    if image.exif is None and image.orientation != 1 and bare:
        lost.append("the orientation")
    if image.dpi is not None and (bare or kind == "webp"):
        lost.append("the resolution")
    if image.blank is not None and image.is_integer:
        lost.append(f"the mark of missing pixels ({image.blank})")
    if image.axes and kind in ("npy", "fits"):
        lost.append(f"the names of the axes ({image.axes})")
    lost += _own_losses(image)
    notes = []
    if lost:
        notes.append(f"{name} has no place here for {', '.join(lost)}")
    if kind == "webp" and not image.is_colour:
        notes.append("WebP has no grey: the output is RGB with equal channels")
    if "fits" in (image.format, kind):
        notes.append(
            "rows stay in the order of the file: FITS shows the first one at the bottom, other formats at the top"
        )
    return tuple(notes)


def _own_losses(image: raster.Image) -> list[str]:
    """Name what only the picture's own format holds of it."""
    native = image.native
    if image.format == "fits":
        return ["the header with its coordinates"]
    if image.format == "zarr":
        return ["the attributes"]
    if image.format == "png":
        from convpinv.app import png

        return png.own_losses(image)
    if image.format == "jpeg":
        from convpinv.app import jpeg

        return jpeg.own_losses(image)
    if image.format == "tiff":
        said = {"ome": ["the OME-XML"], "imagej": ["ImageJ's metadata"]}.get(native.get("kind", ""), [])
        if not said and native.get("description"):
            said = ["the description"]
        codes = {tag[0] for tag in native.get("tags", ())}
        said += [words for words, tags in _TIFF_TAGS.items() if codes & tags]
        return [*said, *(["the places on the earth"] if native.get("places") else [])]
    return []


def _is_long(xmp: bytes) -> bool:
    from convpinv.app import jpeg

    return len(xmp) > jpeg.LONGEST_XMP
