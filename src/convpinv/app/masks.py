"""Masks: which pixels of a picture or of a stack were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convpinv.app import axes, images
from convpinv.app.files import UnreadableFileError
from convpinv.app.raster import Image, size_text

# Letters for a mask whose picture is not known yet; which they are is no matter then.
_ANY = "QRUVWTCZYX"


def read(path: Path, image: Image) -> Any:
    """Read which pixels were seen, (H, W) or (…, H, W): those that are a number other than 0 in any channel."""
    # A mask without names has the order of the picture's file, with its colours or with one value for all of them.
    names = image.stored_axes or image.names
    mask = _read(path, (names, names.replace("S", "")), image.describe())
    if mask.size != image.size or (mask.stack_shape and mask.stack_shape != image.stack_shape):
        sizes = f"is {size_text(mask.size)} pixels, and the picture {size_text(image.size)}"
        if mask.size == image.size:
            sizes = f"is {mask.describe()}, and the picture {image.describe()}"
        raise UnreadableFileError(path, f"{sizes}; a mask must be of the picture's size")
    return _seen(mask, path)


def check(path: Path) -> None:
    """Refuse what is a mask of no picture at all, before the pictures are read."""
    _seen(_read(path, tuple(_ANY[-count:] for count in range(3, len(_ANY) + 1)), "has fewer"), path)


def _read(path: Path, names: tuple[str, ...], picture: str) -> Image:
    """Read a mask; where its file does not name the axes, they are those of ``names`` that are as many."""
    try:
        return images.read(path, gaps=True, stacks=True)
    except axes.UnnamedAxesError as error:
        fitting = next((one for one in names if len(one) == len(error.shape)), None)
        if fitting is None:
            sizes = f"has {len(error.shape)} axes ({axes.sizes_text(error.shape)}), and the picture {picture}"
            raise UnreadableFileError(path, f"{sizes}; a mask must be of the picture's size") from None
    return images.read(path, gaps=True, stacks=True, axes=fitting)


def _seen(mask: Image, path: Path) -> Any:
    import numpy as np

    # GIS programs write masks in which 0 is the value of nodata; nothing is said of such pixels, so they were not seen.
    seen = np.isfinite(mask.pixels) & (mask.pixels != 0)
    seen = seen.any(-1) if mask.is_colour else seen
    if not seen.any():
        raise UnreadableFileError(path, "is 0 everywhere; in a mask, what is not 0 was seen")
    return seen
