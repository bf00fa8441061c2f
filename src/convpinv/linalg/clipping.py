"""A kernel near a given one whose convolution has no singular value above a maximum."""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg import spectrum, structure
from convpinv.linalg.bounds import norm_bounds
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.correlation import valid_grid
from convpinv.linalg.leading_values import TOLERANCE
from convpinv.linalg.polyphase import coarse_kernel, kernel_of_coarse
from convpinv.linalg.precision import double_of
from convpinv.linalg.solvers.fourier import coarse_size
from convpinv.linalg.svd import norm

# Rounds of clipping and cropping. Measured for a random 3×3 kernel, 16 → 16 channels at 16², clipped at half its norm:
# after one round the norm is 1.30 times the maximum, after ten 1.04, after thirty 1.01; the rest is scaled down.
ROUNDS = 10


def clip_singular_values(operator: Convolution, maximum: float) -> Tensor:
    """Kernel whose convolution has a norm of at most ``maximum``; see :meth:`Conv2dOperator.clip_singular_values`."""
    maximum = arguments.non_negative("clip_singular_values", "maximum", maximum)
    weight = operator.weight.detach()
    if norm_bounds(operator)[1] <= maximum or guaranteed_norm(operator) <= maximum:
        return weight.clone()
    if maximum == 0.0:
        return torch.zeros_like(weight)
    precise = Convolution(weight.to(double_of(weight.dtype)), operator.geometry)
    for _ in range(ROUNDS):
        precise = Convolution(_clipped(precise, maximum), operator.geometry)
    clipped = precise.weight.to(weight.dtype)
    # Measured as it is returned, rounded to its dtype; scaling rounds again, so the last time with room for that.
    while (largest := guaranteed_norm(Convolution(clipped, operator.geometry))) > maximum:
        clipped = clipped * (maximum / largest * (1.0 - 4.0 * torch.finfo(weight.dtype).eps))
    return clipped


def guaranteed_norm(operator: Convolution) -> float:
    """Largest singular value, plus what its computation may be short of it, and never above the certified bound."""
    if structure.why_not_circular(operator) is None:
        return norm_bounds(operator)[1]
    return norm(operator) * (1.0 + 2.0 * TOLERANCE)


def _clipped(operator: Convolution, maximum: float) -> Tensor:
    """One round: clip every matrix of the symbol, and keep of the kernel what lies on its taps."""
    geometry = operator.geometry
    is_circular = structure.why_not_circular(operator) is None
    grid = coarse_size(operator) if is_circular else valid_grid(geometry)
    placed = coarse_kernel(operator.weight, geometry, grid)
    symbol = spectrum.transform(placed)
    left, values, right = spectrum.decomposed(spectrum.matrices_of(symbol))
    matrices = (left * values.clamp(max=maximum).unsqueeze(-2)) @ right
    clipped = matrices.permute(0, 2, 3, 1).reshape(symbol.shape)
    return kernel_of_coarse(spectrum.inverse_transform(clipped, grid, placed.is_complex()), geometry)
