"""The pseudo-inverse under torch.func, forward mode and torch.compile, and the memory of its backward pass."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import convpinv
from convpinv import Conv2dOperator, conv_pinv2d

pytestmark = [
    # torch's own: forward mode loads decompositions that it scripts, and dynamo makes a Function to trace one.
    pytest.mark.filterwarnings("ignore:`torch.jit.script.* is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]
SIZE = (4, 5)
SOLVERS = {"dense": "zeros", "krylov": "reflect", "fourier": "circular"}
DAMPS = (0.0, 0.4, 0.01)
Function = Callable[..., Tensor]


def functions(solver: str, damp: float) -> tuple[Function, Function, Tensor, Tensor]:
    """The pseudo-inverse of (weight, y), the same by a dense matrix, and arguments for both."""
    mode = SOLVERS[solver]
    weight, y = torch.randn(2, 1, 3, 3, dtype=torch.float64), torch.randn(2, *SIZE, dtype=torch.float64)

    def ours(weight: Tensor, y: Tensor) -> Tensor:
        operator = Conv2dOperator(weight, SIZE, padding=1, padding_mode=mode)
        return operator.pinv(damp=damp, solver=solver, tol=1e-13)(y)

    def dense(weight: Tensor, y: Tensor) -> Tensor:
        matrix = Conv2dOperator(weight, SIZE, padding=1, padding_mode=mode).to_dense()
        gram = matrix.mT @ matrix + damp**2 * torch.eye(20, dtype=torch.float64)
        return torch.linalg.solve(gram, matrix.mT @ y.flatten()).reshape(1, *SIZE)

    return ours, dense, weight, y


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-8) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


@pytest.mark.parametrize("damp", DAMPS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_transforms_agree_with_the_dense_matrix(solver: str, damp: float) -> None:
    ours, dense, weight, y = functions(solver, damp)

    def energy(function: Function) -> Function:
        return lambda weight, y: function(weight, y).square().sum()

    for position in (0, 1):
        jacobian = torch.autograd.functional.jacobian(dense, (weight, y))[position]
        assert isinstance(jacobian, Tensor)
        for transform in (jacrev, jacfwd):
            assert close(transform(ours, position)(weight, y), jacobian), (transform.__name__, position)
        slope = torch.autograd.functional.jacobian(energy(dense), (weight, y))[position]
        assert isinstance(slope, Tensor)
        assert close(grad(energy(ours), position)(weight, y), slope)
        second = torch.autograd.functional.hessian(energy(dense), (weight, y))[position][position]
        assert close(hessian(energy(ours), position)(weight, y), second)
        assert close(jacrev(jacrev(energy(ours), position), position)(weight, y), second)
    tangents = torch.randn_like(weight), torch.randn_like(y)
    value, tangent = jvp(ours, (weight, y), tangents)[:2]
    expected_value, expected = torch.autograd.functional.jvp(dense, (weight, y), tangents)
    assert isinstance(expected_value, Tensor)
    assert isinstance(expected, Tensor)
    assert close(value, expected_value)
    assert close(tangent, expected)
    incoming = torch.randn(1, *SIZE, dtype=torch.float64)
    for found, expected in zip(
        vjp(ours, weight, y)[1](incoming),
        torch.autograd.functional.vjp(dense, (weight, y), incoming)[1],
        strict=True,
    ):
        assert close(found, expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_vmap_over_the_data(solver: str) -> None:
    for damp in (0.0, 0.3):
        ours, _, weight, _ = functions(solver, damp)
        batch = torch.randn(3, 2, *SIZE, 2, dtype=torch.float64)
        pinv = Conv2dOperator(weight, SIZE, padding=1, padding_mode=SOLVERS[solver]).pinv(damp=damp, solver=solver)
        expected = torch.stack([pinv(entry) for entry in batch.movedim(-1, 0)])
        assert close(vmap(vmap(pinv), in_dims=-1)(batch), expected.reshape(2, 3, 1, *SIZE))
        with torch.no_grad():
            assert close(vmap(pinv, in_dims=-1)(batch), expected)
        # Per-sample gradients by one weight, and the gradient of a mapped loss: a sum over the samples.
        entries = batch[..., 0]

        def loss(weight: Tensor, y: Tensor, ours: Function = ours) -> Tensor:
            return ours(weight, y).square().sum()

        each = torch.stack([grad(loss)(weight, entry) for entry in entries])
        assert close(vmap(grad(loss), in_dims=(None, 0))(weight, entries), each)

        def total(weight: Tensor, entries: Tensor, loss: Function = loss) -> Tensor:
            return vmap(loss, in_dims=(None, 0))(weight, entries).sum()

        assert close(grad(total)(weight, entries), each.sum(0))


def test_vmap_over_the_weight_or_the_damping_says_what_to_do() -> None:
    y, weights = torch.rand(1, 6, 6), torch.rand(3, 1, 1, 3, 3)
    with pytest.raises(convpinv.ArgumentError, match=r"weight is batched by torch.func.vmap; a pseudo-inverse is prep"):
        vmap(lambda weight: conv_pinv2d(y, weight, 6, padding=1, damp=0.1))(weights)
    with pytest.raises(convpinv.ArgumentError, match=r"damp is batched by torch.func.vmap"):
        vmap(lambda damp: conv_pinv2d(y, weights[0], 6, padding=1, damp=damp))(torch.tensor([0.1, 0.2]))
    assert vmap(lambda weight: Conv2dOperator(weight, 6, padding=1)(y))(weights).shape == (3, 1, 6, 6)


def test_nothing_of_a_transform_outlives_it() -> None:
    # By FFT, whose symbol an operator keeps: kept inside a transform it would belong to the transform.
    weight = torch.rand(1, 1, 11, 11, dtype=torch.float64)
    operator = Conv2dOperator(weight, 40, padding=5)
    x = torch.rand(1, 40, 40, dtype=torch.float64)
    gradient = grad(lambda x: operator(x).square().sum())(x)
    assert torch.allclose(gradient, 2 * operator.H(operator(x)))
    kept = []

    def loss(y: Tensor) -> Tensor:
        kept.append(Conv2dOperator(weight, 40, padding=5, padding_mode="circular").pinv(damp=1.0))
        return kept[-1](y).sum()

    gradient = grad(loss)(x)
    assert torch.allclose(gradient, kept[0].H(torch.ones_like(x)))


def test_functional_call_and_damping() -> None:
    class Inverse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(1, 1, 3, 3, dtype=torch.float64))
            self.damp = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, y: Tensor) -> Tensor:
            return conv_pinv2d(y, self.weight, 6, padding=1, damp=self.damp)

    module = Inverse()
    y = torch.rand(1, 6, 6, dtype=torch.float64)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    found = grad(lambda parameters: functional_call(module, parameters, y).square().sum())(parameters)
    module(y).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert close(found[name], parameter.grad if parameter.grad is not None else torch.zeros(()), 1e-12)


class PeakMemory(TorchDispatchMode):
    """Largest number of bytes that tensors made inside held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result


@pytest.mark.parametrize(("damp", "loose"), [(0.5, 0.5), (0.0, 0.3)])
def test_memory_does_not_grow_with_iterations(damp: float, loose: float) -> None:
    weight = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    operator = Conv2dOperator(weight, 12, padding=2)
    y = torch.randn(4, *operator.out_shape, dtype=torch.float64, requires_grad=True)
    iterations, peaks, saved = [], [], []
    for tol in (loose, 1e-10):
        pinv = operator.pinv(damp=damp, solver="krylov", tol=tol)
        iterations.append(pinv.solve(y).iterations)
        held: list[int] = []

        def pack(tensor: Tensor, held: list[int] = held) -> Tensor:
            held.append(tensor.numel() * tensor.element_size())
            return tensor

        with PeakMemory() as memory, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            torch.autograd.grad(pinv(y).square().sum(), (y, weight), create_graph=True)
        peaks.append(memory.peak)
        saved.append(sum(held))
    assert iterations[0] <= 10 <= 80 <= iterations[1], iterations
    assert saved[0] == saved[1]
    assert abs(peaks[1] - peaks[0]) < 0.1 * peaks[0]


def test_the_measure_of_memory_sees_what_is_kept() -> None:
    with PeakMemory() as memory:
        kept = [torch.zeros(1000) for _ in range(10)]
        for _ in range(10):
            torch.zeros(1000)
    assert len(kept) * 4000 <= memory.peak <= (len(kept) + 1) * 4000


# Compilation


def circular(weight: Tensor) -> Conv2dOperator:
    return Conv2dOperator(weight, 8, padding=1, padding_mode="circular")


def compiled(function: Function, backend: str = "aot_eager", fullgraph: bool = True) -> Function:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=fullgraph, backend=backend)


def compare_compiled(function: Function, backend: str, y: Tensor, weight: Tensor) -> None:
    graph = compiled(function, backend)
    found, expected = graph(y), function(y)
    assert close(found, expected, 1e-4)
    ours, theirs = (torch.autograd.grad(value.square().sum(), (y, weight)) for value in (found, expected))
    for left, right in zip(ours, theirs, strict=True):
        assert close(left, right, 1e-3)


def one_shot(weight: Tensor, damp: float | Tensor) -> Function:
    return lambda y: conv_pinv2d(y, weight, 8, padding=1, padding_mode="circular", damp=damp)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the oldest torch that is served does not compile there")
@pytest.mark.parametrize("damp", [0.0, 0.01, 0.3])
def test_circular_compiles_without_breaks(damp: float) -> None:
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    y = torch.randn(2, 2, 8, 8, requires_grad=True)
    compare_compiled(circular(weight).pinv(damp=damp), "aot_eager", y, weight)
    compare_compiled(one_shot(weight, damp), "aot_eager", y, weight)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_circular_compiles_by_inductor() -> None:
    weight = torch.randn(1, 1, 3, 3, requires_grad=True)
    y = torch.randn(2, 1, 8, 8, requires_grad=True)
    compare_compiled(circular(weight).pinv(damp=0.3), "inductor", y, weight)


def test_a_compiled_gradient_by_what_changed_since_is_nan() -> None:
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    y = torch.randn(2, 2, 8, 8, requires_grad=True)
    graph = compiled(circular(weight).pinv(damp=0.3))
    before = graph(y)
    by_data, by_weight = torch.autograd.grad(before.sum(), (y, weight))
    assert torch.isfinite(by_weight).all()
    with torch.no_grad():
        weight.mul_(1.5)
    after = graph(y)
    assert torch.equal(after, before)
    again, poisoned = torch.autograd.grad(after.sum(), (y, weight))
    assert torch.equal(again, by_data)
    assert poisoned.isnan().all()


def test_where_graphs_break() -> None:
    """A damping that is a tensor must be read; iterations ask when to stop. Both run, in pieces."""
    weight = torch.rand(1, 1, 3, 3)
    y = torch.rand(1, 8, 8)
    damp = torch.tensor(0.3)
    pieces: list[Function] = [
        one_shot(weight, damp),
        Conv2dOperator(weight, 8, padding=1).pinv(damp=0.3, solver="krylov"),
    ]
    for function, data in zip(pieces, (y, y), strict=True):
        with pytest.raises(TorchDynamoException):
            compiled(function)(data)
        assert close(compiled(function, "eager", fullgraph=False)(data), function(data), 1e-4)
