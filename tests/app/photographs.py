"""Photographs in files, in several depths, and how much nearer to the truth a restoration comes."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

MOTION = "motion:length=9,angle=30"


def save(path: Path, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    if path.suffix == ".png":
        path.write_bytes(bytes(imagecodecs.png_encode(array)))
    else:
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None)


def load(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes()) if path.suffix == ".png" else tifffile.imread(path)


def gain(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """How many decibels nearer to the truth."""
    height, width = before.shape[:2]
    top, left = (truth.shape[0] - height) // 2, (truth.shape[1] - width) // 2
    window = truth[top : top + height, left : left + width].astype(float)
    return 10 * float(np.log10(np.mean((before - window) ** 2) / np.mean((after - window) ** 2)))


def stored(photograph: np.ndarray, depth: str) -> np.ndarray:
    """The photograph in another depth."""
    if depth == "uint8":
        return photograph
    if depth == "uint16":
        return photograph.astype(np.uint16) * 257
    return (photograph / 255).astype(depth)
