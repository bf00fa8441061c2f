"""Convolutions as linear operators, and their pseudo-inverses. Knows nothing of pictures' meaning."""

from convpinv.linalg.geometry import boundary_source
from convpinv.linalg.operator import AdjointOperator, Conv2dOperator
from convpinv.linalg.pinv import PinvOperator
from convpinv.linalg.response import halo_within, sums_outside
from convpinv.linalg.solvers.base import Solution, Status
from convpinv.linalg.spectrum import default_rtol, fast_size

__all__ = [
    "AdjointOperator",
    "Conv2dOperator",
    "PinvOperator",
    "Solution",
    "Status",
    "boundary_source",
    "default_rtol",
    "fast_size",
    "halo_within",
    "sums_outside",
]
