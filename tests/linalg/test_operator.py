"""Conv2dOperator against torch.nn: forward, adjoint, shapes, modules, bad input."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg.correlation import prefers_fft
from convpinv.testing import check_adjoint, conv2d_operators, random_images

MODES = ("zeros", "circular", "reflect", "replicate")
LAYERS = [
    {"kernel_size": 3},
    {"kernel_size": (2, 5), "padding": "same"},
    {"kernel_size": 4, "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "valid", "stride": (2, 1)},
    {"kernel_size": 4, "padding": 1, "stride": 2},
    {"kernel_size": (1, 3), "padding": (0, 2), "stride": (3, 1)},
    {"kernel_size": 3, "padding": 2, "dilation": (2, 1), "groups": 2},
    {"kernel_size": 1, "groups": 2, "stride": 3},
    {"kernel_size": 9, "padding": 4},
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def test_equals_the_layer(options: dict, mode: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Conv2d(4, 6, padding_mode=mode, dtype=dtype, **options)  # pyright: ignore[reportArgumentType]
    operator = Conv2dOperator.from_module(layer, (11, 12))
    x = random_images((4, 11, 12), operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a slow path for even kernels
        expected = layer(x) - layer.bias[:, None, None]  # pyright: ignore[reportOptionalSubscript]
    result = operator(x)
    eps = torch.finfo(dtype).eps
    assert result.dtype == dtype
    assert operator.out_shape == tuple(expected.shape[1:])
    assert (result - expected).abs().max() <= 50 * eps * expected.abs().max()
    check_adjoint(operator, tol=50 * eps)
    assert torch.equal(operator(x[0]), operator @ x[0])
    assert torch.allclose(operator.to_dense() @ x[0].flatten(), result[0].flatten(), atol=float(100 * eps))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stride", "groups"), list(itertools.product([1, 2, (1, 3)], [1, 2])), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_many_taps_go_by_fft_and_give_the_same(
    mode: str, stride: int | tuple[int, int], groups: int, dtype: torch.dtype
) -> None:
    layer = torch.nn.Conv2d(
        2,
        4,
        (13, 10),
        stride=stride,
        padding=5,
        groups=groups,
        bias=False,
        padding_mode=mode,  # pyright: ignore[reportArgumentType]
        dtype=dtype,
    )
    operator = Conv2dOperator.from_module(layer, (40, 37))
    assert isinstance(operator, Conv2dOperator)
    assert prefers_fft(operator.geometry, dtype)
    x = random_images(operator.in_shape, operator)
    expected = layer(x).detach()
    assert (operator(x) - expected).abs().max() <= 100 * torch.finfo(dtype).eps * expected.abs().max()
    check_adjoint(operator, tol=100 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "output_padding": 1, "padding": 1},
        {"kernel_size": (2, 5), "stride": (3, 2), "output_padding": (2, 1)},
        {"kernel_size": 3, "dilation": 3, "output_padding": 2},
        {"kernel_size": 4, "stride": 2, "groups": 2, "padding": 1},
        {"kernel_size": 2, "padding": 1, "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_transposed_layer(options: dict, dtype: torch.dtype) -> None:
    layer = torch.nn.ConvTranspose2d(4, 6, dtype=dtype, **options)
    operator = Conv2dOperator.from_module(layer, (5, 6))
    x = random_images((4, 5, 6), operator)
    expected = layer(x) - layer.bias[:, None, None]  # pyright: ignore[reportOptionalSubscript]
    assert operator.out_shape == tuple(expected.shape[1:])
    assert torch.allclose(operator(x), expected)
    check_adjoint(operator)
    pinv = operator.pinv()
    matrix = operator.to_dense().detach()
    y = random_images(operator.out_shape, operator)
    inverse = torch.linalg.pinv(matrix, rtol=1e-13)
    assert torch.allclose(pinv(y).flatten(1), y.flatten(1) @ inverse.mT, atol=1e-8)
    assert torch.allclose(operator.svdvals(), torch.linalg.svdvals(matrix), atol=1e-10)


@given(conv2d_operators())
@settings(max_examples=150, deadline=None)
def test_adjoint_on_any_shape(operator: Conv2dOperator) -> None:
    check_adjoint(operator)
    check_adjoint(operator.H)


def test_batches_and_single_pictures() -> None:
    operator = Conv2dOperator(torch.rand(4, 2, 3, 3), (8, 9))
    x = torch.rand(2, 3, 2, 8, 9)
    result = operator(x)
    assert result.shape == (2, 3, 4, 6, 7)
    assert torch.allclose(result[1, 2], operator(x[1, 2]), atol=1e-6)


def test_one_channel_acts_on_every_channel_alike() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), (8, 9), padding=1)
    x = torch.rand(5, 3, 8, 9)
    result = operator(x)
    assert result.shape == (5, 3, 8, 9)
    assert torch.allclose(result[4, 1], operator(x[4, 1][None])[0], atol=1e-6)


def test_weight_gradient_flows_through_the_operator() -> None:
    weight = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.rand(1, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, image: Conv2dOperator(w, (6, 7), padding=1, padding_mode="reflect")(image), (weight, x)
    )
    taps = torch.rand(1, 1, 9, 9, dtype=torch.float64, requires_grad=True)
    operator = Conv2dOperator(taps, (40, 40))
    for _ in range(2):  # a graph freed by the first pass must not be met by the second
        operator(torch.rand(1, 40, 40, dtype=torch.float64)).sum().backward()
    assert taps.grad is not None


def test_detach_and_to() -> None:
    weight = torch.rand(1, 1, 3, 3)
    operator = Conv2dOperator(weight, (8, 8)).detach()
    weight.zero_()
    assert operator.weight.abs().sum() > 0
    assert operator.to(torch.float64).dtype == torch.float64
    assert "float32" in repr(operator)


W = torch.ones(2, 2, 3, 3)
BAD = [
    ({"weight": W.int()}, "weight is a int32 tensor"),
    ({"weight": W[0]}, "weight is a float32 tensor of shape (2, 3, 3)"),
    ({"weight": [[1.0]]}, "weight is [[1.0]]"),
    ({"weight": W * float("nan")}, "weight is not finite"),
    ({"weight": torch.ones(1, 1, 0, 3)}, "none of them 0"),
    ({"input_size": 0}, "input_size is 0"),
    ({"input_size": (4, 5, 6)}, "input_size is (4, 5, 6)"),
    ({"input_size": 2}, "use a smaller kernel or more padding"),
    ({"stride": 0}, "stride is 0"),
    ({"stride": 1.5}, "stride is 1.5"),
    ({"stride": True}, "stride is True"),
    ({"dilation": (1, 0)}, "dilation is (1, 0)"),
    ({"padding": -1}, "padding is -1"),
    ({"padding": "full"}, "it may be 'same', 'valid'"),
    ({"padding": "same", "stride": 2}, "torch offers it for stride 1 only"),
    ({"padding": 8, "padding_mode": "reflect"}, "'reflect' needs less than the picture's 8 pixels"),
    ({"padding": 9, "padding_mode": "circular"}, "'circular' allows at most"),
    ({"padding_mode": "mirror"}, "it may be 'zeros', 'circular', 'reflect', 'replicate'"),
    ({"groups": 3}, "groups is 3; it must divide"),
    ({"groups": 0}, "groups is 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_arguments_are_one_clear_line(change: dict, message: str) -> None:
    arguments = {"weight": W, "input_size": (8, 8), **change}
    with pytest.raises(convpinv.ArgumentError) as caught:
        Conv2dOperator(**arguments)
    text = str(caught.value)
    assert text.startswith("Conv2dOperator: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, 8, 9), "its last three sizes (C, H, W) must be (2, 8, 8)"),
        (torch.ones(1, 3, 8, 8), "must be (2, 8, 8)"),
        (torch.ones(8, 8), "must be (2, 8, 8)"),
        (torch.ones(2, 8, 8, dtype=torch.float64), "convert one of them with .to(torch.float32)"),
        (torch.full((2, 8, 8), float("inf")), "NaN or infinity"),
        ([1.0], "it must be a dense tensor"),
        (torch.ones(2, 8, 8, device="meta"), "the operator is on cpu"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_pictures_are_one_clear_line(value: object, message: str) -> None:
    operator = Conv2dOperator(W, (8, 8), padding=1)
    for call in (operator, operator.pinv(damp=0.1), operator.H):
        with pytest.raises(convpinv.ArgumentError, match="its argument is") as caught:
            call(value)  # pyright: ignore[reportArgumentType]
        assert message in str(caught.value)


def test_a_large_finite_picture_is_not_refused() -> None:
    operator = Conv2dOperator(torch.ones(1, 1, 1, 1), (8, 8))
    x = torch.full((1, 8, 8), 1e37)  # whose sum is infinite in float32
    assert torch.equal(operator(x), x)


def test_modules_that_are_no_convolution_are_refused() -> None:
    with pytest.raises(convpinv.ArgumentError, match=r"module is Linear; it may be a torch\.nn\.Conv2d"):
        Conv2dOperator.from_module(torch.nn.Linear(2, 2), 8)
    with pytest.raises(convpinv.ArgumentError, match="leaves no output"):
        Conv2dOperator.from_module(torch.nn.ConvTranspose2d(1, 1, 2, padding=3), 2)


def test_inference_mode_leaves_nothing_behind() -> None:
    for options in ({"padding": 1, "padding_mode": "circular"}, {"padding": 1, "padding_mode": "reflect"}, {}):
        weight = torch.rand(1, 1, 3, 3) if options else torch.rand(1, 1, 15, 15)
        operator = Conv2dOperator(weight, 29, **options)
        with torch.inference_mode():
            operator(torch.rand(1, 29, 29))
        x = torch.rand(1, 29, 29, requires_grad=True)
        operator(x).sum().backward()
        assert x.grad is not None


@pytest.mark.parametrize("taps", [3, 15])
def test_a_weight_changed_in_place_is_followed(taps: int) -> None:
    weight = torch.rand(1, 1, taps, taps)
    operator = Conv2dOperator(weight, 64)
    x = torch.rand(1, 64, 64)
    before = operator(x)
    weight.mul_(2.0)
    assert torch.allclose(operator(x), 2 * before, rtol=1e-4)


def test_empty_batches() -> None:
    for solver in ("fourier", "separable", "dense", "krylov"):
        operator = Conv2dOperator(torch.ones(1, 1, 3, 3), 8, padding=1, padding_mode="circular")
        pinv = operator.pinv(damp=0.1, solver=solver)
        for call in (operator, operator.H, pinv, pinv.H):
            assert call(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)
        assert pinv.solve(torch.zeros(0, 1, 8, 8)).residual == 0.0


def test_numpy_numbers_are_numbers() -> None:
    operator = Conv2dOperator(
        torch.rand(2, 1, 3, 3),
        (np.int64(8), np.int32(9)),
        stride=np.int64(1),
        padding=np.int64(1),
        groups=np.int64(1),  # pyright: ignore[reportArgumentType]
    )
    assert operator.in_shape == (1, 8, 9)
    operator.pinv(damp=np.float32(0.5), max_iter=np.int64(7), atol=np.float64(0.1))  # pyright: ignore[reportArgumentType]
    assert Conv2dOperator(torch.rand(2, 1, 3, 3), torch.rand(4, 5).shape).in_shape == (1, 4, 5)
    with pytest.raises(convpinv.ArgumentError, match="stride is"):
        Conv2dOperator(torch.rand(1, 1, 3, 3), 8, stride=np.array([1, 2]))  # pyright: ignore[reportArgumentType]


def test_adjoint_operator_has_what_the_operator_has() -> None:
    layer = torch.nn.ConvTranspose2d(2, 3, 3, stride=2, dtype=torch.float64)
    operator = Conv2dOperator.from_module(layer, 4)
    values = torch.linalg.svdvals(operator.to_dense().detach())
    assert operator.norm() == pytest.approx(float(values[0]))
    assert operator.cond() == pytest.approx(float(values[0] / values[-1]), rel=1e-6)
    assert operator.matrix_rank() == len(values)
    assert operator.to(torch.float32).dtype == torch.float32
    assert not operator.detach()(torch.rand(2, 4, 4, dtype=torch.float64)).requires_grad


def test_conversions_and_weights_that_cannot_work() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), 8)
    for target in ("nonsense", torch.float16, torch.int32):
        with pytest.raises(convpinv.ArgumentError, match=r"^Conv2dOperator\.to: "):
            operator.to(target)
    with pytest.raises(convpinv.ArgumentError, match="dense tensor with values"):
        Conv2dOperator(torch.ones(1, 1, 3, 3, device="meta"), 8)
    with pytest.raises(convpinv.ArgumentError, match="without a weight yet"):
        Conv2dOperator.from_module(torch.nn.LazyConv2d(1, 3), 8)


def test_the_function_names_itself_in_errors() -> None:
    weight = torch.rand(1, 2, 3, 3)
    for arguments, message in (
        ((torch.rand(1, 5, 6), weight, (8, 8)), "conv_pinv2d: y is a float32 tensor"),
        ((torch.rand(1, 6, 6), weight * torch.nan, (8, 8)), "conv_pinv2d: weight is not finite"),
    ):
        with pytest.raises(convpinv.ArgumentError, match=f"^{message}"):
            convpinv.conv_pinv2d(*arguments)
    with pytest.raises(convpinv.ArgumentError, match=r"^conv_pinv2d: damp is -1"):
        convpinv.conv_pinv2d(torch.rand(1, 6, 6), weight, 8, damp=-1)
