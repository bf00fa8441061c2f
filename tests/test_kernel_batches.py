"""A batch of kernels gives what a loop over them gives: every boundary, stride, grouping and solver."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import conv_pinv1d, conv_pinv2d
from convpinv.linalg import kernel_batch

BOUNDARIES = ("zeros", "circular", "reflect", "replicate")
SIZE = (6, 8)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def looped(y: Tensor, weights: Tensor, *args: Any, **options: Any) -> Tensor:
    return torch.stack([conv_pinv2d(part, weight, *args, **options) for part, weight in zip(y, weights, strict=True)])


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> bool:
    """Each kernel's answer against its own size: a large one hides no small one."""
    difference = (found - expected).flatten(1).norm(dim=1)
    return found.shape == expected.shape and bool((difference <= tolerance * expected.flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("stride", [1, 2, (1, 2)], ids=str)
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(1, 1, 1), (2, 3, 1), (4, 2, 2)])
@pytest.mark.parametrize("damp", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_equals_the_loop(
    boundary: str,
    stride: int | tuple[int, int],
    inputs: int,
    outputs: int,
    groups: int,
    damp: float,
    dtype: torch.dtype,
) -> None:
    weights = randn(3, outputs, inputs // groups, 3, 3, dtype=dtype)
    whole: dict[str, Any] = {"input_size": SIZE, "stride": stride, "padding": 1, "padding_mode": boundary}
    whole |= {"groups": groups, "damp": damp}
    one = convpinv.Conv2dOperator(weights[0], SIZE, stride, 1, 1, groups, boundary)
    y = randn(3, *one.out_shape, seed=1, dtype=dtype)
    assert close(conv_pinv2d(y, weights, **whole), looped(y, weights, **whole))
    several = randn(3, 2, *one.out_shape, seed=2, dtype=dtype)
    assert close(conv_pinv2d(several, weights, **whole), looped(several, weights, **whole))


def solves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the kernels that go by one solve."""
    counts: list[int] = []
    at_once = kernel_batch._at_once

    def counted(y: Tensor, count: int, *rest: Any) -> Tensor:
        counts.append(count)
        return at_once(y, count, *rest)

    monkeypatch.setattr(kernel_batch, "_at_once", counted)
    return counts


def separable(count: int) -> Tensor:
    return torch.einsum("nt,nu->ntu", randn(count, 3), randn(count, 3, seed=1))[:, None, None]


def test_one_solve_where_kernels_are_decomposed_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = solves(monkeypatch)
    weights, y = randn(3, 1, 1, 3, 3), randn(3, 1, 6, 8)
    conv_pinv2d(y, weights, SIZE, padding=1, padding_mode="circular")
    assert counts == [3]
    conv_pinv2d(y, separable(3), SIZE, padding=1, padding_mode="reflect")
    assert counts == [3, 3]
    # A matrix or an iteration is better made for each: here a dense one, and there kernels of which one is no product.
    conv_pinv2d(y, weights, SIZE, padding=1)
    mixed = torch.cat([separable(2), weights[:1]])
    found = conv_pinv2d(y, mixed, SIZE, padding=1, padding_mode="reflect")
    assert counts == [3, 3]
    assert close(found, looped(y, mixed, SIZE, padding=1, padding_mode="reflect"))
    # Folded, this has more unknowns than a dense matrix may have.
    many = randn(30, 1, 1, 3, 3)
    conv_pinv2d(randn(30, 1, 12, 12), many, 12, padding=1, solver="dense")
    assert counts == [3, 3]


SCALES = torch.tensor([1e-25, 1.0, 1e25], dtype=torch.float64).reshape(-1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("kind", "boundary"), [("random", "circular"), ("mixing", "circular"), ("product", "reflect"), ("random", "zeros")]
)
@pytest.mark.parametrize("rtol", [None, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_threshold_is_that_of_each_kernel(kind: str, boundary: str, rtol: float | None, dtype: torch.dtype) -> None:
    """``pinv(c·k) = pinv(k)/c`` for each kernel, whatever stands beside it."""
    channels = 2 if kind == "mixing" else 1
    weights = separable(3) if kind == "product" else randn(3, channels, channels, 3, 3)
    weights, y = weights.to(dtype), randn(3, channels, 6, 8, seed=3, dtype=dtype)
    whole: dict[str, Any] = {"input_size": SIZE, "padding": 1, "padding_mode": boundary, "rtol": rtol}
    scales = SCALES.to(dtype)
    expected = looped(y, weights, **whole)
    found = conv_pinv2d(y, weights * scales, **whole) * scales[:, 0]
    assert close(found, expected, 1e-8 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("boundary", ["circular", "reflect"])
def test_damping_is_the_same_number_for_kernels_of_any_scale(boundary: str) -> None:
    # With the threshold of the largest kernel the default cut alone would have wiped out the smallest.
    weights = (separable(3) if boundary == "reflect" else randn(3, 1, 1, 3, 3)) * torch.tensor(
        [1e-9, 1.0, 1e9], dtype=torch.float64
    ).reshape(-1, 1, 1, 1, 1)
    y = randn(3, 1, 6, 8, seed=3)
    whole: dict[str, Any] = {"input_size": SIZE, "padding": 1, "padding_mode": boundary, "damp": 1e-10}
    found = conv_pinv2d(y, weights, **whole)
    assert close(found, looped(y, weights, **whole), 1e-6)
    assert (found.flatten(1).norm(dim=1) > 0).all()


def test_a_zero_kernel_among_others() -> None:
    weights, y = randn(3, 2, 2, 3, 3), randn(3, 2, 6, 8, seed=1)
    weights[1] = 0.0
    found = conv_pinv2d(y, weights, SIZE, padding=1, padding_mode="circular")
    assert (found[1] == 0).all()
    assert close(found[::2], looped(y[::2], weights[::2], SIZE, padding=1, padding_mode="circular"))


@pytest.mark.parametrize("boundary", ["circular", "zeros"])
@pytest.mark.parametrize("damp", [0.0, 0.4])
def test_gradients_by_data_and_kernels(boundary: str, damp: float) -> None:
    weights, y = randn(2, 1, 2, 2, 3).requires_grad_(), randn(2, 1, 4, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda data, kernels: conv_pinv2d(
            data, kernels, 4, padding="same", padding_mode=boundary, damp=damp, solver="auto"
        ),
        (y, weights),
        atol=1e-5,
    )


def test_gradients_by_kernels_with_a_threshold_of_your_own() -> None:
    # Of a large kernel the threshold cuts nothing, of a small one something: its gradient must not pass unnoticed.
    weights = randn(2, 1, 1, 3, 3)
    weights[0] = 0.0
    weights[0, 0, 0, 1, 1] = 1e12
    weights.requires_grad_()
    y = randn(2, 1, 6, 8, seed=1)
    found = conv_pinv2d(y, weights, SIZE, padding=1, padding_mode="circular", rtol=0.3)
    with pytest.raises(convpinv.GradientError, match="cut singular values that are not zero"):
        found.sum().backward()


def test_layouts_of_the_data() -> None:
    whole: dict[str, Any] = {"padding": 1, "padding_mode": "circular", "damp": 0.1}
    weights = randn(3, 1, 1, 3, 3)
    for leading in ((3,), (5,), (2, 3), (4, 2, 3), (0, 1)):  # one kernel 1 → 1 takes every channel alone
        y = randn(3, *leading, 6, 8, seed=1)
        found = conv_pinv2d(y, weights, SIZE, **whole)
        assert found.shape == y.shape
        if 0 not in leading:
            assert close(found, looped(y, weights, SIZE, **whole))
    for dtype in (torch.float16, torch.bfloat16):
        y = randn(3, 1, 6, 8, seed=1).to(dtype)
        found = conv_pinv2d(y, weights.to(dtype), SIZE, **whole)
        assert found.dtype == dtype
        assert close(found.float(), conv_pinv2d(y.float(), weights.to(dtype).float(), SIZE, **whole), 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # does not reach in, and changes no plan
        y, single = randn(3, 1, 6, 8, seed=1).float(), separable(3).float()
        inside = conv_pinv2d(y, single, SIZE, padding=1, damp=0.1)
    assert torch.equal(inside, conv_pinv2d(y, single, SIZE, padding=1, damp=0.1))


@pytest.mark.parametrize(
    ("y", "weight", "message"),
    [
        (torch.rand(2, 1, 6, 8), torch.rand(3, 1, 1, 3, 3), "with 3 kernels it must be"),
        (torch.rand(1, 6, 8), torch.rand(3, 1, 1, 3, 3), "with 3 kernels it must be"),
        (torch.rand(3, 2, 6, 8), torch.rand(3, 1, 2, 3, 3), r"\(C, H, W\) = \(1, 6, 8\)"),
        (torch.rand(3, 1, 5, 8), torch.rand(3, 1, 1, 3, 3), r"\(C, H, W\) = \(1, 6, 8\)"),
        (torch.rand(3, 1, 6, 8).double(), torch.rand(3, 1, 1, 3, 3), "the operator is float32"),
        (torch.rand(0, 1, 6, 8), torch.rand(0, 1, 1, 3, 3), r"its shape must be \(N, Cout"),
        (torch.rand(3, 1, 6, 8), torch.rand(3, 1, 1, 3, 3) / 0, "weight is not finite"),
        (torch.rand(3, 1, 6, 8), torch.zeros(3, 1, 1, 3, 3).int(), "its dtype may be"),
        ([1.0], torch.rand(3, 1, 1, 3, 3), "with 3 kernels it must be"),
    ],
)
def test_bad_batches_are_one_clear_line(y: Any, weight: Tensor, message: str) -> None:
    with pytest.raises(convpinv.ArgumentError, match=f"^conv_pinv2d: .*{message}"):
        conv_pinv2d(y, weight, SIZE, padding=1)
    with pytest.raises(convpinv.ArgumentError, match=r"^conv_pinv2d: groups is 2; it must divide"):
        conv_pinv2d(torch.rand(4, 3, 6, 8), torch.rand(4, 3, 1, 3, 3), SIZE, padding=1, groups=2)


# One axis


@pytest.mark.parametrize("mode", BOUNDARIES)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 3, "padding": 2, "stride": 2},
        {"kernel_size": 2, "padding": 1, "dilation": 3, "groups": 2},
        {"kernel_size": 5, "padding": "valid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_one_axis_against_the_layer(mode: Any, options: dict[str, Any], dtype: torch.dtype) -> None:
    layer = torch.nn.Conv1d(2, 4, bias=False, padding_mode=mode, dtype=dtype, **options)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that even kernels cost it a copy
        eye = torch.eye(24, dtype=dtype).reshape(24, 2, 12)
        matrix = layer(eye).reshape(24, -1).mT
        y = randn(3, 4, layer(eye).shape[-1], seed=4, dtype=dtype)
        size = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups, "padding_mode": mode}
        padding = layer.padding if isinstance(layer.padding, str) else layer.padding[0]
        for damp in (0.0, 0.2):
            gram = matrix.mH @ matrix + damp**2 * torch.eye(24, dtype=dtype)
            inverse = torch.linalg.solve(gram, matrix.mH) if damp else torch.linalg.pinv(matrix, rtol=1e-12)
            found = conv_pinv1d(y, layer.weight, 12, padding=padding, damp=damp, **size)
            assert torch.allclose(found.flatten(1), y.flatten(1) @ inverse.mT, atol=1e-8)
            alone = conv_pinv1d(y[0], layer.weight, 12, padding=padding, damp=damp, **size)
            assert torch.allclose(alone, found[0])


def test_one_axis_batches_gradients_and_channels() -> None:
    weights, y = randn(3, 2, 1, 3), randn(3, 2, 10, seed=1)
    found = conv_pinv1d(y, weights, 10, padding=1, padding_mode="circular", damp=0.2)
    expected = [
        conv_pinv1d(part, weight, 10, padding=1, padding_mode="circular", damp=0.2)
        for part, weight in zip(y, weights, strict=True)
    ]
    assert close(found, torch.stack(expected))
    several = conv_pinv1d(randn(3, 5, 2, 10), weights, 10, padding=1, damp=0.2)
    assert several.shape == (3, 5, 1, 10)
    one = randn(1, 1, 3)
    assert conv_pinv1d(randn(4, 7, 10), one, 10, padding=1).shape == (4, 7, 10)  # each channel alone
    assert conv_pinv1d(torch.rand(2, 10).half(), randn(2, 1, 3).half(), 10, padding=1, damp=0.5).dtype == torch.float16
    assert torch.autograd.gradcheck(
        lambda data, kernel: conv_pinv1d(data, kernel, 6, padding=1, padding_mode="reflect", damp=0.3),
        (randn(2, 6).requires_grad_(), randn(2, 1, 3).requires_grad_()),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.rand(3, 10)}, r"y is a float32 tensor of shape \(3, 10\); it must be \(C, L\) or \(B, C, L\)"),
        ({"y": torch.rand(2, 9)}, r"\(C, L\) = \(2, 10\)"),
        ({"y": torch.rand(10)}, r"\(C, L\) = \(2, 10\)"),
        ({"y": torch.rand(4, 2, 10), "weight": torch.rand(3, 2, 1, 3)}, "with 3 kernels it must be"),
        ({"weight": torch.rand(2, 3)}, r"it must be a tensor \(Cout, Cin/groups, k\)"),
        ({"input_size": (10, 10)}, r"input_size is \(10, 10\); it must be an integer"),
        ({"input_size": 0}, "input_size is 0"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"padding": "full"}, "padding is 'full'"),
        ({"padding": -1}, "padding is -1"),
        (
            {"input_size": 3, "padding": 3, "padding_mode": "reflect"},
            "'reflect' needs less than the picture's 3",
        ),
    ],
    ids=[str(case) for case in range(11)],
)
def test_one_axis_bad_arguments_are_one_clear_line(change: dict[str, Any], message: str) -> None:
    given = {"y": torch.rand(2, 10), "weight": torch.rand(2, 1, 3), "input_size": 10, "padding": 1} | change
    with pytest.raises(convpinv.ArgumentError, match=rf"^conv_pinv1d: .*{message}"):
        conv_pinv1d(**given)
