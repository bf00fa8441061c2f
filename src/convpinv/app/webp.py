"""WebP, 8 bits a sample, RGB with or without alpha, by Pillow."""

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


def decode(data: bytes, path: str | os.PathLike[str]) -> Image:
    """Return the picture in the bytes of a WebP file."""
    import numpy as np
    from PIL import Image as Pillow

    with quiet():
        try:
            picture = Pillow.open(io.BytesIO(data), formats=["WEBP"])
            info, mode = dict(picture.info), picture.mode
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise UnreadableFileError(path, f"is animated ({frames} frames), not supported; save one as a picture")
            raster.check_claim(path, (picture.height, picture.width, len(mode)), 1, len(data))
            if mode not in ("RGB", "RGBA"):
                picture = picture.convert("RGB")
            stored = np.asarray(picture)
        except UnreadableFileError:
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError … on damaged files
            problem = f"is a damaged WebP ({reason(error)}); get the file again"
            raise UnreadableFileError(path, problem) from None
    exif = info.get("exif")
    exif = exif.removeprefix(b"Exif\0\0") if exif else None
    colours, alpha = raster.split_alpha(stored, path)
    return Image(
        pixels=raster.unit_range(colours),
        dtype="uint8",
        format="webp",
        alpha=alpha,
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=info.get("xmp") or None,
        orientation=raster.orientation_of(exif),
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a lossless WebP file of stored values (H, W) or (H, W, 2 to 4)."""
    import numpy as np
    from PIL import Image as Pillow

    if not image.is_colour:  # WebP has no grey
        grey = stored[..., :1] if stored.ndim == 3 else stored[..., None]
        stored = np.concatenate([grey, grey, grey, *([stored[..., 1:]] if stored.ndim == 3 else [])], axis=-1)
    more: dict[str, Any] = {}
    if image.icc is not None:
        more["icc_profile"] = image.icc
    exif = raster.exif_for(image)
    if exif is not None:
        more["exif"] = exif
    if image.xmp is not None:
        more["xmp"] = image.xmp
    buffer = io.BytesIO()
    # Lossless: a coder that smooths would take back what was restored. exact keeps colours below full transparency.
    Pillow.fromarray(np.ascontiguousarray(stored)).save(buffer, "WEBP", lossless=True, exact=True, **more)
    return buffer.getvalue()
