"""Pictures that tests share."""

import numpy as np
import torch
from skimage import data

# What a batch may differ in from its pictures alone, for values up to 1: the real inverse FFT of MKL rounds differently
# in batches on processors with AVX-512 (4e-7 in single precision), and not at all on others.
ROUNDING = 1e-5


def photograph(height: int, width: int, top: int = 60, left: int = 180) -> torch.Tensor:
    """A part of a photograph, (1, height, width), float64, of mean 0 and deviation 1."""
    part = torch.from_numpy(data.camera()[top : top + height, left : left + width].astype("float64"))
    return ((part - part.mean()) / part.std())[None]


def random_array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def scene(size: int = 24) -> np.ndarray:
    return np.kron(np.random.default_rng(0).random((size // 6, size // 6)), np.ones((6, 6)))
