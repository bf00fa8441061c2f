"""PNG: pixels by libpng at their own depth, and the chunks that describe them."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

from convpinv.app import raster, signatures
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Chunks that stay true whatever happens to the pixels. Not kept: tRNS, bKGD, sBIT and hIST speak of pixel values, and
# tIME of the file.
_KEPT = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}
_INCH = 0.0254


def decode(data: bytes, path: str | os.PathLike[str]) -> Image:
    """Return the picture in the bytes of a PNG file."""
    chunks = _chunks(data, path)
    header = chunks[0][1]
    if chunks[0][0] != b"IHDR" or len(header) != 13:
        raise UnreadableFileError(path, "is a damaged PNG (no header); get the file again")
    width, height, bits, colour = struct.unpack(">IIBB", header[:10])
    raster.check_claim(path, (height, width, _CHANNELS.get(colour, 4)), max(bits // 8, 1), len(data))
    animation = next((body for name, body in chunks if name == b"acTL"), b"")
    frames = struct.unpack(">I", animation[:4])[0] if len(animation) >= 4 else 1
    if frames > 1:
        raise UnreadableFileError(path, f"is animated ({frames} frames), not supported yet; save one frame as PNG")

    import imagecodecs
    import numpy as np

    try:
        with quiet():
            stored = np.asarray(imagecodecs.png_decode(data))
    except MemoryError:
        raise
    except Exception as error:  # the codec raises its own kinds, RuntimeError and ValueError alike
        problem = f"is a damaged PNG ({reason(error)}); get the file again"
        raise UnreadableFileError(path, problem) from None

    notes = []
    if colour == 3:
        notes.append("the palette was expanded: the output is not a palette PNG")
    elif bits < 8:
        notes.append(f"the {bits}-bit grey levels were expanded: the output has 8 bits")
    exif = next((body for name, body in chunks if name == b"eXIf"), None)
    colours, alpha = raster.split_alpha(stored, path)
    return Image(
        pixels=raster.unit_range(colours),
        dtype=stored.dtype.name,
        format="png",
        alpha=alpha,
        icc=_profile(chunks),
        exif=exif,
        orientation=raster.orientation_of(exif),
        dpi=_dpi(chunks),
        native={"chunks": tuple((name, body) for name, body in chunks if name in _KEPT)},
        notes=tuple(notes),
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a PNG file of stored values (H, W) or (H, W, 2 to 4)."""
    import imagecodecs

    data = bytes(imagecodecs.png_encode(stored))
    kept = image.native["chunks"] if image.format == "png" and "chunks" in image.native else _foreign_chunks(image)
    after_header = len(signatures.PNG) + 25
    return data[:after_header] + b"".join(_chunk(name, body) for name, body in kept) + data[after_header:]


def _chunks(data: bytes, path: str | os.PathLike[str]) -> list[tuple[bytes, bytes]]:
    """Return (name, content) of every chunk but the pixels'."""
    found, position = [], len(signatures.PNG)
    while position + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            break
        if name != b"IDAT":
            found.append((name, data[position + 8 : end - 4]))
        if name == b"IEND":
            return found
        position = end
    raise UnreadableFileError(path, "is cut off (a PNG without its end); get the file again")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _profile(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    body = next((body for name, body in chunks if name == b"iCCP"), None)
    if body is None:
        return None
    try:
        return zlib.decompress(body.split(b"\0", 1)[1][1:])
    except (zlib.error, IndexError):  # a damaged profile still goes from PNG to PNG byte for byte
        return None


def _dpi(chunks: list[tuple[bytes, bytes]]) -> tuple[float, float] | None:
    body = next((body for name, body in chunks if name == b"pHYs"), b"")
    if len(body) != 9:
        return None
    across, down, unit = struct.unpack(">IIB", body)
    return (across * _INCH, down * _INCH) if unit == 1 and across and down else None


def _foreign_chunks(image: Image) -> list[tuple[bytes, bytes]]:
    """Write what came from another format as PNG's chunks."""
    made = []
    if image.icc is not None:
        made.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(image.icc)))
    if image.dpi is not None:
        made.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in image.dpi), 1)))
    exif = raster.exif_for(image)
    if exif is not None:
        made.append((b"eXIf", exif))
    return made
