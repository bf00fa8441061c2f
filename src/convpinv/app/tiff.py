"""TIFF by tifffile: one grey or RGB picture, integers of 8 and 16 bits, floating point of 16, 32 and 64."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from convpinv.app import raster
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEPTHS = ("uint8", "uint16", "float16", "float32", "float64")
_LOSSLESS = {5: "lzw", 8: "zlib", 32946: "zlib", 32773: "packbits", 50000: "zstd"}
_ORIENTATION, _PROFILE = 274, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_PER_INCH = {2: 1.0, 3: 2.54}


def decode(data: bytes, path: str | os.PathLike[str], *, gaps: bool = False) -> Image:
    """Return the picture in the bytes of a TIFF file."""
    import tifffile

    with quiet():
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                return _decode(file, len(data), path, gaps)
        except (MemoryError, UnreadableFileError):
            raise
        except Exception as error:  # the codecs behind tifffile raise whatever they like on damaged data
            problem = f"is a damaged TIFF ({reason(error)}); get the file again"
            raise UnreadableFileError(path, problem) from None


def _decode(file: Any, size: int, path: str | os.PathLike[str], gaps: bool) -> Image:
    import numpy as np

    if not len(file.pages):
        raise UnreadableFileError(path, "is a damaged TIFF (it holds no picture); get the file again")
    # A thumbnail or a smaller level of a pyramid (bit 0 of the subfile type) is not a further picture.
    pages = [page for page in file.pages if not int(page.subfiletype) & 1]
    notes = ["smaller copies in the file are left out"] if 0 < len(pages) < len(file.pages) else []
    count = max(len(pages), _planes(file))
    if count > 1:
        raise UnreadableFileError(path, f"holds {count} pages, not supported yet; save one page as a file of its own")
    page = pages[0] if pages else file.pages[0]
    photometric, depth = int(page.photometric), _depth(page, path)
    raster.check_claim(
        path, (page.imagelength, page.imagewidth, page.samplesperpixel), max(int(page.bitspersample) // 8, 1), size
    )
    extras = [int(sample) for sample in page.extrasamples]
    colours = page.samplesperpixel - len(extras)
    if (photometric, colours) not in ((_WHITE_IS_ZERO, 1), (_BLACK_IS_ZERO, 1), (_RGB, 3), (_YCBCR, 3)):
        kind = getattr(page.photometric, "name", str(photometric)).lower()
        raise UnreadableFileError(
            path, f"is a TIFF in {kind} with {page.samplesperpixel} channels; save it as grey or RGB"
        )
    if len(extras) > 1:
        raise UnreadableFileError(
            path, f"holds {page.samplesperpixel} channels; save it as grey or RGB, at most with alpha"
        )
    if any(offset + length > size for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False)):
        # tifffile fills what is missing with zeros, and nobody would know.
        raise UnreadableFileError(path, "is cut off (a TIFF without all its pixels); get the file again")

    stored = np.asarray(page.asarray())
    if stored.ndim == 3 and int(page.planarconfig) == 2:
        stored = np.moveaxis(stored, 0, -1)
    if stored.shape[:2] != (page.imagelength, page.imagewidth):
        raise UnreadableFileError(path, f"holds an array of shape {stored.shape}; save it as one grey or RGB picture")
    if depth == "bool":
        stored, depth = stored.astype(np.uint8) * np.uint8(255), "uint8"
        notes.append("the 1-bit pixels were expanded: the output has 8 bits")
    values, alpha = raster.split_alpha(stored.astype(stored.dtype.newbyteorder("=")), path)
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad and (not gaps or bad == np.size(values)):
        raise UnreadableFileError(path, f"holds {bad} values that are NaN or infinite; fill them in first")
    if photometric == _WHITE_IS_ZERO:
        if values.dtype.kind != "u":
            raise UnreadableFileError(path, "is floating point with white as zero; save it with black as zero")
        values = np.iinfo(values.dtype).max - values
    tags = page.tags
    orientation = int(tags[_ORIENTATION].value) if _ORIENTATION in tags else 1
    return Image(
        pixels=raster.unit_range(values),
        dtype=depth,
        format="tiff",
        alpha=alpha,
        premultiplied=extras[:1] == [1],
        icc=bytes(tags[_PROFILE].value) if _PROFILE in tags else None,
        orientation=orientation if orientation in range(1, 9) else 1,
        dpi=_dpi(tags),
        native={
            "compression": _LOSSLESS.get(int(page.compression)),
            "description": page.description,
            "extrasamples": extras,
        },
        notes=tuple(notes),
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a TIFF file of stored values (H, W) or (H, W, 2 to 4)."""
    import tifffile

    native = image.native if image.format == "tiff" else {}
    more: dict[str, Any] = {"compression": native.get("compression"), "software": "convpinv"}
    if image.alpha is not None:
        more["extrasamples"] = native.get("extrasamples") or [1 if image.premultiplied else 2]
        more["planarconfig"] = "contig"
    elif stored.ndim == 3:
        more["planarconfig"] = "contig"
    if image.dpi is not None:
        more.update(resolution=image.dpi, resolutionunit="inch")
    description = native.get("description")
    if description:
        more["description"] = description.encode() if isinstance(description, str) else description
    if image.orientation != 1:
        more["extratags"] = [(_ORIENTATION, "H", 1, image.orientation, True)]
    buffer = io.BytesIO()
    photometric = "minisblack" if image.pixels.ndim == 2 else "rgb"
    tifffile.imwrite(buffer, stored, photometric=photometric, iccprofile=image.icc, metadata=None, **more)
    return buffer.getvalue()


def _depth(page: Any, path: str | os.PathLike[str]) -> str:
    """Return the name of the stored depth, and refuse what has no place in it."""
    name = "none" if page.dtype is None else page.dtype.name
    bits = int(page.bitspersample)
    if name == "bool" and bits == 1:
        return name
    if name not in _DEPTHS or not name.endswith(str(bits)):
        shown = f"{bits}-bit" if name in _DEPTHS else name
        raise UnreadableFileError(path, f"holds {shown} pixels; save it as one of {', '.join(_DEPTHS)}")
    return name


def _planes(file: Any) -> int:
    """Return how many planes the first series claims: ImageJ keeps large stacks behind one page."""
    shape, axes = file.series[0].shape, file.series[0].axes
    count = 1
    for length, axis in zip(shape, axes, strict=True):
        if axis not in "YXS":
            count *= int(length)
    return count


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
