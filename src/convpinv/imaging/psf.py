"""Point spread functions: makers, measured ones, and what is wrong with them.

A PSF is the picture of one bright point. Here it is a tensor ``(h, w)``, or ``(C, h, w)`` with one PSF a channel, whose
sum is 1 (a blur moves light and makes none) and whose centre is the pixel ``(h // 2, w // 2)``, for even sizes too.
PSFs are used in a *convolution*. ``torch.nn.functional.conv2d`` correlates: whoever hands a PSF to it flips it first,
as :func:`convpinv.deblur` does at its door.
"""

from __future__ import annotations

from convpinv.imaging.psf_check import Centring, centring, from_array
from convpinv.imaging.psf_edge import EdgePsf, from_edge
from convpinv.imaging.psf_examine import examine
from convpinv.imaging.psf_finding import Examination, Finding
from convpinv.imaging.psf_makers import airy, box, defocus, gaussian, moffat, motion
from convpinv.imaging.psf_microscope import gibson_lanni
from convpinv.imaging.psf_orientation import Orientation, orientation
from convpinv.imaging.psf_pair import PairPsf, from_pair
from convpinv.imaging.psf_parse import MAKERS, parse
from convpinv.imaging.psf_placing import recentred
from convpinv.imaging.psf_points import PointsPsf, from_points

__all__ = [
    "MAKERS",
    "Centring",
    "EdgePsf",
    "Examination",
    "Finding",
    "Orientation",
    "PairPsf",
    "PointsPsf",
    "airy",
    "box",
    "centring",
    "defocus",
    "examine",
    "from_array",
    "from_edge",
    "from_pair",
    "from_points",
    "gaussian",
    "gibson_lanni",
    "moffat",
    "motion",
    "orientation",
    "parse",
    "recentred",
]
