"""FITS by astropy: the first array of a file, with its header; everything else in the file goes through untouched."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app.files import MissingExtraError, UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STORED = {8: "uint8", 16: "int16", 32: "int32", -32: "float32", -64: "float64"}
# FITS has one signedness a width; a zero point of half the range stands for the other one.
_OTHER_SIGN = {(8, -128): "int8", (16, 2**15): "uint16", (32, 2**31): "uint32"}
_BLOCK = 2880


def decode(data: bytes, path: str | os.PathLike[str], *, gaps: bool = False, axes: str | None = None) -> Image:
    """Return the picture or the stack in the bytes of a FITS file."""
    import numpy as np

    fits = _astropy(path)
    try:
        with quiet(), fits.open(io.BytesIO(data), memmap=False, disable_image_compression=True) as units:
            found, others = _first_array(units)
    except Exception as error:  # astropy raises OSError, KeyError, VerifyError, ValueError … on damaged headers
        raise UnreadableFileError(path, f"is a damaged FITS file ({reason(error)}); get the file again") from None
    if found is None:
        compressed = any(unit.get("ZIMAGE") for unit in others)
        remedy = "unpack it with funpack first" if compressed else "name a FITS file that holds a picture"
        raise UnreadableFileError(path, f"holds no array of pixels; {remedy}")
    header, start, end = found
    try:
        bits = int(header["BITPIX"])
        shape = tuple(int(header[f"NAXIS{axis}"]) for axis in range(int(header["NAXIS"]), 0, -1))
        zero, scale = float(header.get("BZERO", 0)), float(header.get("BSCALE", 1))
        mark = header.get("BLANK") if bits > 0 else None
        mark = None if mark is None else int(mark)
        declared = _names(header, len(shape))
        extensions = len(others)
    except Exception as error:
        raise UnreadableFileError(path, f"is a damaged FITS file ({reason(error)}); get the file again") from None
    if bits not in _STORED:
        raise UnreadableFileError(
            path, f"holds {bits}-bit integers; save it with BITPIX {', '.join(map(str, _STORED))}"
        )
    if any(length <= 0 for length in shape):
        raise UnreadableFileError(path, f"holds an array of shape {shape}, no pixel at all; get the file again")
    raw_type = np.dtype(_STORED[bits])
    count = math.prod(shape)
    if start + count * raw_type.itemsize > len(data):
        raise UnreadableFileError(path, "is cut off (a FITS file without all its pixels); get the file again")
    raw = np.frombuffer(data, raw_type.newbyteorder(">"), count, start).reshape(shape)
    depth = _OTHER_SIGN.get((bits, int(zero))) if scale == 1 and math.isfinite(zero) and zero == int(zero) else None
    names, notes = stack_axes.resolve(path, shape, declared, axes)
    if extensions:
        notes = (
            *notes,
            f"the first array of {extensions + 1} units in the file is used, the others go through as they are",
        )
    if depth is None and (zero != 0 or scale != 1):
        notes = (*notes, "BSCALE and BZERO stay in the header: the stored numbers are worked on")
    stored = raw if depth is None else _flipped(raw, depth)
    missing = None if mark is None else mark if depth is None else mark + int(zero)
    if missing is not None and not np.iinfo(stored.dtype).min <= missing <= np.iinfo(stored.dtype).max:
        missing = None
    native = {"header": header, "text": data[:start], "rest": data[end:], "depth": stored.dtype.name}
    return stack_axes.image_of(
        stored, path, names, gaps=gaps, format="fits", missing=missing, native=native, notes=notes
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a FITS file of stored values, with the header that the picture came with."""
    import numpy as np

    array = stack_axes.file_order(stored, image, "fits")
    if image.format != "fits":
        fits = _astropy("FITS")
        buffer = io.BytesIO()
        unit = fits.PrimaryHDU(_flipped(array, "uint8") if array.dtype == np.int8 else np.ascontiguousarray(array))
        if array.dtype == np.int8:
            unit.header["BSCALE"], unit.header["BZERO"] = 1, -128
        with quiet():
            unit.writeto(buffer)
        return buffer.getvalue()
    header, text = image.native["header"], image.native["text"]
    flipped = image.dtype in _OTHER_SIGN.values()
    raw = _flipped(array, {"int8": "uint8", "uint16": "int16", "uint32": "int32"}[image.dtype]) if flipped else array
    raw = np.ascontiguousarray(raw.astype(raw.dtype.newbyteorder(">"), copy=False)).tobytes()
    body = raw + bytes(-len(raw) % _BLOCK)
    total = str(_data_sum(body))
    changed = header.copy()
    if "window" in image.native:
        _move_window(changed, image)
    if "DATASUM" in header and str(header["DATASUM"]).strip() != total:
        changed["DATASUM"] = total
    if "CHECKSUM" in header and changed.tostring() != header.tostring():
        # It is of the header too; one that does not fit is worse than none.
        del changed["CHECKSUM"]
    elif "CHECKSUM" in header and "DATASUM" not in header:
        del changed["CHECKSUM"]
    same = changed.tostring() == header.tostring()
    before = text[: len(text) - len(header.tostring())]
    return (text if same else before + changed.tostring().encode("ascii")) + body + image.native["rest"]


def _astropy(path: str | os.PathLike[str]) -> Any:
    try:
        from astropy.io import fits
    except ImportError:
        raise MissingExtraError(f"{path}: FITS files need astropy: pip install 'convpinv[fits]'") from None
    return fits


def _first_array(units: Any) -> tuple[tuple[Any, int, int] | None, list[Any]]:
    """Return (header, start of the data, end of the data) of the first array, and the headers of all other units."""
    found, others = None, []
    for unit in units:
        header = unit.header
        place = unit.fileinfo()
        if (
            found is None
            and header.get("XTENSION", "IMAGE").strip() == "IMAGE"
            and header.get("NAXIS", 0) >= 2
            and not header.get("GROUPS")
        ):
            found = (header.copy(), int(place["datLoc"]), int(place["datLoc"]) + int(place["datSpan"]))
        elif header.get("NAXIS", 0):
            others.append(header)
    return found, others


def _names(header: Any, count: int) -> str:
    """Name the axes: FITS counts X, Y, then whatever CTYPE says: wavelengths C, times T, depth Z, others from Q on."""
    names = ["X", "Y"]
    spare = list("QRUVWABDEFGHIJKLMNOP")
    kinds = {"WAVE": "C", "FREQ": "C", "AWAV": "C", "VELO": "C", "ENER": "C", "TIME": "T", "UTC": "T"}
    for axis in range(3, count + 1):
        kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
        letter = kinds.get(kind.split("-")[0], "")
        if not letter or letter in names:
            letter = spare.pop(0)
        names.append(letter)
    return "".join(reversed(names))


def _flipped(array: NDArray[Any], depth: str) -> NDArray[Any]:
    """Turn the sign bit over, which adds or takes half the range."""
    import numpy as np

    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("=")))
    unsigned = np.dtype(f"uint{8 * native.dtype.itemsize}")
    return (native.view(unsigned) ^ unsigned.type(1 << (8 * native.dtype.itemsize - 1))).view(depth)


def _move_window(header: Any, image: Image) -> None:
    """Write the new size, and move the reference pixel of each world coordinate system with the window."""
    (height, width), (top, left) = image.size, image.native["window"]
    header["NAXIS1"], header["NAXIS2"] = width, height
    for key in list(header):
        if key.startswith("CRPIX") and key[5:6] in ("1", "2") and (len(key) == 6 or key[6:].isalpha()):
            header[key] = header[key] - (left if key[5] == "1" else top)


def _data_sum(body: bytes) -> int:
    """Sum the 32-bit words of a data unit in ones' complement, as DATASUM is defined."""
    import numpy as np

    total = int(np.frombuffer(body, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total
