"""Photographs that a shaken camera has taken, the truth under them, and how near to it a picture is."""

import math

import numpy as np
from skimage import data

from convpinv.imaging import blur, psf

MOTION = psf.motion(11, 30)


def photograph(size=128, top=130, left=190):
    return data.camera()[top : top + size, left : left + size] / 255.0


def seen_part(scene, kernel, like):
    """Cut out of the scene what the valid convolution is centred on."""
    top, left = (k - 1 - k // 2 for k in kernel.shape)
    return scene[top : top + like.shape[0], left : left + like.shape[1]]


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


def frame(picture, width=8):
    inside = np.zeros(picture.shape, bool)
    inside[width:-width, width:-width] = True
    return picture[~inside]


def case(kernel=MOTION, noise=0.01, boundary="unknown", scene=None, seed=0):
    """Return a blurred picture and the truth under it."""
    scene = photograph() if scene is None else scene
    blurred = blur(scene, kernel, noise=noise, seed=seed, boundary="valid" if boundary == "unknown" else boundary)
    return blurred, seen_part(scene, kernel, blurred) if boundary == "unknown" else scene
