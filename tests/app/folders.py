"""Small pictures in folders, and what the command makes of each alone."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np

# Milliseconds a picture: what is tested is what goes on around it.
OPTIONS = "--psf gaussian:sigma=0.8 --prior tikhonov --strength 0.02 --noise 0.01"


def picture(seed: int, shape: tuple[int, ...] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coded = imagecodecs.png_encode(array) if path.suffix == ".png" else imagecodecs.jpeg_encode(array, 95)
    path.write_bytes(bytes(coded))
    return path


def fill(folder: Path, count: int, shape: tuple[int, ...] = (20, 24)) -> list[str]:
    """Write that many pictures, grey and colour in turn, and return their names."""
    names = [f"p{number:03d}.png" for number in range(count)]
    for number, name in enumerate(names):
        save(folder / name, picture(number, shape if number % 2 else (*shape, 3)))
    return names


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder that are not hidden, with their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part"))
