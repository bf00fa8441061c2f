"""The strength of a prior: chosen by a rule, with a receipt."""

from convpinv.imaging.regularization.measured import compared, measured_strength
from convpinv.imaging.regularization.rules import (
    DENOISERS,
    LINEAR,
    NOISE_CEILING,
    NOISE_FLOOR,
    NOISE_FLOOR_OF_IDENTITY,
    RULES,
    SPARSE,
    automatic_strength,
)
from convpinv.imaging.regularization.selection import DISAGREEMENT, StrengthChoice, StrengthSelection
from convpinv.imaging.regularization.spectrum import (
    LARGEST_VARIANCE,
    FittedSpectrum,
    PictureSpectrum,
    SpectrumFit,
    fit_spectrum,
)

__all__ = [
    "DENOISERS",
    "DISAGREEMENT",
    "LARGEST_VARIANCE",
    "LINEAR",
    "NOISE_CEILING",
    "NOISE_FLOOR",
    "NOISE_FLOOR_OF_IDENTITY",
    "RULES",
    "SPARSE",
    "FittedSpectrum",
    "PictureSpectrum",
    "SpectrumFit",
    "StrengthChoice",
    "StrengthSelection",
    "automatic_strength",
    "compared",
    "fit_spectrum",
    "measured_strength",
]
