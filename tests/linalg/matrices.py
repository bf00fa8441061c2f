"""Kernels at random and of many equal singular values, and the values of their matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from convpinv import Conv2dOperator

BASE = torch.tensor([[0.9, -0.3, 0.4], [0.1, 1.0, -0.7], [0.5, 0.2, -0.6]], dtype=torch.float64)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit_operator(weight: Tensor, size: int, mode: str, padding: int) -> Conv2dOperator:
    """Scale an operator to norm 1, to a few per cent."""
    operator = Conv2dOperator(weight, size, padding=padding, padding_mode=mode)
    return Conv2dOperator(weight / operator.norm_bounds()[0], size, padding=padding, padding_mode=mode)


def mixing(kernel: Tensor, channels: int) -> Tensor:
    """Kernel times an orthogonal channel matrix: every singular value as often as there are channels."""
    orthogonal = torch.linalg.qr(random(channels, channels))[0]
    return torch.einsum("oc,tu->octu", orthogonal, kernel)


def dense_values(operator: Conv2dOperator) -> Tensor:
    return torch.linalg.svdvals(operator.to_dense())
