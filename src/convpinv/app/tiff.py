"""TIFF by tifffile, read: grey and RGB, single pictures and stacks, with OME's and ImageJ's metadata."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app import raster
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LOSSLESS = {5: "lzw", 8: "zlib", 32946: "zlib", 32773: "packbits", 50000: "zstd"}
_ORIENTATION, _PROFILE, _EXIF, _XMP = 274, 34675, 34665, 700
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_PER_INCH = {2: 1.0, 3: 2.54}
# GDAL's text of the number that stands for "no pixel here".
_NODATA = 42113
# Tags that stay true whatever happens to the pixels: who, what, when, XMP, IPTC, ImageJ's own, and places on the earth.
# GDAL_NODATA does since what is written never has that number by chance.
_KEPT = (269, 271, 272, 285, 305, 306, 315, 316, 700, 33432, 33723, 34377, 42112, 42113, 50838, 50839)
_PLACES = (33550, 33922, 34264, 34735, 34736, 34737)


def decode(data: bytes, path: str | os.PathLike[str], *, gaps: bool = False, axes: str | None = None) -> Image:
    """Return the picture or the stack in the bytes of a TIFF file."""
    import tifffile

    with quiet():
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                return _decode(file, len(data), path, gaps, axes)
        except UnreadableFileError:
            raise
        except Exception as error:  # the codecs behind tifffile raise whatever they like on damaged data
            problem = f"is a damaged TIFF ({reason(error)}); get the file again"
            raise UnreadableFileError(path, problem) from None


def _decode(file: Any, size: int, path: str | os.PathLike[str], gaps: bool, axes: str | None) -> Image:
    import numpy as np

    if not len(file.pages):
        raise UnreadableFileError(path, "is a damaged TIFF (it holds no picture); get the file again")
    for page in file.pages:
        raster.check_claim(
            path, (page.imagelength, page.imagewidth, page.samplesperpixel), max(int(page.bitspersample) // 8, 1), size
        )
    series, notes = only_series(file, path)
    page, depth = _uniform(series, path)
    stored, declared = _array(series, page, size, path)
    extras = check_channels(page, stored.shape, path, axes)
    photometric = int(page.photometric)
    names, remarks = stack_axes.resolve(path, stored.shape, declared, axes)
    notes += remarks
    missing = nodata(page.tags, stored.dtype)
    if missing is not None:
        notes.append(nodata_note(missing))
    if depth == "bool":
        stored = stored.astype(np.uint8) * np.uint8(255)
        if photometric == _WHITE_IS_ZERO:
            stored = 255 - stored
        notes.append("the 1-bit pixels were expanded: the output has 8 bits")
    white = photometric == _WHITE_IS_ZERO and depth != "bool"
    if white:
        if stored.dtype.kind != "u":
            raise UnreadableFileError(path, "has white as zero and numbers with a sign; save it with black as zero")
        if extras:
            raise UnreadableFileError(path, "has white as zero and alpha; save it with black as zero")
        largest = np.iinfo(stored.dtype).max
        stored, missing = largest - stored, None if missing is None else int(largest) - int(missing)
    tags = page.tags
    if _EXIF in tags:
        notes.append("the EXIF directory of the TIFF is left out")
    described = [entry for entry in series.pages[1:] if entry is not None and getattr(entry, "description", "")]
    if described:
        notes.append("only the description of the first page is kept")
    orientation = int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1
    return stack_axes.image_of(
        stored,
        path,
        names,
        gaps=gaps,
        format="tiff",
        missing=missing,
        premultiplied=extras[:1] == [1],
        icc=bytes(tags[_PROFILE].value) if _PROFILE in tags else None,
        xmp=_bytes_of(tags, _XMP) or None,
        orientation=orientation if orientation in range(1, 9) else 1,
        dpi=_dpi(tags),
        native={
            "compression": _LOSSLESS.get(int(page.compression)),
            "predictor": int(page.predictor) if int(page.predictor) in (2, 3) else None,
            "planar": int(page.planarconfig) == 2,
            "tile": (int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None,
            "byteorder": file.byteorder,
            "bigtiff": bool(file.is_bigtiff),
            "description": _bytes_of(tags, 270),
            "kind": "ome" if file.is_ome else "imagej" if file.is_imagej else "",
            "declared": declared,
            "in_order": [entry.index for entry in series.pages] == list(range(len(series.pages))),
            "extrasamples": extras,
            "white_is_zero": white,
            "resolution": (tags[282].value, tags[283].value) if 282 in tags and 283 in tags else None,
            "unit": int(tags[296].value) if 296 in tags else None,
            # The expanded values of 1-bit pixels are not those that the file's nodata speaks of.
            "tags": tuple(_tag(tags, code) for code in _KEPT if code in tags and (code, depth) != (_NODATA, "bool")),
            "places": tuple(_tag(tags, code) for code in _PLACES if code in tags),
        },
        notes=tuple(notes),
    )


def nodata(tags: Any, dtype: Any) -> float | int | None:
    """Return the number by which a GeoTIFF marks pixels that are not there, as its depth stores it.

    None where the file names none, or one that no pixel of this depth can have, or NaN and infinity, which mark gaps
    in any file.
    """
    import numpy as np

    try:
        number = float(_bytes_of(tags, _NODATA).split(b"\0")[0])
    except ValueError:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            stored = float(dtype.type(number))
        return stored if math.isfinite(stored) else None
    if dtype.kind not in "ui" or not number.is_integer():
        return None
    limits = np.iinfo(dtype)
    return int(number) if limits.min <= number <= limits.max else None


def nodata_note(missing: float) -> str:
    """Say what is done about nodata."""
    return f"pixels of the value {missing:.9g} are nodata, as the file says: they count as not seen"


def beside_pixels(page: Any) -> list[str]:
    """Name what the tags of a page say that is more than its pixels."""
    tags = page.tags
    orientation = int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1
    description = _bytes_of(tags, 270).strip(b"\0 ")
    parts = {
        "the colour profile": _PROFILE in tags,
        "EXIF": _EXIF in tags,
        "the orientation": orientation != 1,
        # tifffile's own note of the shape is written anew where there is something to say.
        "the description": description and not (description.startswith(b"{") and b'"shape"' in description),
        "the places on the earth": any(code in tags for code in _PLACES),
        "GDAL_NODATA": _NODATA in tags,
    }
    return [name for name, there in parts.items() if there]


def check_channels(page: Any, shape: Sequence[int], path: str | os.PathLike[str], axes: str | None) -> list[int]:
    """Return what the samples beyond grey or RGB are; refuse what is neither, unless the user names the axes."""
    photometric, extras = int(page.photometric), [int(sample) for sample in page.extrasamples]
    colours = page.samplesperpixel - len(extras)
    if (photometric, colours) not in ((_WHITE_IS_ZERO, 1), (_BLACK_IS_ZERO, 1), (_RGB, 3), (_YCBCR, 3)):
        kind = getattr(page.photometric, "name", str(photometric)).lower()
        if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or axes is None:
            raise UnreadableFileError(
                path,
                f"is a TIFF in {kind} with {page.samplesperpixel} channels; save it as grey or RGB",
            )
    if len(extras) > 1 and axes is None:
        remedy = "save it as grey or RGB, at most with alpha, or name the axes with --axes, like --axes YXC"
        what = f"holds {page.samplesperpixel} channels in each pixel"
        raise stack_axes.UnnamedAxesError(path, tuple(shape), what, remedy)
    return extras


def only_series(file: Any, path: str | os.PathLike[str]) -> tuple[Any, list[str]]:
    """Return the one series of pages that is a picture, and notes on the smaller copies beside it."""
    # A thumbnail or a smaller level of a pyramid (bit 0 of the subfile type) is not a further picture.
    whole = [one for one in file.series if not int(one.keyframe.subfiletype) & 1]
    left_out = 0 < len(whole) < len(file.series)
    whole = whole or file.series[:1]
    if len(whole) > 1:
        raise UnreadableFileError(
            path, f"holds {len(whole)} pictures of different kinds or sizes; save one of them as a file of its own"
        )
    series = whole[0]
    return series, ["smaller copies in the file are left out"] if left_out or len(series.levels) > 1 else []


def _uniform(series: Any, path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Return the page that stands for all of a series, and the name of its depth."""
    if any(page is None for page in series.pages):
        raise UnreadableFileError(path, "lacks pages, which other files may hold; save the whole stack as one file")
    page = series.keyframe
    return page, _depth(page, path)


def _array(series: Any, page: Any, size: int, path: str | os.PathLike[str]) -> tuple[NDArray[Any], str | None]:
    """Return the array of a series and the letters that the file has for its axes; None where it says nothing."""
    import numpy as np

    itemsize = max(int(page.bitspersample) // 8, 1)
    shape = tuple(map(int, series.shape))
    if len(shape) > 2:
        raster.check_claim(path, (*shape[-2:], *shape[:-2]), itemsize, size)
    for one in series.pages:
        offsets, counts = one.dataoffsets, one.databytecounts
        if len(series.pages) == 1 and series.dataoffset is not None and page.compression == 1:
            counts = (max(sum(counts), series.nbytes),)  # ImageJ keeps large stacks behind one page
        if any(offset + count > size for offset, count in zip(offsets, counts, strict=False)):
            # tifffile fills what is missing with zeros, and nobody would know.
            raise UnreadableFileError(path, "is cut off (a TIFF without all its pixels); get the file again")
    stored = np.asarray(series.asarray(level=0, maxworkers=1))
    if stored.shape != shape or page.imagelength not in shape or page.imagewidth not in shape:
        raise UnreadableFileError(path, f"holds an array of shape {stored.shape}; save it as one grey or RGB picture")
    return stored, declared_axes(series)


def declared_axes(series: Any) -> str | None:
    """Return the letters that a file has for the axes of a series; None where it says nothing."""
    names = str(series.axes)
    if not {"Y", "X"} <= set(names) or len(set(names)) < len(names):
        return None
    others = set(names) - set("YXS")
    # tifffile's Q is "other", and I counts the pages; ImageJ means a stack by it.
    guessed = {"Q"} if series.kind in ("imagej", "ome") else {"Q", "I"}
    said = not others & guessed and series.kind != "uniform"
    if "S" in names and series.keyframe.samplesperpixel > 4:
        said = False
    return names if said or not others else None


def _depth(page: Any, path: str | os.PathLike[str]) -> str:
    """Return the name of the stored depth, and refuse what has no place in it."""
    name = "none" if page.dtype is None else page.dtype.name
    bits = int(page.bitspersample)
    if name == "bool" and bits == 1:
        return name
    if name not in raster.DEPTHS or not name.endswith(str(bits)):
        shown = f"{bits}-bit" if name in raster.DEPTHS else name
        raise UnreadableFileError(path, f"holds {shown} pixels; save it as one of {', '.join(raster.DEPTHS)}")
    return name


def _tag(tags: Any, code: int) -> tuple[int, int, int, Any]:
    """Return a tag as tifffile writes it: code, type, count, value."""
    tag = tags[code]
    raw = _bytes_of(tags, code)
    numeric = int(tag.dtype) not in (1, 2, 6, 7)
    value = tag.value if numeric else raw
    if int(tag.dtype) == 2:  # the writer ends a text by itself
        value = raw.rstrip(b"\0")
    return code, int(tag.dtype), int(tag.count), value


def _bytes_of(tags: Any, code: int) -> bytes:
    """Return the bytes of a tag as they stand in the file; tifffile turns some into texts and tables."""
    if code not in tags:
        return b""
    tag = tags[code]
    handle = tag.parent.filehandle
    handle.seek(tag.valueoffset)
    return handle.read(tag.valuebytecount)


def _dpi(tags: Any) -> tuple[float, float] | None:
    unit = int(tags[296].value) if 296 in tags else 2
    if unit not in _PER_INCH or 282 not in tags or 283 not in tags:
        return None
    both = []
    for code in (282, 283):
        numerator, denominator = tags[code].value
        if not numerator or not denominator:
            return None
        both.append(numerator / denominator * _PER_INCH[unit])
    return both[0], both[1]
