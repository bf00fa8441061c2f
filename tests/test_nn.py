"""ConvPinv2d: the inverse of a live layer, tied to it through everything that happens to a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.nn import ConvPinv2d
from layers import SIZE, Autoencoder, expected, layer


@pytest.mark.parametrize(
    "conv",
    [
        torch.nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", dtype=torch.float64),
        torch.nn.Conv2d(4, 2, 3, stride=2, groups=2, bias=False, dtype=torch.float64),
        torch.nn.Conv2d(1, 1, 3, padding="same", dtype=torch.float64),
        torch.nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1, dtype=torch.float64),
    ],
    ids=str,
)
@pytest.mark.parametrize("damp", [0.0, 0.3])
def test_is_the_pseudo_inverse_without_the_bias(conv: Any, damp: float) -> None:
    module = ConvPinv2d(conv, 6, damp=damp)
    x = torch.randn(2, conv.in_channels, 6, 6, dtype=torch.float64)
    y = torch.randn_like(conv(x)).detach()
    matrix = Conv2dOperator.from_module(conv, 6).to_dense().detach()
    bias = torch.zeros(len(y[0]), dtype=y.dtype) if conv.bias is None else conv.bias.detach()
    gram = matrix.mH @ matrix + damp**2 * torch.eye(matrix.shape[1], dtype=y.dtype)
    inverse = torch.linalg.solve(gram, matrix.mH) if damp else torch.linalg.pinv(matrix, rtol=1e-12)
    found = ((y - bias[:, None, None]).flatten(1) @ inverse.mT).reshape(x.shape)
    assert torch.allclose(module(y), found, atol=1e-8)
    assert module(y[0]).shape == x[0].shape
    assert torch.allclose(module(y[0]), module(y)[0])


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_by_data_weight_bias_and_damping(learned: bool) -> None:
    conv = layer(kernel_size=2, padding=0, dtype=torch.float64)
    damp = torch.nn.Parameter(torch.tensor(0.4, dtype=torch.float64)) if learned else 0.0
    module = ConvPinv2d(conv, 4, damp=damp)
    tied = dict(module.named_parameters())
    assert set(tied) == {"conv.weight", "conv.bias"} | ({"damp"} if learned else set())
    y = torch.randn(1, 12, 2, 2, dtype=torch.float64, requires_grad=True)

    def run(data: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(tied, values, strict=True)), (data,))

    values = [value.detach().clone().requires_grad_() for value in tied.values()]
    assert torch.autograd.gradcheck(run, (y, *values), atol=1e-5)


def test_training_follows_the_layer() -> None:
    model = Autoencoder()
    x = torch.rand(4, 3, SIZE, SIZE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(12):
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    y = torch.rand(1, 12, 4, 4)
    assert torch.allclose(model.decoder(y), expected(model.decoder, y), atol=1e-6)


def sgd(module: ConvPinv2d, **options: Any) -> None:
    parameters = list(module.conv.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(parameters, lr=0.1, **options).step()


def through_data(module: ConvPinv2d) -> None:
    module.conv.weight.data.mul_(1.5)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def loaded(module: ConvPinv2d) -> None:
    module.conv.load_state_dict({name: value + 0.1 for name, value in module.conv.state_dict().items()})


def assigned(module: ConvPinv2d) -> None:
    module.conv.load_state_dict({k: v + 0.1 for k, v in module.conv.state_dict().items()}, assign=True)


def restrided(module: ConvPinv2d) -> None:
    module.conv.padding_mode = "zeros"  # pyright: ignore[reportArgumentType]


def redamped(module: ConvPinv2d) -> None:
    module.damp = 0.7


CHANGES: list[Callable[[ConvPinv2d], Any]] = [
    sgd,
    lambda module: sgd(module, foreach=True),
    lambda module: sgd(module, fused=True),
    through_data,
    loaded,
    assigned,
    restrided,
    redamped,
    lambda module: module.double(),
    lambda module: module.conv.double(),
    lambda module: module.half(),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_prepares_once_and_again_when_something_changed(
    change: Callable[[ConvPinv2d], Any], mode: Callable[[], Any], preparations: list[int]
) -> None:
    module = ConvPinv2d(layer(), SIZE, damp=0.1).eval()
    assert preparations == []
    y = torch.rand(1, 12, 4, 4)
    with mode():
        first = module(y)
        assert torch.equal(module(y), first)
    assert len(preparations) == 1
    change(module)
    y = y.to(module.conv.weight.dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with mode():
        found = module(y)
        again = module(y)
    assert len(preparations) == 2
    assert torch.equal(found, again)
    assert torch.allclose(found, expected(module, y), atol=1e-2 if y.dtype == torch.float16 else 1e-5)
    if y.dtype == torch.float32:
        assert not torch.allclose(found, first, atol=1e-3)


def test_a_frozen_layer_is_prepared_once_and_lets_gradients_of_the_data_through(preparations: list[int]) -> None:
    module = ConvPinv2d(layer().requires_grad_(False), SIZE, damp=0.1)  # in training mode, which plays no part
    with torch.inference_mode():
        module(torch.rand(1, 12, 4, 4))
    for _ in range(2):
        y = torch.rand(1, 12, 4, 4, requires_grad=True)
        module(y).square().sum().backward()
        assert y.grad is not None
    assert len(preparations) == 1


def test_a_layer_that_learns_is_prepared_for_every_graph(preparations: list[int]) -> None:
    module = ConvPinv2d(layer(), SIZE, damp=0.1).eval()
    for _ in range(2):
        module(torch.rand(1, 12, 4, 4)).sum().backward()
    assert len(preparations) == 2
    assert module.conv.weight.grad is not None


def test_prints_its_plan(preparations: list[int]) -> None:
    text = repr(ConvPinv2d(layer(), SIZE, damp=0.1, rtol=1e-3))
    assert "(12, 4, 4) → (3, 8, 8), damp=0.1, rtol=0.001, solver=fourier" in text
    assert "(conv): Conv2d(3, 12" in text
    assert "solver=dense" in repr(ConvPinv2d(layer(padding_mode="zeros"), SIZE))
    assert "damp=learned" in repr(ConvPinv2d(layer(), SIZE, damp=torch.nn.Parameter(torch.tensor(1.0))))
    assert preparations == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.nn.Linear(2, 2), 8), "module is Linear"),
        ((torch.nn.LazyConv2d(2, 3), 8), "without a weight yet"),
        ((layer(), 1), "use a smaller kernel"),
        ((layer(), 8, -1.0), "damp is -1"),
        ((layer(), 8, torch.nn.Parameter(torch.zeros(2))), "without axes"),
        ((layer(), 8, torch.tensor(1.0, requires_grad=True) * 2), r"must be a torch\.nn\.Parameter"),
        ((layer(), 8, 0.1, None, None, "magic"), "solver is 'magic'"),
        ((layer(padding_mode="zeros"), 8, 0.1, None, None, "fourier"), "Fourier refuses"),
    ],
    ids=str,
)
def test_bad_arguments_are_one_clear_line_when_it_is_made(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(convpinv.ArgumentError, match=f"^ConvPinv2d: .*{message}"):
        ConvPinv2d(*arguments)


def test_bad_data_are_one_clear_line() -> None:
    module = ConvPinv2d(layer(), SIZE)
    with pytest.raises(convpinv.ArgumentError, match=r"^ConvPinv2d: y is a float32 tensor of shape \(12, 8, 8\)"):
        module(torch.rand(12, 8, 8))
    with pytest.raises(convpinv.ArgumentError, match=r"^ConvPinv2d: y is a float64 .* the operator is float32"):
        module(torch.rand(12, 4, 4, dtype=torch.float64))
    with pytest.raises(convpinv.ArgumentError, match=r"^ConvPinv2d: y is not finite"):
        module(torch.full((12, 4, 4), float("nan")))
