"""The pseudo-inverse of 2D convolutions in PyTorch, and the deblurring of pictures that stands on it.

The public names are loaded when they are first used, so that ``convpinv --help`` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convpinv import nn, testing
    from convpinv.arguments import (
        ArgumentError,
        ConvergenceError,
        ConvergenceWarning,
        ConvpinvError,
        GradientError,
        SolverRefusedError,
    )
    from convpinv.functional import conv_pinv1d, conv_pinv2d
    from convpinv.imaging import (
        DeblurReport,
        DeblurResult,
        PoissonGaussianNoise,
        RichardsonLucyReport,
        RichardsonLucyResult,
        blur,
        deblur,
        estimate_noise,
        psf,
        richardson_lucy,
    )
    from convpinv.linalg import AdjointOperator, Conv2dOperator, PinvOperator, Solution, Status

__version__ = "0.1.0"

_HOMES = {
    "AdjointOperator": "convpinv.linalg",
    "ArgumentError": "convpinv.arguments",
    "Conv2dOperator": "convpinv.linalg",
    "ConvergenceError": "convpinv.arguments",
    "ConvergenceWarning": "convpinv.arguments",
    "ConvpinvError": "convpinv.arguments",
    "DeblurReport": "convpinv.imaging",
    "DeblurResult": "convpinv.imaging",
    "GradientError": "convpinv.arguments",
    "PinvOperator": "convpinv.linalg",
    "PoissonGaussianNoise": "convpinv.imaging",
    "RichardsonLucyReport": "convpinv.imaging",
    "RichardsonLucyResult": "convpinv.imaging",
    "Solution": "convpinv.linalg",
    "SolverRefusedError": "convpinv.arguments",
    "Status": "convpinv.linalg",
    "blur": "convpinv.imaging",
    "conv_pinv1d": "convpinv.functional",
    "conv_pinv2d": "convpinv.functional",
    "deblur": "convpinv.imaging",
    "estimate_noise": "convpinv.imaging",
    "nn": "convpinv",
    "psf": "convpinv.imaging",
    "richardson_lucy": "convpinv.imaging",
    "testing": "convpinv",
}

__all__ = [
    "AdjointOperator",
    "ArgumentError",
    "Conv2dOperator",
    "ConvergenceError",
    "ConvergenceWarning",
    "ConvpinvError",
    "DeblurReport",
    "DeblurResult",
    "GradientError",
    "PinvOperator",
    "PoissonGaussianNoise",
    "RichardsonLucyReport",
    "RichardsonLucyResult",
    "Solution",
    "SolverRefusedError",
    "Status",
    "blur",
    "conv_pinv1d",
    "conv_pinv2d",
    "deblur",
    "estimate_noise",
    "nn",
    "psf",
    "richardson_lucy",
    "testing",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'convpinv' has no attribute {name!r}")
    if _HOMES[name] == "convpinv":
        return importlib.import_module(f"convpinv.{name}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
