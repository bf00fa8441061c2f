"""Half precision at the door, float32 behind it; autocast stays outside; complex numbers go all the way."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.testing import check_against_dense, check_penrose, random_images

HALF = (torch.float16, torch.bfloat16)
CASES = [
    ("fourier", {"padding": 1, "padding_mode": "circular"}),
    ("dense", {"padding": 1, "padding_mode": "reflect"}),
    ("krylov", {}),
    ("separable", {"padding": 1, "padding_mode": "replicate"}),
]


def weight_for(solver: str, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if solver == "separable":
        rows, columns = torch.randn(2, 3, generator=generator)
        return torch.outer(rows, columns)[None, None].repeat(2, 1, 1, 1).to(dtype)
    return torch.randn(2, 1, 3, 3, generator=generator).to(dtype)


def applications(operator: Conv2dOperator, solver: str) -> dict[str, tuple[Callable[[Tensor], Tensor], tuple]]:
    """Every way through which a picture goes, and the shape that it takes."""
    pinv = operator.pinv(damp=0.3, solver=solver)
    return {
        "A": (operator, operator.in_shape),
        "A.H": (operator.H, operator.out_shape),
        "P": (pinv, operator.out_shape),
        "P.H": (pinv.H, operator.in_shape),
        "solve": (lambda y: pinv.solve(y).value, operator.out_shape),
    }


@pytest.mark.parametrize(("solver", "options"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_pictures_are_computed_in_single_and_come_back_in_half(
    solver: str, options: dict, dtype: torch.dtype
) -> None:
    operator = Conv2dOperator(weight_for(solver), 8, **options)
    for name, (call, shape) in applications(operator, solver).items():
        image = random_images(shape, operator).to(dtype)
        found, expected = call(image), call(image.float())
        assert found.dtype == dtype, name
        assert torch.equal(found, expected.to(dtype)), name  # one rounding, at the very end
    assert operator(torch.zeros(0, 1, 8, 8, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_weights_make_operators_in_single(dtype: torch.dtype) -> None:
    weight = weight_for("krylov", dtype)
    operator = Conv2dOperator(weight, 8, padding=1, padding_mode="circular")
    assert operator.dtype == operator.weight.dtype == torch.float32
    wide = Conv2dOperator(weight.float(), 8, padding=1, padding_mode="circular")
    y = random_images(wide.out_shape, wide)
    assert operator.pinv()(y).dtype == torch.float32
    assert torch.equal(operator.pinv()(y), wide.pinv()(y))
    found = convpinv.conv_pinv2d(y.to(dtype), weight, 8, padding=1, padding_mode="circular")
    assert found.dtype == dtype
    assert torch.equal(found, wide.pinv()(y.to(dtype).float()).to(dtype))
    layer = torch.nn.ConvTranspose2d(2, 3, 3, stride=2, dtype=dtype)
    assert Conv2dOperator.from_module(layer, 4).pinv()(torch.rand(3, 9, 9, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_gradients_flow_through_the_conversions(dtype: torch.dtype) -> None:
    weight = weight_for("krylov", dtype).requires_grad_()
    operator = Conv2dOperator(weight, 8, padding=1, padding_mode="circular")
    wide = Conv2dOperator(weight.detach().float().requires_grad_(), 8, padding=1, padding_mode="circular")
    x = random_images(wide.in_shape, wide).to(dtype).requires_grad_()
    x_wide = x.detach().float().requires_grad_()
    operator(x).float().square().sum().backward()
    wide(x_wide).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == dtype
    assert x.grad is not None
    # The gradient that comes in is that of the rounded outputs: a relative error of ε of the half type, entry by entry.
    eps = torch.finfo(dtype).eps
    for found, expected in ((weight.grad, wide.weight.grad), (x.grad, x_wide.grad)):
        assert expected is not None
        assert (found.float() - expected).norm() <= 2 * eps * expected.norm()
    y = random_images(wide.out_shape, wide).to(dtype).requires_grad_()
    pinv = wide.detach().pinv(damp=0.3)
    (gradient,) = torch.autograd.grad(pinv(y).sum(), y)
    assert gradient.dtype == dtype
    expected = pinv.H(torch.ones(2, 1, 8, 8))
    assert (gradient.float() - expected).norm() <= eps * expected.norm()


def test_the_residual_of_half_data_tells_of_the_rounded_value() -> None:
    operator = Conv2dOperator(weight_for("krylov"), 8, padding=1, padding_mode="circular")
    y = random_images(operator.out_shape, operator)
    pinv = operator.pinv()
    assert pinv.solve(y).residual < 1e-5
    assert 1e-5 < pinv.solve(y.half()).residual < 1e-2


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_what_cannot_be_served_is_refused() -> None:
    precise = Conv2dOperator(weight_for("krylov").double(), 8)
    for image in (torch.rand(1, 8, 8).half(), torch.rand(1, 8, 8).bfloat16()):
        with pytest.raises(convpinv.ArgumentError, match=r"the operator is float64; convert one of them"):
            precise(image)
    with pytest.raises(convpinv.ArgumentError, match="the operator is complex64"):
        Conv2dOperator(weight_for("krylov").to(torch.complex64), 8)(torch.rand(1, 8, 8).half())
    complex_half = torch.zeros(2, 1, 3, 3, dtype=torch.complex32)
    with pytest.raises(convpinv.ArgumentError, match="its dtype may be float16, bfloat16, float32"):
        Conv2dOperator(complex_half, 8)
    with pytest.raises(convpinv.ArgumentError, match="the operator is complex64"):
        Conv2dOperator(weight_for("krylov").to(torch.complex64), 8)(torch.zeros(1, 8, 8, dtype=torch.complex32))
    with pytest.raises(convpinv.ArgumentError, match=r"^Conv2dOperator\.to: .* operators compute in float32"):
        Conv2dOperator(weight_for("krylov"), 8).to(torch.bfloat16)
    with pytest.raises(convpinv.ArgumentError, match="weight is not finite"):
        Conv2dOperator(torch.full((1, 1, 3, 3), float("inf"), dtype=torch.float16), 8)
    with pytest.raises(convpinv.ArgumentError, match="its argument is not finite"):
        Conv2dOperator(weight_for("krylov"), 8)(torch.full((1, 8, 8), float("nan"), dtype=torch.bfloat16))


def test_large_half_numbers_are_finite() -> None:
    # Their sum is infinite in float16, and so is many a value on the way.
    operator = Conv2dOperator(torch.full((1, 1, 3, 3), 1000.0, dtype=torch.float16), 8, padding=1)
    x = torch.full((1, 8, 8), 6e4, dtype=torch.float16)
    back = operator.H(operator(x.float()))
    assert torch.isfinite(back).all()
    assert torch.isinf(operator(x)).any()  # beyond what float16 holds: infinite, as everywhere in torch


def matrix_product_is_half() -> bool:
    return (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(("solver", "options"), CASES, ids=[case[0] for case in CASES])
def test_autocast_does_not_reach_in(solver: str, options: dict) -> None:
    weight = weight_for(solver)
    operator = Conv2dOperator(weight, 8, **options)
    images = {name: random_images(shape, operator) for name, (_, shape) in applications(operator, solver).items()}
    expected = {name: call(images[name]) for name, (call, _) in applications(operator, solver).items()}
    parts = [("project_null", images["A"]), ("project_range", images["P"])] if solver != "krylov" else []
    projected = [getattr(operator, name)(image) for name, image in parts]
    data = images["P"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(operator.pinv(damp=0.3, solver=solver)(data).square().sum(), data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert matrix_product_is_half()
        fresh = Conv2dOperator(weight, 8, **options)  # prepared inside the region, too
        for name, (call, _) in applications(fresh, solver).items():
            assert torch.equal(call(images[name]), expected[name]), name
        assert torch.equal(fresh.to_dense(), operator.to_dense())
        for value in ("svdvals", "norm", "cond", "matrix_rank"):
            found, wanted = (torch.as_tensor(getattr(each, value)()) for each in (fresh, operator))
            assert torch.equal(found, wanted), value
        for (name, image), wanted in zip(parts, projected, strict=True):
            assert torch.equal(getattr(fresh, name)(image), wanted), name
        # A backward pass inside the region, which torch advises against, is no worse.
        (found,) = torch.autograd.grad(fresh.pinv(damp=0.3, solver=solver)(data).square().sum(), data)
        assert matrix_product_is_half()  # the region goes on
    assert torch.equal(found, gradient)


def test_gradients_of_an_operator_inside_autocast() -> None:
    x = torch.rand(1, 8, 8, requires_grad=True)
    weight = weight_for("krylov").requires_grad_()
    expected = torch.autograd.grad(Conv2dOperator(weight, 8)(x).square().sum(), (x, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(Conv2dOperator(weight, 8)(x).square().sum(), (x, weight))
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == torch.float32
        assert torch.allclose(left, right, rtol=1e-5, atol=1e-6)


def test_a_layer_inside_autocast_hands_on_half_precision() -> None:
    layer = torch.nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        y = layer(torch.rand(1, 1, 8, 8))
        assert y.dtype == torch.bfloat16
        found = Conv2dOperator.from_module(layer, 8).pinv()(y)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, Conv2dOperator.from_module(layer, 8).detach().pinv()(y.float()).bfloat16())


@pytest.mark.parametrize("prior", ["tv", "tikhonov"])
def test_imaging_inside_autocast(prior: str) -> None:
    scene = np.kron(np.random.default_rng(0).random((5, 5)), np.ones((6, 6))).astype(np.float32)
    blurred = convpinv.blur(scene, "box:size=3", noise=0.02, seed=0)
    noise, restored = convpinv.estimate_noise(blurred), convpinv.deblur(blurred, "box:size=3", prior=prior)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(convpinv.blur(scene, "box:size=3", noise=0.02, seed=0), blurred)
        assert convpinv.estimate_noise(blurred) == noise
        np.testing.assert_array_equal(convpinv.deblur(blurred, "box:size=3", prior=prior), restored)


@pytest.mark.parametrize("region", [False, True], ids=["plain", "autocast"])
def test_compiled(region: bool) -> None:
    operator = Conv2dOperator(weight_for("fourier"), 8, padding=1, padding_mode="circular")
    pinv = operator.pinv(damp=0.1)
    y = random_images(operator.out_shape, operator)
    expected = 2 * pinv(y)
    compiled = torch.compile(lambda data: 2 * pinv(data), backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=region):
        assert torch.allclose(compiled(y), expected)
        assert torch.allclose(compiled(y.bfloat16()).float(), expected, atol=0.1)
    torch.compiler.reset()


# Complex numbers


@pytest.mark.parametrize(("solver", "options"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_goes_all_the_way(solver: str, options: dict, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 1, 3, 3, generator=generator, dtype=dtype)
    if solver == "separable":
        rows, columns, channels = (torch.randn(size, generator=generator, dtype=dtype) for size in (3, 3, 2))
        weight = torch.einsum("o,t,u->otu", channels, rows, columns)[:, None]
    operator = Conv2dOperator(weight, 7, **options)
    layer = torch.nn.Conv2d(1, 2, 3, bias=False, dtype=dtype, **options)
    with torch.no_grad():
        layer.weight.copy_(weight)
    x = random_images(operator.in_shape, operator)
    assert torch.allclose(operator(x), layer(x), rtol=1e-4, atol=1e-4)
    damped = operator.pinv(damp=0.3, solver=solver)
    assert damped(operator(x)).dtype == dtype
    check_against_dense(operator, damped, damp=0.3)
    if solver != "krylov":  # undamped iterations are tested where they converge
        check_penrose(operator, operator.pinv(solver=solver), tol=None if dtype == torch.complex128 else 1e-3)
    single = damped(copy.deepcopy(operator(x)).real.to(dtype))
    both = single + 1j * damped(operator(x).imag.to(dtype))
    assert torch.allclose(both, damped(operator(x)), rtol=1e-4, atol=1e-4)  # linear over the complex numbers
