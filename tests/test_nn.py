"""ConvPinv2d: the inverse of a live layer, tied to it through everything that happens to a module."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import replicate as replicas
from torch.nn.utils import parametrizations, parametrize

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg.inverse import Inverse
from convpinv.nn import ConvPinv2d

SIZE = 8


def layer(**options: Any) -> torch.nn.Conv2d:
    options = {"kernel_size": 4, "stride": 2, "padding": 1, "padding_mode": "circular"} | options
    return torch.nn.Conv2d(3, 12, **options)


class Autoencoder(torch.nn.Module):
    """An encoder, and a decoder tied to it; in either order, since some of torch depends on it."""

    decoder: ConvPinv2d
    encoder: torch.nn.Sequential

    def __init__(self, decoder_first: bool = False, **options: Any) -> None:
        super().__init__()
        conv = layer(**options)
        if decoder_first:
            self.decoder = ConvPinv2d(conv, SIZE)
        self.encoder = torch.nn.Sequential(conv)
        if not decoder_first:
            self.decoder = ConvPinv2d(conv, SIZE)

    @property
    def weight(self) -> Tensor:
        conv = self.encoder[0]
        assert isinstance(conv, torch.nn.Conv2d)
        return conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


def expected(module: ConvPinv2d, y: Tensor) -> Tensor:
    operator = Conv2dOperator.from_module(module.conv, module.input_size).detach()
    bias = module.conv.bias
    assert isinstance(bias, Tensor)
    damp = float(module.damp)
    return operator.pinv(damp=damp)(y - bias.detach()[:, None, None])


@pytest.fixture
def preparations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each pseudo-inverse that is prepared."""
    counts: list[int] = []
    prepare = Inverse.prepare

    def counted(*args: Any) -> Inverse:
        counts.append(1)
        return prepare(*args)

    monkeypatch.setattr(Inverse, "prepare", staticmethod(counted))
    return counts


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


# What belongs to whom


@pytest.mark.parametrize("decoder_first", [False, True])
def test_a_tied_decoder_adds_neither_keys_nor_parameters(decoder_first: bool) -> None:
    model, other = Autoencoder(decoder_first), Autoencoder(decoder_first)
    assert set(model.state_dict()) == {"encoder.0.weight", "encoder.0.bias"}
    assert len(list(model.parameters())) == 2
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        before = model(x)
        assert not torch.allclose(other(x), before)
        for assign in (False, True):
            state = {name: value.clone() for name, value in model.state_dict().items()}
            result = other.load_state_dict(state, assign=assign)
            assert not result.missing_keys
            assert not result.unexpected_keys
            assert set(state) == set(model.state_dict())  # nothing is put into what the caller gave
            assert other.encoder[0] is other.decoder.conv
            assert torch.equal(other(x), before)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**model.state_dict(), "decoder.nonsense": torch.zeros(1)})


def test_a_learned_damping_is_state() -> None:
    damp = torch.nn.Parameter(torch.tensor(0.5))
    module = ConvPinv2d(layer(), SIZE, damp=damp)
    assert list(module.state_dict()) == ["damp"]
    other = ConvPinv2d(layer(), SIZE, damp=torch.nn.Parameter(torch.tensor(0.1)))
    other.load_state_dict(module.state_dict())
    assert isinstance(other.damp, Tensor)
    assert float(other.damp.detach()) == 0.5
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})
    module(torch.rand(1, 12, 4, 4)).square().sum().backward()
    assert damp.grad is not None
    parametrize.register_parametrization(module, "damp", torch.nn.Softplus())
    with torch.no_grad():
        module.parametrizations.damp.original.fill_(-3.0)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert isinstance(module.damp, Tensor)
    assert 0.0 < float(module.damp.detach()) < 0.1
    with torch.no_grad():  # prepared, and not for a graph
        assert torch.isfinite(module(torch.rand(1, 12, 4, 4))).all()
    module(torch.rand(1, 12, 4, 4)).sum().backward()


def test_alone_it_moves_its_layer_and_shows_its_parameters() -> None:
    module = ConvPinv2d(layer(), SIZE).double()
    assert module.conv.weight.dtype == torch.float64
    assert len(list(module.parameters())) == 2
    assert not module.state_dict()
    assert module(torch.rand(1, 12, 4, 4, dtype=torch.float64)).dtype == torch.float64
    module.load_state_dict({})
    state = layer(dtype=torch.float64).state_dict(prefix="conv.")
    module.load_state_dict(state)  # who has the layer's state may still give it
    assert torch.equal(module.conv.weight, state["conv.weight"])  # pyright: ignore[reportArgumentType]


def saved_and_loaded(model: torch.nn.Module) -> torch.nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved_and_loaded]
)
def test_copies_keep_the_tie_and_nothing_that_was_prepared(
    duplicate: Callable[[Any], Any], preparations: list[int]
) -> None:
    model = Autoencoder()
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        before = model(x)
    twin = duplicate(model)
    assert len(preparations) == 1
    assert twin.decoder.conv is twin.encoder[0]
    assert twin.decoder.conv is not model.decoder.conv
    assert set(twin.state_dict()) == {"encoder.0.weight", "encoder.0.bias"}
    with torch.no_grad():
        assert torch.equal(twin(x), before)
        assert len(preparations) == 2
        twin.weight.mul_(2.0)
        assert not torch.allclose(twin(x), before)
        assert torch.equal(model(x), before)


def test_replicas_of_data_parallel_keep_the_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    # What torch.nn.DataParallel does on each call, with the copy between devices left out.
    monkeypatch.setattr(
        sys.modules["torch.nn.parallel.replicate"],
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [[tensor * 1.0 for tensor in tensors] for _ in devices],
    )
    model = Autoencoder()
    x = torch.rand(2, 3, SIZE, SIZE)
    for twin in replicas(model, [0, 1]):  # pyright: ignore[reportArgumentType]
        assert twin.decoder.conv is twin.encoder[0]
        assert twin.decoder.conv is not model.encoder[0]
        assert torch.allclose(twin(x), model(x), atol=1e-6)
        (twin(x) - x).square().sum().backward()
    assert model.weight.grad is not None


def test_functional_call_reaches_both() -> None:
    model = Autoencoder()
    x = torch.rand(2, 3, SIZE, SIZE)
    other = Autoencoder()
    found = torch.func.functional_call(model, dict(other.named_parameters()), (x,))
    assert torch.allclose(found, other(x), atol=1e-6)


# Parametrizations, precision, compilers


def test_spectral_normalisation(preparations: list[int]) -> None:
    conv = parametrizations.spectral_norm(layer())
    module = ConvPinv2d(conv, SIZE, damp=0.1)
    y = torch.rand(1, 12, 4, 4)
    module(y).square().sum().backward()
    original: Any = conv.parametrizations.weight.original  # pyright: ignore[reportAttributeAccessIssue]
    assert original.grad is not None
    assert original.grad.abs().max() > 0
    module.eval()  # reaches the layer: its power iteration rests, and the weight that is computed anew is the same
    preparations.clear()
    with torch.no_grad():
        first = module(y)
        assert torch.equal(module(y), first)
        assert len(preparations) == 1
        original[0].mul_(3.0)
        assert torch.allclose(module(y), expected(module, y), atol=1e-5)
        assert not torch.allclose(module(y), first, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_and_autocast(dtype: torch.dtype) -> None:
    model = Autoencoder()
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model.encoder(x)
        found = model.decoder(y)
        assert found.dtype == y.dtype == torch.bfloat16
    assert torch.equal(found, model.decoder(y.float()).bfloat16())
    (found.float() - x).square().mean().backward()
    assert model.weight.grad is not None
    assert torch.isfinite(model.weight.grad).all()
    model = model.to(dtype)
    found = model(x.to(dtype))
    assert found.dtype == dtype
    found.float().square().mean().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == dtype
    assert ConvPinv2d(layer(dtype=torch.complex64), SIZE)(torch.rand(12, 4, 4) + 0j).dtype == torch.complex64


def test_compiled() -> None:
    model = Autoencoder().eval()
    x = torch.rand(2, 3, SIZE, SIZE)
    compiled: Any = torch.compile(model, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(x), model(x), atol=1e-6)
        model.weight.mul_(1.3)
        assert torch.allclose(compiled(x), model(x), atol=1e-6)
    torch.compiler.reset()


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
