"""Pictures that tests share."""

import torch
from skimage import data


def photograph(height: int, width: int, top: int = 60, left: int = 180) -> torch.Tensor:
    """A part of a photograph, (1, height, width), float64, of mean 0 and deviation 1."""
    part = torch.from_numpy(data.camera()[top : top + height, left : left + width].astype("float64"))
    return ((part - part.mean()) / part.std())[None]
