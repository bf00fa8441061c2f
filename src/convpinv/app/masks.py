"""Masks: which pixels of a picture or of a stack were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convpinv.app import images, npy, signatures
from convpinv.app.files import UnreadableFileError, read_bytes
from convpinv.app.raster import Image, size_text


def read(path: Path, image: Image) -> Any:
    """Read which pixels were seen, (H, W) or (…, H, W): those that are a number other than 0 in any channel."""
    import numpy as np

    # GIS programs write masks in which 0 is the value of nodata; nothing is said of such pixels, so they were not seen.
    mask = images.read(path, gaps=True, stacks=True, axes=_axes(path, image))
    if mask.size != image.size or (mask.stack_shape and mask.stack_shape != image.stack_shape):
        sizes = f"is {size_text(mask.size)} pixels, and the picture {size_text(image.size)}"
        if mask.size == image.size:
            sizes = f"is {mask.describe()}, and the picture {image.describe()}"
        raise UnreadableFileError(path, f"{sizes}; a mask must be of the picture's size")
    seen = np.isfinite(mask.pixels) & (mask.pixels != 0)
    seen = seen.any(-1) if mask.is_colour else seen
    if not seen.any():
        raise UnreadableFileError(path, "is 0 everywhere; in a mask, what is not 0 was seen")
    return seen


def _axes(path: Path, image: Image) -> str | None:
    """Name the axes of a mask in a file that cannot: those of the picture's planes, where it has as many."""
    if path.is_dir():
        return None
    data = read_bytes(path)
    if signatures.format_in(data) != "npy" or len(npy.header(data, path)[0]) == 2:
        return None
    return image.names
