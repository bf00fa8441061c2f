"""Log-determinants: against ``torch.linalg`` on the matrix."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from convpinv import Conv2dOperator
from convpinv.linalg import determinant
from linalg.matrices import BASE, mixing, random

SQUARE: dict[str, tuple[Tensor, Any, dict[str, Any]]] = {
    "circular": (random(2, 2, 3, 3), (5, 6), {"padding": 1, "padding_mode": "circular"}),
    "circular, odd": (random(3, 3, 3, 3), (5, 3), {"padding": 1, "padding_mode": "circular"}),
    "circular complex": (
        random(2, 2, 3, 2, dtype=torch.complex128),
        6,
        {"padding": "same", "padding_mode": "circular"},
    ),
    "circular groups": (random(4, 2, 3, 3), (4, 6), {"groups": 2, "padding": 1, "padding_mode": "circular"}),
    "stride 2": (random(4, 1, 3, 3), 6, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
    "stride 2, more channels": (random(12, 3, 2, 2), (6, 4), {"stride": 2}),
    "stride 3 by 2": (random(6, 1, 3, 2), (9, 6), {"stride": (3, 2)}),
    "stride 1 by 2": (random(2, 1, 1, 2), (3, 6), {"stride": (1, 2)}),
    "stride 2 by 1": (random(2, 1, 2, 1), (6, 3), {"stride": (2, 1)}),
    "stride 3": (random(9, 1, 3, 3, dtype=torch.complex128), (3, 6), {"stride": 3}),
    "separable": (mixing(torch.outer(BASE[0], BASE[1]), 3), (4, 5), {"padding": 1, "padding_mode": "reflect"}),
    "separable complex": (
        torch.outer(random(3, dtype=torch.complex128), random(3, dtype=torch.complex128, seed=1))[None, None],
        (5, 4),
        {"padding": 1},
    ),
    "dense": (random(2, 2, 3, 3), 5, {"padding": 1}),
    "dense groups": (random(4, 2, 3, 3), 5, {"groups": 2, "padding": 1, "padding_mode": "replicate"}),
    "single precision": (random(2, 2, 3, 3, dtype=torch.float32), 5, {"padding": 1, "padding_mode": "circular"}),
}


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("sign", [1, -1])
def test_determinants(name: str, sign: int) -> None:
    weight, size, options = SQUARE[name]
    if sign < 0:  # an exchange of two outputs, or a turned sign, turns the determinant's sign by another route
        weight = weight * torch.linspace(-1.0, 1.5, len(weight), dtype=weight.real.dtype)[:, None, None, None]
    operator = Conv2dOperator(weight, size, **options)
    for current in (operator, operator.H):
        expected = torch.linalg.slogdet(current.to_dense())
        found = current.slogdet()
        assert found.sign.dtype == operator.dtype
        assert found.logabsdet.dtype == operator.dtype.to_real()
        tolerance = 1e-3 if operator.dtype == torch.float32 else 1e-8
        assert float((found.sign - expected.sign).abs()) < tolerance
        assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet), abs=tolerance)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_determinants_by_the_border(mode: str) -> None:
    count = 0
    for index, ((inputs, outputs, groups, stride), taps, size) in enumerate(
        itertools.product(
            ((1, 1, 1, 1), (2, 2, 1, 1), (4, 4, 2, 1), (1, 4, 1, 2), (2, 8, 2, 2)),
            ((3, 3), (5, 3)),
            ((6, 8), (8, 6), (7, 5)),
        )
    ):
        if size[0] % stride or size[1] % stride:
            continue
        dtype = torch.complex128 if index % 2 else torch.float64
        weight = random(outputs, inputs // groups, *taps, dtype=dtype, seed=index)
        padding = (taps[0] // 2, taps[1] // 2)
        operator = Conv2dOperator(weight, size, padding=padding, stride=stride, groups=groups, padding_mode=mode)
        expected = torch.linalg.slogdet(operator.to_dense())
        found = determinant._border(operator.convolution)
        assert found is not None
        assert float((found[0] - expected.sign).abs()) < 1e-6
        assert float(found[1]) == pytest.approx(float(expected.logabsdet), abs=1e-6)
        count += 1
    assert count == 26


def test_a_determinant_too_large_to_write_down() -> None:
    operator = Conv2dOperator(random(1, 1, 3, 3), 66, padding=1)
    expected = torch.linalg.slogdet(operator.to_dense())
    found = operator.slogdet()
    assert float(found.sign) == float(expected.sign)
    assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet), rel=1e-9)


def test_signs_of_permutations() -> None:
    for order in itertools.permutations(range(5)):
        matrix = torch.eye(5, dtype=torch.float64)[list(order)]
        assert determinant.permutation_sign(torch.tensor(order)) == round(float(torch.linalg.det(matrix)))


def test_singular_determinants() -> None:
    box = Conv2dOperator(torch.ones(1, 1, 2, 1), (6, 4), padding="same", padding_mode="circular")
    assert box.slogdet() == (0.0, -float("inf"))
    # Square in all, by a tall factor and a wide one.
    oblong = Conv2dOperator(torch.ones(2, 1, 2, 3), (6, 6), stride=(2, 1), padding=(0, 1))
    assert oblong.slogdet() == (0.0, -float("inf"))
