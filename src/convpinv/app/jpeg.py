"""JPEG, 8 bits a sample, grey and RGB, by Pillow."""

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

# The restored detail is what the user came for: full colour resolution, and losses below what the eye finds.
_QUALITY = 95


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
        orientation=raster.orientation_of(exif),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
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
    buffer = io.BytesIO()
    Pillow.fromarray(stored).save(buffer, "JPEG", quality=_QUALITY, subsampling=0, **more)
    return buffer.getvalue()
