"""Derivatives of the pseudo-inverse: what they cost, where there are none, and how they meet the rest of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator, conv_pinv2d
from convpinv.testing import random_images
from linalg.derivative_cases import SAME, SIZE, Case

# torch's forward mode loads decompositions that torch itself scripts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def test_damp_as_a_tensor() -> None:
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    operator = Conv2dOperator(weight, SIZE, padding=1)
    y = random_images(operator.out_shape, operator)
    for dtype in (torch.float32, torch.float64):
        damp = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        assert torch.equal(operator.pinv(damp=damp)(y), operator.pinv(damp=0.5)(y))
        (gradient,) = torch.autograd.grad(operator.pinv(damp=damp)(y).square().sum(), damp)
        assert gradient.dtype == dtype
        assert gradient.shape == ()
    assert not operator.pinv(damp=torch.tensor(1))(y).requires_grad
    with pytest.raises(convpinv.ArgumentError, match="it may be a number or a real tensor without axes"):
        operator.pinv(damp=torch.tensor([0.5]))
    for wrong in (torch.tensor(0.5j), torch.tensor(True)):
        with pytest.raises(convpinv.ArgumentError, match="pinv: damp is"):
            operator.pinv(damp=wrong)
    with pytest.raises(convpinv.ArgumentError, match="damp is -1; it must be at least 0"):
        operator.pinv(damp=torch.tensor(-1.0))


@pytest.mark.parametrize("kind", ["free", "repeated"])
def test_damping_of_zero_has_a_second_derivative(kind: str) -> None:
    case = Case("dense", (3, 1, 2, 2), {"padding": 1}, kind)
    parameters = case.parameters(torch.float64)
    operator = case.operator(parameters)
    y = random_images(operator.out_shape, operator)
    incoming = random_images(operator.in_shape, operator, 5)

    def value(damp: float) -> float:
        return float((operator.pinv(damp=damp)(y) * incoming).detach().sum())

    damp = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad((operator.pinv(damp=damp)(y) * incoming).sum(), damp, create_graph=True)
    (second,) = torch.autograd.grad(first, damp)
    assert first == 0
    # x is even in damp: x(h) − x(0) = h²·x''/2 + O(h⁴).
    step = 1e-3
    assert float(second) == pytest.approx(2 * (value(step) - value(0.0)) / step**2, rel=1e-3)


def test_a_gradient_by_the_data_alone_costs_one_application(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(1, 1, 3, 3, requires_grad=True)
    pinv = Conv2dOperator(weight, 8, padding=1, padding_mode="circular").pinv(damp=0.1)
    y = torch.randn(1, 8, 8, requires_grad=True)
    calls: list[str] = []
    kind = type(pinv.plan.solver)
    for name in ("apply", "adjoint"):
        original = getattr(kind, name)

        def counted(self, state, batch, original=original, name=name):
            calls.append(name)
            return original(self, state, batch)

        monkeypatch.setattr(kind, name, counted)
    loss = pinv(y).sum()
    torch.autograd.grad(loss, y, retain_graph=True)
    assert calls == ["apply", "adjoint"]
    torch.autograd.grad(loss, weight)
    assert len(calls) > 2


def change_in_place(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.mul_(1.5)


def change_data(tensor: Tensor) -> None:
    tensor.data *= 1.5


def take_a_step(tensor: Tensor) -> None:
    tensor.grad = torch.ones_like(tensor)
    torch.optim.SGD([tensor], lr=0.1).step()
    tensor.grad = None


@pytest.mark.parametrize("change", [change_in_place, change_data, take_a_step])
@pytest.mark.parametrize("name", ["weight", "damp"])
@pytest.mark.parametrize("when", ["before the call", "after the call"])
def test_what_changed_since_gives_no_gradient(change: Callable[[Tensor], None], name: str, when: str) -> None:
    tensors = {
        "weight": torch.rand(1, 1, 3, 3, requires_grad=True),
        "damp": torch.tensor(0.4, requires_grad=True),
    }
    pinv = Conv2dOperator(tensors["weight"], 6, padding=1).pinv(damp=tensors["damp"])
    y = torch.rand(1, 6, 6, requires_grad=True)
    before = pinv(y)
    if when == "before the call":
        change(tensors[name])
        loss = pinv(y).sum()
        assert torch.equal(pinv(y), before), "the state keeps the values of the moment"
    else:
        loss = before.sum()
        change(tensors[name])
    other = tensors["damp" if name == "weight" else "weight"]
    torch.autograd.grad(loss, (y, other), retain_graph=True)  # what did not change is served
    with pytest.raises(convpinv.GradientError, match=r"was changed after pinv\(\); a derivative by it needs a new"):
        torch.autograd.grad(loss, tensors[name])


def test_weights_that_are_not_leaves_and_modules() -> None:
    base = torch.rand(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 6, 6, dtype=torch.float64)
    conv_pinv2d(y, base.exp(), 6, padding=1).sum().backward()
    assert base.grad is not None
    for layer in (torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.ConvTranspose2d(1, 2, 3, stride=2, output_padding=1)):
        layer = layer.double()
        operator = Conv2dOperator.from_module(layer, 5)
        y = torch.rand(operator.out_shape, dtype=torch.float64)
        value = operator.pinv(damp=0.3)(y)
        (found,) = torch.autograd.grad(value.square().sum(), layer.weight)
        matrix = operator.to_dense()
        gram = matrix.mT @ matrix + 0.09 * torch.eye(matrix.shape[1], dtype=matrix.dtype)
        dense = torch.linalg.solve(gram, matrix.mT @ y.flatten())
        (expected,) = torch.autograd.grad(dense.square().sum(), layer.weight)
        assert torch.allclose(found, expected)


def test_inference_mode() -> None:
    with torch.inference_mode():
        frozen = torch.rand(1, 1, 3, 3)
        inside = Conv2dOperator(frozen, 6, padding=1).pinv(damp=0.1)
        y = torch.rand(1, 6, 6)
        value = inside(y)
    data = y.clone().requires_grad_()
    for pinv in (inside, Conv2dOperator(frozen, 6, padding=1).pinv(damp=0.1)):
        (gradient,) = torch.autograd.grad(pinv(data).sum(), data)
        assert torch.allclose(gradient, pinv.H(torch.ones_like(data)))
        assert torch.allclose(pinv(data), value)
    weight = torch.rand(1, 1, 3, 3, requires_grad=True)
    with torch.inference_mode():
        prepared = Conv2dOperator(weight, 6, padding=1).pinv(damp=0.1)
    (gradient,) = torch.autograd.grad(prepared(data).sum(), weight)
    again = Conv2dOperator(weight, 6, padding=1).pinv(damp=0.1)
    assert torch.allclose(gradient, torch.autograd.grad(again(data).sum(), weight)[0])


@pytest.mark.parametrize("solver", ["dense", "fourier"])
def test_a_threshold_that_cuts_what_is_not_zero_gives_no_gradient_by_the_weight(solver: str) -> None:
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    operator = Conv2dOperator(weight, 6, padding=1, padding_mode="circular")
    y = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    for damp, words in ((0.0, "cut singular values that are not zero"), (0.1, "damp meets")):
        loss = operator.pinv(solver=solver, rtol=0.3, damp=damp)(y).sum()
        torch.autograd.grad(loss, y, retain_graph=True)
        with pytest.raises(convpinv.GradientError, match=words):
            torch.autograd.grad(loss, weight)
    # One that cuts nothing, or zeros alone, is served.
    (expected,) = torch.autograd.grad(operator.pinv(solver=solver)(y).sum(), weight)
    (found,) = torch.autograd.grad(operator.pinv(solver=solver, rtol=1e-6)(y).sum(), weight)
    assert torch.allclose(found, expected)
    rank = Case(solver, (3, 2, 2, 2), {**SAME, "padding_mode": "circular"}, "repeated")
    parameters = rank.parameters(torch.float64)
    data = random_images(rank.operator(parameters).out_shape, operator)
    found, expected = (
        torch.autograd.grad(rank.operator(parameters).pinv(solver=solver, rtol=rtol)(data).sum(), parameters)[0]
        for rtol in (1e-8, None)
    )
    assert torch.allclose(found, expected)
