"""Pictures: point spread functions, noise, and deblurring."""

from convpinv.imaging import psf, strength
from convpinv.imaging.deblur import DeblurReport, DeblurResult, deblur
from convpinv.imaging.noise import estimate_noise
from convpinv.imaging.poisson_gaussian import PoissonGaussianNoise
from convpinv.imaging.regularization import RULES
from convpinv.imaging.resolution import Resolution, resolution
from convpinv.imaging.richardson_lucy import RichardsonLucyReport, RichardsonLucyResult, richardson_lucy
from convpinv.imaging.simulate import blur

__all__ = [
    "RULES",
    "DeblurReport",
    "DeblurResult",
    "PoissonGaussianNoise",
    "Resolution",
    "RichardsonLucyReport",
    "RichardsonLucyResult",
    "blur",
    "deblur",
    "estimate_noise",
    "psf",
    "resolution",
    "richardson_lucy",
    "strength",
]
