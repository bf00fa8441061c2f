"""Derivatives of the pseudo-inverse by data, weight and damping: numerically, against torch.linalg, of both orders."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from convpinv import Conv2dOperator
from convpinv.arguments import Boundary
from convpinv.linalg import correlation
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.solvers import choose
from convpinv.linalg.spectrum import default_rtol
from convpinv.testing import conv2d_operators, random_images
from linalg.derivative_cases import SAME, Case, arguments_of, inverse_of

# torch's forward mode loads decompositions that torch itself scripts.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


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
