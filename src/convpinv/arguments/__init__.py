"""The one door for arguments: normalise, check, raise.

Past this door everything is well-formed, and no other module checks again. Every message names the public
call, the argument, what it was, and what it may be.
"""

from convpinv.arguments.errors import (
    ArgumentError,
    ConvergenceError,
    ConvergenceWarning,
    ConvpinvError,
    KernelGradientError,
    SolverRefusedError,
    called,
    describe,
    fail,
)
from convpinv.arguments.numbers import (
    Boundary,
    IntegerPair,
    boundary,
    choice,
    finite,
    integer_pair,
    non_negative,
    odd_size,
    optional_non_negative,
    padding,
    positive,
    positive_integer,
    seed,
)
from convpinv.arguments.pictures import Pictures, noise_levels, pictures, psf, psf_fits, result_fits
from convpinv.arguments.tensors import (
    SUPPORTED_DTYPES,
    all_finite,
    converted_kernel,
    images,
    kernel,
    kernel_batch,
    kernel_batch_images,
    real_tensor,
)

__all__ = [
    "SUPPORTED_DTYPES",
    "ArgumentError",
    "Boundary",
    "ConvergenceError",
    "ConvergenceWarning",
    "ConvpinvError",
    "IntegerPair",
    "KernelGradientError",
    "Pictures",
    "SolverRefusedError",
    "all_finite",
    "boundary",
    "called",
    "choice",
    "converted_kernel",
    "describe",
    "fail",
    "finite",
    "images",
    "integer_pair",
    "kernel",
    "kernel_batch",
    "kernel_batch_images",
    "noise_levels",
    "non_negative",
    "odd_size",
    "optional_non_negative",
    "padding",
    "pictures",
    "positive",
    "positive_integer",
    "psf",
    "psf_fits",
    "real_tensor",
    "result_fits",
    "seed",
]
