"""Arrays of every layout and depth, and their way through reading and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convpinv.app import images, outputs, raster

SHAPES = {"grey": (21, 34), "grey+alpha": (21, 34, 2), "RGB": (21, 34, 3), "RGB+alpha": (21, 34, 4)}


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(7)
    if np.dtype(dtype).kind == "f":
        # Beyond [0, 1] and negative: floating point keeps what it holds.
        return (random.standard_normal(shape) * 300).astype(dtype)
    top = np.iinfo(dtype).max
    made = random.integers(0, top + 1, shape, dtype=dtype)
    made[0, 0], made[0, 1] = 0, top  # every channel reaches both ends
    return made


def through(source: Path, target: Path) -> raster.Image:
    """Read a file and write what was read."""
    image = images.read(source)
    data, clipped = images.encode(image, target)
    assert clipped == 0
    outputs.write_all({target: data})
    return image
