"""Krylov where the squares of kernels, dampings or data are no numbers: the same answers, scaled."""

from __future__ import annotations

import pytest
import torch

from convpinv import Conv2dOperator, Status
from convpinv.testing import random_images

SCALES = {
    torch.float32: (1e-30, 1e-20, 1e18, 1e30),
    torch.float64: (1e-300, 1e-200, 1e-80, 1e78, 1e150, 1e290),
    torch.complex128: (1e-200, 1e-80, 1e78, 1e150),
}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]


def operator_of(dtype: torch.dtype, padding: int) -> Conv2dOperator:
    weight = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return Conv2dOperator(weight, (20, 22), padding=padding)


# A damping of more than 1e150 is refused.
@pytest.mark.parametrize(
    ("dtype", "scale", "damp"),
    [(dtype, scale, damp) for dtype, scale in CASES for damp in (0.0, 0.1) if damp * scale <= 1e150],
    ids=str,
)
@pytest.mark.parametrize("padding", [0, 2])
def test_kernels(dtype: torch.dtype, scale: float, padding: int, damp: float) -> None:
    operator = operator_of(dtype, padding)
    y = random_images(operator.out_shape, operator, batch=2)
    expected = operator.pinv(damp=damp, solver="krylov").solve(y)
    scaled = Conv2dOperator(operator.weight * scale, (20, 22), padding=padding)
    found = scaled.pinv(damp=damp * scale, solver="krylov").solve(y)
    assert found.status is expected.status is Status.CONVERGED
    bound = 1e-6 if dtype is not torch.float32 else 1e-4
    assert (found.value * scale - expected.value).norm() <= bound * expected.value.norm()


@pytest.mark.parametrize(("dtype", "scale"), CASES, ids=str)
@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("damp", [0.0, 0.1])
@pytest.mark.parametrize("adjoint", [False, True])
def test_data(dtype: torch.dtype, scale: float, padding: int, damp: float, adjoint: bool) -> None:
    operator = operator_of(dtype, padding)
    inverse = operator.pinv(damp=damp, solver="krylov")
    if adjoint:
        inverse = inverse.H
    y = random_images(operator.in_shape if adjoint else operator.out_shape, operator, batch=2)
    y[1] *= 1e-5  # each picture has a size of its own
    expected, found = inverse.solve(y), inverse.solve(y * scale)
    assert found.status is expected.status is Status.CONVERGED
    error = (found.value / scale - expected.value).flatten(1).norm(dim=1)
    assert bool((error <= 1e-6 * expected.value.flatten(1).norm(dim=1)).all())
