"""Kernels whose singular values are clipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convpinv import Conv2dOperator
from convpinv.linalg import svd
from convpinv.testing import conv2d_operators
from linalg.matrices import dense_values, random

CLIPPED: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {
    "circular": ((6, 4, 3, 3), (8, 9), {"padding": 1, "padding_mode": "circular"}),
    "circular, stride": ((8, 3, 3, 3), 8, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
    "circular, groups": ((6, 2, 3, 3), 8, {"groups": 3, "padding": 1, "padding_mode": "circular"}),
    "kernel larger than the picture": ((2, 2, 5, 5), 3, {"padding": 2, "padding_mode": "circular"}),
    "zeros": ((3, 3, 3, 3), 10, {"padding": 1}),
    "reflect": ((2, 2, 3, 3), 10, {"padding": 1, "padding_mode": "reflect"}),
    "strided, dilated": ((4, 2, 3, 3), 15, {"stride": 2, "dilation": 2, "padding_mode": "replicate", "padding": 1}),
    "large": ((1, 1, 5, 5), 48, {"padding": 2}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", CLIPPED)
def test_clipped_kernels_keep_below_the_maximum(name: str, dtype: torch.dtype) -> None:
    shape, size, options = CLIPPED[name]
    operator = Conv2dOperator(random(*shape, dtype=dtype), size, **options)
    largest = operator.norm()
    for share in (0.3, 0.8):
        clipped = operator.clip_singular_values(share * largest)
        assert clipped.dtype == dtype
        assert clipped.shape == operator.weight.shape
        precise = Conv2dOperator(clipped.to(torch.complex128), size, **options)
        found = float(dense_values(precise)[0]) if name != "large" else precise.norm()
        assert 0.98 * share * largest < found <= share * largest
    same = operator.clip_singular_values(1.001 * largest)
    assert torch.equal(same, operator.weight)
    assert same.data_ptr() != operator.weight.data_ptr()


def test_clipping_changes_less_than_scaling() -> None:
    operator = Conv2dOperator(random(8, 8, 3, 3), 12, padding=1, padding_mode="circular")
    clipped = operator.clip_singular_values(0.5 * operator.norm())
    assert (clipped - operator.weight).norm() < 0.9 * (0.5 * operator.weight).norm()
    # A kernel as large as the picture holds the clipped matrices exactly: nothing is cropped, nothing scaled.
    whole = Conv2dOperator(random(2, 2, 5, 5), 5, padding=2, padding_mode="circular")
    values = whole.svdvals()
    maximum = 0.6 * float(values[0])
    options = {"input_size": 5, "padding": 2, "padding_mode": "circular"}
    found = Conv2dOperator(whole.clip_singular_values(maximum), **options).svdvals()
    assert torch.allclose(found, values.clamp(max=maximum), rtol=1e-9)


@given(conv2d_operators(), st.floats(0.05, 1.5))
@settings(max_examples=40, deadline=None)
def test_any_clipped_kernel(operator: Conv2dOperator, share: float) -> None:
    maximum = share * float(dense_values(operator)[0])
    clipped = operator.clip_singular_values(maximum)
    geometry = operator.geometry
    again = svd.unit(type(operator.convolution)(clipped, geometry))
    assert float(torch.linalg.svdvals(again.operator.to_dense())[0]) * again.scale <= maximum * (1 + 1e-13)
