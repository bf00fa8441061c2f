"""The priors: what is known of a picture before it is seen, and how each is solved for.

Pictures come in at unit scale with a :class:`BlurModel`, and go out as a :class:`Restoration`. ``quadratic`` holds the
priors that are one linear solve; ``splitting`` the one loop for all others, which takes its cost of differences from
``shrinkage``, its data from ``observation`` and what is known of the scene from ``constraint``; ``data_step`` the step
that a denoiser's loop is made of.
"""

from convpinv.imaging.priors.constraint import Constraint
from convpinv.imaging.priors.data_step import DataState, DataStep
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.plug_and_play import Denoiser, GivenDenoiser, NonlocalBayes, plug_and_play
from convpinv.imaging.priors.quadratic import (
    gradient,
    pseudo_inverse,
    tikhonov,
    weighted_tikhonov,
)
from convpinv.imaging.priors.restoration import Progress, Restoration
from convpinv.imaging.priors.shrinkage import HyperLaplacian, Sparsity, SquaredDifferences, TotalVariation
from convpinv.imaging.priors.splitting import CLIPPED, CONTINUATION, Problem, Schedule, minimise

__all__ = [
    "CLIPPED",
    "CONTINUATION",
    "Constraint",
    "DataState",
    "DataStep",
    "Denoiser",
    "GivenDenoiser",
    "HyperLaplacian",
    "NonlocalBayes",
    "Observation",
    "Problem",
    "Progress",
    "Restoration",
    "Schedule",
    "Sparsity",
    "SquaredDifferences",
    "TotalVariation",
    "gradient",
    "minimise",
    "plug_and_play",
    "pseudo_inverse",
    "tikhonov",
    "weighted_tikhonov",
]
