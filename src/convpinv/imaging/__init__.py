"""Pictures: point spread functions, noise, and deblurring."""

from convpinv.imaging import psf, strength
from convpinv.imaging.agreement import Agreement, agree
from convpinv.imaging.deblur import DeblurReport, DeblurResult, deblur
from convpinv.imaging.noise import estimate_noise
from convpinv.imaging.poisson_gaussian import PoissonGaussianNoise
from convpinv.imaging.reach import Reach, reach
from convpinv.imaging.regularization import RULES
from convpinv.imaging.resolution import Resolution, resolution
from convpinv.imaging.richardson_lucy import RichardsonLucyReport, RichardsonLucyResult, richardson_lucy
from convpinv.imaging.simulate import blur
from convpinv.imaging.tiling import PartRestorer, border_gap, window_length

__all__ = [
    "RULES",
    "Agreement",
    "DeblurReport",
    "DeblurResult",
    "PartRestorer",
    "PoissonGaussianNoise",
    "Reach",
    "Resolution",
    "RichardsonLucyReport",
    "RichardsonLucyResult",
    "agree",
    "blur",
    "border_gap",
    "deblur",
    "estimate_noise",
    "psf",
    "reach",
    "resolution",
    "richardson_lucy",
    "strength",
    "window_length",
]
