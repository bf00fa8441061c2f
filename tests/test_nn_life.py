"""ConvPinv2d in the life of a network: copies, replicas, parametrizations, precision, compilers; whose the state is."""

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

from convpinv.nn import ConvPinv2d
from layers import SIZE, Autoencoder, expected, layer

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
