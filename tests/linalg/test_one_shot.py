"""The short way of conv_pinv2d against the general one: the same numbers, the same errors, and nobody left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator, conv_pinv2d
from convpinv.linalg import one_shot
from linalg.matrices import random

# Name: weight's shape, the call's arguments, and whether the short way serves them.
CALLS: dict[str, tuple[tuple[int, ...], dict[str, Any], bool]] = {
    "one channel": ((1, 1, 3, 3), {"padding": "same", "padding_mode": "circular"}, True),
    "even taps": ((1, 1, 4, 2), {"padding": "same", "padding_mode": "circular", "damp": 0.1}, True),
    "channels": ((3, 2, 3, 3), {"padding": 1, "padding_mode": "circular", "damp": 0.1}, True),
    "groups": ((4, 1, 3, 3), {"padding": 1, "padding_mode": "circular", "groups": 4, "rtol": 1e-3}, True),
    "stride": ((4, 1, 3, 3), {"padding": 1, "padding_mode": "circular", "stride": 2}, True),
    "dilated": ((1, 1, 3, 3), {"padding": (2, 2), "padding_mode": "circular", "dilation": 2, "atol": 0.1}, True),
    "asked for": ((1, 1, 3, 3), {"padding": 1, "padding_mode": "circular", "solver": "fourier"}, True),
    "zeros": ((1, 1, 3, 3), {"padding": 1}, False),
    "another solver": ((1, 1, 3, 3), {"padding": 1, "padding_mode": "circular", "solver": "dense"}, False),
}
CIRCULAR: dict[str, Any] = {"padding": 1, "padding_mode": "circular"}
NORMAL_ORDER = ("stride", "padding", "dilation", "groups")


def shortly(y: Any, weight: Any, size: Any, **options: Any) -> Tensor | None:
    given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "padding_mode": "zeros", "solver": "auto"} | options
    sizes = (size, *(given[name] for name in NORMAL_ORDER))
    numbers = (given.get("damp", 0.0), given.get("atol"), given.get("rtol"))
    return one_shot.solve_as_before(y, weight, sizes, (given["padding_mode"], given["solver"]), numbers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("case", CALLS)
def test_as_the_general_way(case: str, dtype: torch.dtype) -> None:
    shape, options, serves = CALLS[case]
    weight, size = random(*shape, dtype=dtype), (12, 16)
    places = {name: value for name, value in options.items() if name not in ("damp", "atol", "rtol", "solver")}
    operator = Conv2dOperator(weight, size, **places)
    inverse = operator.pinv(**{name: value for name, value in options.items() if name not in places})
    for leading in ((), (2,), (2, 3)):
        y = random(*leading, *operator.out_shape, dtype=dtype)
        found = shortly(y, weight, size, **options)
        assert (found is not None) == serves
        expected = inverse(y)
        assert conv_pinv2d(y, weight, size, **options).shape == expected.shape
        torch.testing.assert_close(conv_pinv2d(y, weight, size, **options), expected)
    if weight.shape[:2] == (1, 1):  # each channel alone
        y = random(5, *operator.out_shape[1:], dtype=dtype)
        torch.testing.assert_close(conv_pinv2d(y, weight, torch.Size(size), **options), inverse(y))


def test_results_are_contiguous_whatever_the_data_are() -> None:
    weight = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    for y in (torch.rand(3, 2, 40, 40).permute(1, 0, 2, 3), torch.rand(1, 3, 40, 40).expand(2, 3, 40, 40)):
        assert conv_pinv2d(y, weight, 40, **CIRCULAR, damp=0.1).is_contiguous()


@pytest.mark.parametrize(("dtype", "damp"), [(torch.float32, 1e-23), (torch.float64, 1e-170)], ids=str)
def test_a_damping_whose_square_is_zero_divides_by_nothing(dtype: torch.dtype, damp: float) -> None:
    weight, y = torch.tensor([[[[1.0, -1.0]]]], dtype=dtype), random(1, 40, 40, dtype=dtype)
    options: dict[str, Any] = {"padding": "same", "padding_mode": "circular"}
    assert conv_pinv2d(y, weight, 40, **options, damp=damp, rtol=0.0).isfinite().all()
    assert Conv2dOperator(weight, 40, **options).pinv(damp=damp, rtol=0.0)(y).isfinite().all()


def test_each_call_has_its_own_kernel() -> None:
    """What is remembered is the kind of the call, never its numbers."""
    y = random(1, 10, 10)
    for seed in range(3):
        weight = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        expected = Conv2dOperator(weight, 10, **CIRCULAR).pinv(damp=0.1)(y)
        torch.testing.assert_close(conv_pinv2d(y, weight, 10, **CIRCULAR, damp=0.1), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stride": True}, "stride"),
        ({"stride": 1.0}, "stride"),
        ({"input_size": (10, 10.0)}, "input_size"),
        ({"groups": True}, "groups"),
        ({"damp": True}, "damp"),
        ({"damp": -1.0}, "damp"),
        ({"damp": float("nan")}, "damp"),
        ({"rtol": "1"}, "rtol"),
        ({"solver": "fast"}, "solver"),
        ({"padding_mode": "wrap"}, "padding_mode"),
        ({"y": torch.full((1, 10, 10), torch.nan, dtype=torch.float64)}, "not finite"),
        ({"y": torch.full((1, 10, 10), torch.inf, dtype=torch.float64)}, "not finite"),
        ({"weight": torch.full((1, 1, 3, 3), torch.nan, dtype=torch.float64)}, "not finite"),
        ({"weight": torch.full((2, 2, 3, 3), torch.inf, dtype=torch.float64)}, "not finite"),
        ({"y": torch.ones(1, 9, 10, dtype=torch.float64)}, "(10, 10)"),
        ({"y": torch.ones(1, 10, 10)}, "float32"),
        ({"y": [[1.0]]}, "y"),
        ({"weight": None}, "weight"),
        ({"y": torch.ones(1, 10, 10, device="meta", dtype=torch.float64)}, "meta"),
    ],
)
def test_errors_come_from_one_place(change: dict[str, Any], words: str) -> None:
    """The right call comes first and is remembered; the wrong one, equal to it or not, is refused as ever."""
    channels = change["weight"].shape[1] if isinstance(change.get("weight"), Tensor) else 1
    given: dict[str, Any] = {
        "y": random(channels, 10, 10),
        "weight": random(channels, channels, 3, 3),
        "input_size": (10, 10),
        "stride": 1,
        "groups": 1,
        "damp": 1.0,
        **CIRCULAR,
    }
    assert conv_pinv2d(**given).shape == (channels, 10, 10)
    with pytest.raises(convpinv.ArgumentError, match=words.replace("(", r"\(").replace(")", r"\)")):
        conv_pinv2d(**given | change)


def test_what_is_watched_goes_the_general_way() -> None:
    y, weight = random(1, 8, 8), random(1, 1, 3, 3) + 3.0
    options = {**CIRCULAR, "damp": 0.1}
    assert shortly(y, weight, 8, **options) is not None
    assert shortly(y.clone().requires_grad_(), weight, 8, **options) is None
    parameter = torch.nn.Parameter(weight.clone())
    assert shortly(y, parameter, 8, **options) is None
    with torch.no_grad():
        assert shortly(y, parameter, 8, **options) is not None
    with torch.autograd.forward_ad.dual_level():
        assert shortly(y, weight, 8, **options) is None
    with torch.autocast("cpu"):
        assert shortly(y, weight, 8, **options) is None
    assert shortly(y, weight, 8, **options | {"damp": torch.tensor(0.1)}) is None
    several = torch.func.vmap(lambda part: conv_pinv2d(part, weight, 8, **options))(y.expand(3, 1, 8, 8))
    torch.testing.assert_close(several[1], conv_pinv2d(y, weight, 8, **options))
    gradient = torch.func.grad(lambda part: conv_pinv2d(part, weight, 8, **options).sum())(y)
    assert gradient.abs().sum() > 0


def test_what_one_mode_makes_another_can_use() -> None:
    y, weight = random(1, 33, 35, dtype=torch.float32), random(1, 1, 3, 3, dtype=torch.float32)
    with torch.inference_mode():
        first = conv_pinv2d(y, weight, (33, 35), **CIRCULAR, damp=0.1)
    learned = weight.clone().requires_grad_()
    second = conv_pinv2d(y, learned, (33, 35), **CIRCULAR, damp=0.1)
    second.sum().backward()
    assert learned.grad is not None
    torch.testing.assert_close(first, second.detach())


def test_kinds_hold_no_weights() -> None:
    weight = torch.zeros(64, 64, 3, 3)
    y = torch.ones(64, 8, 8)
    conv_pinv2d(y, weight, 8, **CIRCULAR, damp=1.0)
    sizes, numbers = (8, 1, 1, 1, 1), (1.0, None, None)
    kind = one_shot._kind(weight.shape, y.shape, weight.dtype, "cpu", sizes, ("circular", "auto"), numbers)
    assert kind is not None
    assert kind.problem.operator.weight.untyped_storage().nbytes() <= 16
