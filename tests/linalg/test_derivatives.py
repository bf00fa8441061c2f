"""Derivatives of the pseudo-inverse by data, weight and damping: numerically, against torch.linalg, of both orders."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import convpinv
from convpinv import Conv2dOperator, conv_pinv2d
from convpinv.arguments import Boundary
from convpinv.linalg import correlation
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.solvers import choose
from convpinv.linalg.spectrum import default_rtol
from convpinv.testing import conv2d_operators, random_images

# torch's forward mode loads decompositions that torch itself scripts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
SIZE = (4, 5)
WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "free": lambda weight: weight,
    # A perturbation of the factors stays a product: what the separable solver needs.
    "product": lambda channels, rows, columns: torch.einsum("oc,t,u->octu", channels, rows, columns),
    # All outputs alike: the rank is that of one output, and stays so.
    "repeated": lambda base: base.repeat(3, 1, 1, 1),
    # A difference along the rows: exactly zero at the frequency zero, whatever the factor.
    "difference": lambda base: torch.cat([base, -base], 2),
}


@dataclass(frozen=True)
class Case:
    """One operator of the grid: how its weight is made, its geometry, and who solves."""

    solver: str
    shape: tuple[int, int, int, int]
    options: dict[str, object]
    kind: str = "free"
    damps: tuple[float, ...] = (0.0, 0.4, 0.02)
    tol: float = 1e-13

    def __str__(self) -> str:
        words = "-".join(str(value) for value in self.options.values())
        return f"{self.solver}-{'x'.join(map(str, self.shape))}-{words}-{self.kind}"

    def parameters(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What the weight is made of."""
        outputs, inputs, rows, columns = self.shape
        shapes = {
            "free": [self.shape],
            "product": [(outputs, inputs), (rows,), (columns,)],
            "repeated": [(outputs // 3, inputs, rows, columns)],
            "difference": [(outputs, inputs, rows // 2, columns)],
        }[self.kind]
        generator = torch.Generator().manual_seed(11)
        return tuple(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)

    def operator(self, parameters: tuple[Tensor, ...]) -> Conv2dOperator:
        return Conv2dOperator(WEIGHTS[self.kind](*parameters), SIZE, **self.options)  # pyright: ignore[reportArgumentType]


SAME = {"padding": "same"}
CASES = [
    *(Case("dense", (1, 1, 3, 3), {"padding": 1, "padding_mode": str(mode)}) for mode in Boundary),
    *(Case("dense", (2, 1, 3, 2), {"padding": 1, "stride": 2, "padding_mode": str(mode)}) for mode in Boundary),
    Case("dense", (1, 1, 2, 2), {"padding": "valid"}),
    Case("dense", (1, 1, 2, 4), {**SAME, "padding_mode": "reflect"}),
    Case("dense", (1, 1, 3, 2), {"padding": (2, 1)}),  # full
    Case("dense", (2, 1, 2, 3), {"padding": 1, "groups": 2, "stride": (2, 1), "padding_mode": "replicate"}),
    Case("dense", (1, 2, 2, 2), {"padding": 1, "dilation": 2, "padding_mode": "circular"}),
    Case("dense", (3, 2, 2, 2), {"padding": 1}, "repeated"),
    Case("dense", (2, 1, 2, 2), {**SAME, "padding_mode": "circular"}, "difference"),
    *(Case("fourier", (1, 1, 3, 3), {"padding": 1, "padding_mode": mode}) for mode in ("circular",)),
    Case("fourier", (2, 2, 2, 3), {**SAME, "padding_mode": "circular"}),
    Case("fourier", (2, 1, 2, 3), {**SAME, "padding_mode": "circular", "groups": 2}),
    Case("fourier", (3, 1, 4, 3), {"padding": (1, 1), "stride": (2, 1), "padding_mode": "circular"}),
    Case("fourier", (1, 1, 3, 3), {"padding": 2, "dilation": 2, "padding_mode": "circular"}),
    Case("fourier", (3, 2, 2, 2), {**SAME, "padding_mode": "circular"}, "repeated"),
    Case("fourier", (1, 1, 2, 3), {**SAME, "padding_mode": "circular"}, "difference"),
    *(Case("separable", (2, 1, 3, 2), {"padding": 1, "padding_mode": str(mode)}, "product") for mode in Boundary),
    Case("separable", (1, 2, 2, 3), {"padding": "valid", "stride": (1, 2)}, "product"),
    *(Case("krylov", (2, 1, 2, 2), {**SAME, "padding_mode": str(mode)}, damps=(0.0, 0.4)) for mode in Boundary),
    Case("krylov", (1, 1, 2, 2), {"padding": "valid"}, damps=(0.0, 0.4)),
    Case("krylov", (1, 1, 2, 3), {"padding": (1, 2)}, damps=(0.0, 0.02)),  # full
    Case("krylov", (1, 2, 2, 3), {"padding": 1, "stride": 2}, damps=(0.0, 0.4)),
    # Data outside the range leave the undamped iteration fewer digits.
    Case("krylov", (3, 1, 2, 2), {"padding": "valid"}, "repeated", tol=1e-11),
]
# Solvers that are not named above serve every border; they go over the geometries of the dense one. "blocks" wants
# pictures larger than its response: test_blocks.py.
CASES += [
    Case(name, case.shape, case.options, case.kind, case.damps)
    for name in choose.NAMES
    if name not in {"blocks", *(case.solver for case in CASES)}
    for case in CASES
    if case.solver == "dense"
]


def channels_in(case: Case) -> int:
    return case.shape[1] * int(str(case.options.get("groups", 1)))


def inverse_of(case: Case, adjoint: bool) -> Callable[..., Tensor]:
    """The pseudo-inverse as a function of data, damping and the weight's parameters."""

    def run(data: Tensor, damp: Tensor | float, *parameters: Tensor) -> Tensor:
        pinv = case.operator(parameters).pinv(damp=damp, solver=case.solver, tol=case.tol)
        return pinv.H(data) if adjoint else pinv(data)

    return run


def arguments_of(case: Case, damp: float, adjoint: bool, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    parameters = case.parameters(dtype)
    operator = case.operator(parameters)
    data = random_images(operator.in_shape if adjoint else operator.out_shape, operator, 3, 1).requires_grad_()
    damping = torch.tensor(damp, dtype=torch.float64, requires_grad=True) if damp else 0.0
    return data, damping, *parameters


@pytest.mark.parametrize("adjoint", [False, True], ids=["pinv", "adjoint"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_both_orders_by_data_weight_and_damping(case: Case, adjoint: bool) -> None:
    for damp in case.damps[1 if adjoint and case.solver == "krylov" else 0 :]:
        run, given_arguments = inverse_of(case, adjoint), arguments_of(case, damp, adjoint)
        # An entry's scale goes with 1/damp, and that of a second derivative with its cube.
        scale = float(run(*given_arguments).detach().abs().max())
        assert gradcheck(run, given_arguments, atol=1e-5 * max(1.0, scale**2), rtol=1e-4, fast_mode=True), damp
        if case.solver == "krylov" and case.options.get("padding_mode") in ("reflect", "replicate") and not damp:
            continue  # the second order of undamped iterations takes seconds; the other two borders show it
        assert gradgradcheck(run, given_arguments, atol=1e-4 * max(1.0, scale**3), rtol=1e-3, fast_mode=True), damp


def test_the_grid_holds_what_it_claims() -> None:
    geometries = {(case.shape, str(case.options), case.kind) for case in CASES}
    assert len(geometries) >= 24
    assert {case.solver for case in CASES} | {"blocks"} == set(choose.NAMES), "every solver"
    assert {case.options.get("padding_mode", "zeros") for case in CASES} == {str(mode) for mode in Boundary}
    for case in CASES:
        if case.kind in ("repeated", "difference"):
            matrix = case.operator(case.parameters(torch.float64)).to_dense().detach()
            assert torch.linalg.matrix_rank(matrix, rtol=1e-10) < min(matrix.shape), f"{case} lacks no rank"


SLOW_CASES = [case for case in CASES if case.solver == "dense"][::4] + [
    case for case in CASES if case.solver == "fourier"
][:2]


@pytest.mark.parametrize("case", SLOW_CASES, ids=str)
def test_every_entry_of_the_jacobian_in_all_modes(case: Case) -> None:
    for damp in case.damps[:2]:
        run, given_arguments = inverse_of(case, False), arguments_of(case, damp, False)
        assert gradcheck(run, given_arguments, atol=1e-4, rtol=1e-3, check_forward_ad=True)
        assert gradgradcheck(run, given_arguments, atol=1e-4, rtol=1e-3, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("case", [CASES[0], CASES[7], CASES[13], CASES[15], CASES[17], CASES[20], CASES[23]], ids=str)
def test_complex_kernels(case: Case) -> None:
    for damp in (0.0, 0.4, 0.02):
        run = inverse_of(case, False)
        given_arguments = arguments_of(case, damp, False, torch.complex128)
        assert gradcheck(run, given_arguments, atol=1e-4, rtol=1e-3, fast_mode=True, check_forward_ad=True)
        assert gradgradcheck(run, given_arguments, atol=1e-3, rtol=1e-3, fast_mode=True)


@given(conv2d_operators(), st.sampled_from([0.0, 0.02, 0.5]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_gradients_are_those_of_the_dense_matrix(operator: Conv2dOperator, damp: float, adjoint: bool) -> None:
    values = torch.linalg.svdvals(operator.to_dense())
    threshold = default_rtol(torch.float64, (operator.in_shape[1], operator.in_shape[2])) * values[0]
    kept = values[values > threshold]
    condition = float(values[0] / (kept[-1] + damp))
    assume(bool(((values < 1e-13 * values[0]) | (values > 1e-6 * values[0])).all()) and condition < 1e3)
    weight = operator.weight.clone().requires_grad_()
    tracked = Conv2dOperator._of(Convolution(weight, operator.geometry))
    pinv = tracked.pinv(damp=damp)
    matrix = tracked.to_dense()
    if damp:
        gram = matrix.mT @ matrix + damp**2 * torch.eye(matrix.shape[1], dtype=matrix.dtype)
        inverse = torch.linalg.solve(gram, matrix.mT)
    else:
        inverse = torch.linalg.pinv(matrix, rtol=float(threshold / values[0]))
    if adjoint:
        pinv, inverse = pinv.H, inverse.mT
    data = random_images(pinv.in_shape, pinv, seed=1).requires_grad_()
    incoming = random_images(pinv.out_shape, pinv, seed=2)
    found = torch.autograd.grad(pinv(data), (data, weight), incoming)
    expected = torch.autograd.grad((data.flatten(1) @ inverse.mT), (data, weight), incoming.flatten(1))
    assert torch.equal(found[0], pinv.H(incoming).detach())
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-9 * condition**2 * theirs.norm() + 1e-12


@pytest.mark.parametrize("by_fft", [False, True], ids=["direct", "fft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def test_weight_gradient_is_that_of_autograd(dtype: torch.dtype, by_fft: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tolerance = 2e-6 if torch.finfo(dtype).eps > 1e-10 else 1e-14
    for mode, stride, dilation, groups, taps in itertools.product(
        Boundary, (1, 2, (3, 1)), (1, 2), (1, 2), ((3, 3), (2, 4))
    ):
        weight = torch.randn(4, 4 // groups, *taps, dtype=dtype, requires_grad=True)
        operator = Conv2dOperator(weight, (9, 11), stride, (2, 1), dilation, groups, str(mode))
        image, output = (random_images(shape, operator) for shape in (operator.in_shape, operator.out_shape))
        (expected,) = torch.autograd.grad((output.conj() * operator(image)).real.sum(), weight)
        with monkeypatch.context() as patch:
            patch.setattr(correlation, "prefers_fft", lambda *_: by_fft)
            found = correlation.weight_gradient(image, output, operator.geometry)
        assert (found - expected).norm() <= tolerance * expected.norm(), (mode, stride, dilation, groups, taps)


def test_weight_gradient_of_padding_that_leaves_pixels_out() -> None:
    axis = Axis(size=7, taps=3, stride=2, dilation=1, before=1, after=-1, boundary=Boundary.ZEROS)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    convolution = Convolution(weight, Geometry(axis, axis, 3, 2, 1))
    image, output = (random_images(shape, convolution) for shape in (convolution.in_shape, convolution.out_shape))
    (expected,) = torch.autograd.grad((output * convolution(image)).sum(), weight)
    assert torch.allclose(correlation.weight_gradient(image, output, convolution.geometry), expected)


def test_large_kernels_by_fft_give_the_gradient_of_the_circular_solver() -> None:
    weight = torch.randn(1, 1, 11, 9, dtype=torch.float64, requires_grad=True)
    operator = Conv2dOperator(weight, 32, padding="same", padding_mode="circular")
    assert correlation.prefers_fft(operator.geometry, weight.dtype)
    y = random_images(operator.out_shape, operator)
    (found,) = torch.autograd.grad(operator.pinv(damp=1.0)(y).square().sum(), weight)
    matrix = operator.to_dense()
    gram = matrix.mT @ matrix + torch.eye(matrix.shape[1], dtype=matrix.dtype)
    (expected,) = torch.autograd.grad((torch.linalg.solve(gram, matrix.mT) @ y.flatten(1).mT).square().sum(), weight)
    assert (found - expected).norm() <= 1e-10 * expected.norm()


@pytest.mark.parametrize("solver", ["dense", "krylov"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_small_damping_in_single_precision(solver: str, outputs: int) -> None:
    """Dividing by damp² alone would leave 2 % of error here, and 30 % in the gradient by damp."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(outputs, 4 - outputs, 3, 3, generator=generator)
    precise = weight.double().requires_grad_()
    operator = Conv2dOperator(precise, (8, 9), padding=1)
    damp = torch.tensor(1e-3 * operator.norm(), dtype=torch.float64, requires_grad=True)
    y = random_images(operator.out_shape, operator, 2)
    incoming = random_images(operator.in_shape, operator, 3)
    matrix = operator.to_dense()
    wide = matrix.shape[0] < matrix.shape[1]
    gram = (matrix @ matrix.mT if wide else matrix.mT @ matrix) + damp**2 * torch.eye(72, dtype=torch.float64)
    value = (
        matrix.mT @ torch.linalg.solve(gram, y.flatten(1).mT)
        if wide
        else torch.linalg.solve(gram, matrix.mT @ y.flatten(1).mT)
    )
    expected = torch.autograd.grad((value * incoming.flatten(1).mT).sum(), (precise, damp))
    single = weight.requires_grad_()
    small = damp.detach().float().requires_grad_()
    pinv = Conv2dOperator(single, (8, 9), padding=1).pinv(damp=small, solver=solver)
    found = torch.autograd.grad((pinv(y.float()) * incoming.float()).sum(), (single, small))
    for ours, theirs, bound in zip(found, expected, (1e-5, 1e-4), strict=True):
        assert (ours - theirs).norm() <= bound * theirs.norm()


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
