"""JPEG, 8 bits a sample, grey and RGB, by Pillow."""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING, Any

from convpinv.app import raster
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The restored detail is what the user came for: full colour resolution, and losses below what the eye finds.
_QUALITY = 95
_XMP, _MORE_XMP, _PHOTOSHOP = (
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
    b"Photoshop 3.0\0",
)
# A segment counts its bytes with 16 bits, two of them its own.
LONGEST_XMP = 65533 - len(_XMP)
# What is kept beside EXIF and the profile, by the names that Pillow has for markers: their number, and the start of the
# content where the marker has several uses.
_KEPT = {"APP1": (0xE1, _MORE_XMP), "APP13": (0xED, _PHOTOSHOP), "COM": (0xFE, b"")}


def decode(data: bytes, path: str | os.PathLike[str]) -> Image:
    """Return the picture in the bytes of a JPEG file."""
    import numpy as np
    from PIL import Image as Pillow

    notes = []
    with quiet():
        try:
            picture = Pillow.open(io.BytesIO(data), formats=["JPEG"])
            info, mode = dict(picture.info), picture.mode
            if mode not in ("L", "RGB"):
                raise UnreadableFileError(path, f"is a JPEG in {mode}; convert it to RGB first")
            raster.check_claim(path, (picture.height, picture.width, len(mode)), 1, len(data))
            segments: list[tuple[str, bytes]] = list(getattr(picture, "applist", ()))
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                # Phones and cameras append previews and depth maps; the first picture is the photograph.
                notes.append(f"{frames} pictures in one file (MPO): the first is used, the others are left out")
            stored = np.asarray(picture)
        except (MemoryError, UnreadableFileError):
            raise
        except Pillow.DecompressionBombError:
            raise UnreadableFileError(path, "is larger than JPEG is read here; convert it to TIFF") from None
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error … on damaged files
            problem = f"is a damaged JPEG ({reason(error)}); get the file again"
            raise UnreadableFileError(path, problem) from None
    exif = info.get("exif")
    exif = exif.removeprefix(b"Exif\0\0") if exif else None
    dpi = info.get("dpi")
    return Image(
        pixels=raster.unit_range(stored),
        dtype="uint8",
        format="jpeg",
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=next((body[len(_XMP) :] for name, body in segments if name == "APP1" and body.startswith(_XMP)), None),
        orientation=raster.orientation_of(exif),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        native={
            "segments": tuple(
                (name, body) for name, body in segments if name in _KEPT and body.startswith(_KEPT[name][1])
            )
        },
        notes=tuple(notes),
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a JPEG file of stored values (H, W) or (H, W, 3)."""
    from PIL import Image as Pillow

    more: dict[str, Any] = {}
    if image.icc is not None:
        more["icc_profile"] = image.icc
    exif = raster.exif_for(image)
    if exif is not None:
        more["exif"] = b"Exif\0\0" + exif
    if image.dpi is not None:
        more["dpi"] = image.dpi
    kept = [(_KEPT[name][0], body) for name, body in _segments(image)]
    if image.xmp is not None and len(image.xmp) <= LONGEST_XMP:
        kept.insert(0, (0xE1, _XMP + image.xmp))
    more["extra"] = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in kept)
    buffer = io.BytesIO()
    Pillow.fromarray(stored).save(buffer, "JPEG", quality=_QUALITY, subsampling=0, **more)
    return buffer.getvalue()


def own_losses(image: Image) -> list[str]:
    """Name what the segments of a JPEG hold and no other format has a place for."""
    names = {name for name, _ in _segments(image)}
    words = {"APP1": "the extension of XMP", "APP13": "the Photoshop block with IPTC", "COM": "the comment"}
    return [word for name, word in words.items() if name in names]


def _segments(image: Image) -> tuple[tuple[str, bytes], ...]:
    return image.native.get("segments", ()) if image.format == "jpeg" else ()
