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
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp\0"
# What a format that says nothing of its colours is taken to have: the white and the primaries of sRGB, in 1e-5.
_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


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
        xmp=_xmp(chunks),
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


def own_losses(image: Image) -> list[str]:
    """Name what the chunks of a PNG say and no other format has a place for."""
    chunks = image.native.get("chunks", ())
    found = dict(chunks)
    lost = []
    if any(name in _TEXTS and not (body.startswith(_XMP) and image.xmp is not None) for name, body in chunks):
        lost.append("the texts of the PNG")
    if b"iCCP" in found and image.icc is None:
        lost.append("the colour profile, which is damaged")
    code = found.get(b"cICP", b"")
    if len(code) == 4:
        if code[:2] != b"\x01\x0d":  # sRGB
            lost.append("the colour space (cICP)")
    elif image.icc is None and b"sRGB" not in found:
        if len(found.get(b"gAMA", b"")) == 4 and abs(struct.unpack(">I", found[b"gAMA"])[0] - 45455) > 1000:
            lost.append("the gamma (gAMA)")
        if len(found.get(b"cHRM", b"")) == 32:
            corners = zip(struct.unpack(">8I", found[b"cHRM"]), _SRGB, strict=True)
            if any(abs(value - usual) > 100 for value, usual in corners):
                lost.append("the primaries (cHRM)")
    if b"mDCV" in found or b"cLLI" in found:
        lost.append("the brightness of its display (mDCV, cLLI)")
    across, down = struct.unpack(">II", found[b"pHYs"][:8]) if len(found.get(b"pHYs", b"")) == 9 else (1, 1)
    if image.dpi is None and across != down:
        lost.append("the shape of its pixels (pHYs)")
    return lost


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


def _xmp(chunks: list[tuple[bytes, bytes]]) -> bytes | None:
    body = next((body for name, body in chunks if name == b"iTXt" and body.startswith(_XMP)), None)
    if body is None:
        return None
    try:
        packed, rest = body[len(_XMP)], body[len(_XMP) + 2 :]
        text = rest.split(b"\0", 2)[2]  # behind two names of languages
        return zlib.decompress(text) if packed else text
    except (zlib.error, IndexError):  # a damaged text still goes from PNG to PNG byte for byte
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
    if image.xmp is not None:
        made.append((b"iTXt", _XMP + b"\0\0\0\0" + image.xmp))
    return made
