"""The border solver: its three ways of elimination, its accuracy at full size, and its sense of its own error."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg.solvers.border import cost, refinement, solver
from convpinv.linalg.structure import trimmed
from convpinv.testing import check_adjoint, check_against_dense, random_images
from linalg.matrices import random, unit_operator

WAYS = ("around", "columns", "rows")
GEOMETRIES = [
    (mode, stride, channels, padding, dilation)
    for mode, stride, channels, padding, dilation in itertools.product(
        ("zeros", "circular", "reflect", "replicate"),
        ((1, 1), (2, 1), (2, 3)),
        ((1, 1, 1), (2, 3, 1), (4, 2, 2)),  # Cin, Cout, groups
        ((0, 0), (2, 1), (3, 3)),
        (1, 2),
    )
]


def normal_residual(operator: Conv2dOperator, y: Tensor, x: Tensor, damp: float) -> float:
    return float((operator.H(y - operator(x)) - damp**2 * x).norm() / operator.H(y).norm())


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way of elimination in turn, whatever it costs."""
    by_cost = cost.eliminations
    monkeypatch.setattr(
        solver,
        "eliminations",
        lambda operator, damped: sorted(by_cost(operator, damped), key=lambda found: found.way != request.param),
    )
    return request.param


def test_every_way_gives_the_dense_answer(way: str) -> None:
    count = 0
    for index, (mode, stride, channels, padding, dilation) in enumerate(GEOMETRIES):
        inputs, outputs, groups = channels
        dtype = torch.complex128 if index % 3 == 0 else torch.float64
        operator = Conv2dOperator(
            random(outputs, inputs // groups, 3, 2 + index % 3, seed=index, dtype=dtype),
            (8, 7),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=mode,
        )
        pinv = operator.pinv(damp=0.2, solver="border")
        check_against_dense(operator, pinv, damp=0.2, tol=1e-12)
        check_adjoint(pinv, tol=1e-12)
        count += 1
    assert count == len(GEOMETRIES) == 216


@pytest.mark.parametrize("damp_squared", [1e-4, 1e-8])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_what_iterations_do_not_reach(mode: str, damp_squared: float) -> None:
    operator = unit_operator(random(1, 1, 5, 5), 128, mode, 2)
    y = random_images(operator.out_shape, operator, seed=1, batch=3)
    pinv = operator.pinv(damp=damp_squared**0.5)
    assert pinv.plan.solver.name == "border"
    solution = pinv.solve(y)
    assert solution.status is convpinv.Status.DIRECT
    assert solution.residual < 1e-12
    assert normal_residual(operator, y, solution.value, damp_squared**0.5) < 1e-12
    alone = operator.pinv(damp=damp_squared**0.5)(y[1])
    assert torch.allclose(solution.value[1], alone, rtol=1e-9, atol=1e-12 * float(alone.abs().max()))


def test_a_long_blur_under_a_reflecting_border() -> None:
    kernel = convpinv.psf.motion(15, 30.0).double()
    margin = [(15 - size) // 2 for size in kernel.shape]
    weight = torch.nn.functional.pad(kernel, (margin[1], margin[1], margin[0], margin[0]))[None, None]
    operator = Conv2dOperator(
        weight, 256, padding=(weight.shape[-2] // 2, weight.shape[-1] // 2), padding_mode="reflect"
    )
    y = random_images(operator.out_shape, operator, seed=2, batch=1)
    pinv = operator.pinv(damp=1e-2)
    assert pinv.plan.solver.name == "border"
    assert pinv.solve(y).residual < 1e-12


def test_a_layer_is_inverted_exactly() -> None:
    layer = Conv2dOperator(random(8, 8, 3, 3), 32, padding=1)  # 8192 unknowns: too large to be written down
    x = random_images(layer.in_shape, layer, seed=3, batch=1)
    pinv = layer.pinv()
    assert pinv.plan.solver.name == "border"
    assert float((pinv(layer(x)) - x).norm() / x.norm()) < 1e-10
    assert float((layer(pinv(x)) - x).norm() / x.norm()) < 1e-10
    check_adjoint(pinv, tol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_tall_layer_is_inverted_exactly(stride: int) -> None:
    layer = Conv2dOperator(random(16, 3, 3, 3), 32, padding=1, stride=stride)
    x = random_images(layer.in_shape, layer, seed=4, batch=2)
    pinv = layer.pinv()
    assert pinv.plan.solver.name == "border"
    assert float((pinv(layer(x)) - x).norm() / x.norm()) < 1e-12


def test_data_outside_the_range_leave_nothing_behind() -> None:
    """Two outputs that are copies of one another: half of the data space cannot be reached."""
    operator = Conv2dOperator(random(1, 1, 2, 3).repeat(2, 1, 1, 1), (9, 8), padding=1)
    check_against_dense(operator, operator.pinv(solver="border"), tol=1e-9)
    y = random_images(operator.out_shape, operator, seed=5)
    outside = y - operator.project_range(y, solver="dense")
    assert float(operator.pinv(solver="border")(outside).norm()) < 1e-9 * float(outside.norm())
    assert float(operator.pinv(damp=0.1, solver="border")(outside).norm()) < 1e-9 * float(outside.norm())


def test_undamped_and_nearly_singular_is_refused_and_the_plan_says_so() -> None:
    operator = Conv2dOperator(random(1, 1, 5, 5), 128, padding=2)
    with pytest.raises(convpinv.SolverRefusedError, match="singular values too near 0"):
        operator.pinv(solver="border")
    text = operator.pinv().explain()
    assert text.startswith("solver   Krylov")
    assert "Border: undamped, the operator has singular values too near 0" in text


def test_strong_damping_and_loose_tolerances_iterate_for_few_applications() -> None:
    operator = unit_operator(random(1, 1, 5, 5), 160, "reflect", 2)
    for options in ({"damp": 0.2}, {"damp": 1e-3, "tol": 1e-6}):
        assert operator.plan(**options).solver.name == "krylov"  # pyright: ignore[reportArgumentType]
        assert operator.plan(**options, applications=50).solver.name == "border"  # pyright: ignore[reportArgumentType]
    assert operator.plan(damp=1e-3).solver.name == "border"


def shift(channels: int = 1) -> Tensor:
    """One tap a channel, in opposite corners: a shift over the border, nilpotent, and so singular."""
    weight = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    for channel in range(channels):
        weight[channel, channel, 2 * (channel % 2), 2 * (channel % 2)] = 1.0
    return weight


@pytest.mark.parametrize(("mode", "size"), [("zeros", 8), ("reflect", 5), ("replicate", 5), ("zeros", 48)])
def test_a_null_space_leaves_no_residual_and_is_seen_all_the_same(mode: str, size: int) -> None:
    operator = Conv2dOperator(shift(2), size, padding=1, padding_mode=mode)
    y = operator(torch.ones(operator.in_shape, dtype=torch.float64))
    found = operator.pinv(solver="border")(y)
    assert float((operator(found) - y).norm()) < 1e-10 * float(y.norm())
    assert float(found.norm()) <= operator.in_shape[1] * 2**0.5 * (1 + 1e-9), "longer than a preimage that is known"
    if size < 48:
        assert torch.allclose(found, operator.pinv(solver="dense")(y), atol=1e-9)


def test_what_the_threshold_cuts_is_not_inverted() -> None:
    """Singular values between rounding and the threshold of single precision: inverted, they would be 1e9."""
    cut = Conv2dOperator(random(1, 1, 5, 5).float(), 60, padding="same")
    with pytest.raises(convpinv.SolverRefusedError, match="singular values too near 0"):
        cut.pinv(solver="border")


def test_a_singular_value_that_is_dropped_is_noticed() -> None:
    """A shift with a faint echo: full rank, its least singular value far below what the factored system resolves."""
    weight = shift()
    weight[0, 0, 1, 1] = 3e-3
    operator = Conv2dOperator(weight, 5, padding=1)
    values = operator.svdvals()
    assert 1e-14 < float(values[-1] / values[0]) < 1e-9
    with pytest.raises(convpinv.SolverRefusedError, match="singular values too near 0"):
        operator.pinv(solver="border")


def test_a_threshold_of_ones_own_is_refused() -> None:
    operator = Conv2dOperator(random(1, 1, 3, 3), 16, padding=1)
    with pytest.raises(convpinv.SolverRefusedError, match="damp is what it can do"):
        operator.pinv(solver="border", rtol=0.1)


def test_the_plan_tells_the_cost_beforehand() -> None:
    operator = Conv2dOperator(random(32, 32, 3, 3), 128, padding=1)
    text = str(operator.plan())
    assert "border matrix 8224 x 8224, 516.0 MB kept" in text
    assert "on two cores to prepare" in text
    assert "instead  solver='krylov'" in text
    huge = Conv2dOperator(random(64, 64, 7, 7), 256, padding=3)
    with pytest.raises(convpinv.SolverRefusedError, match=r"GB to prepare, over the limit of 8.0 GB.*krylov"):
        huge.plan(solver="border")


@pytest.mark.parametrize("factor", [1e-30, 1e-5, 1e5, 1e30])
@pytest.mark.parametrize("damp", [0.0, 0.05])
def test_scaling_changes_nothing_but_the_scale(factor: float, damp: float) -> None:
    weight = random(2, 1, 3, 3)
    options: dict[str, object] = {"padding": 1, "padding_mode": "replicate"}
    plain = Conv2dOperator(weight, (9, 10), **options)  # pyright: ignore[reportArgumentType]
    scaled = Conv2dOperator(weight * factor, (9, 10), **options)  # pyright: ignore[reportArgumentType]
    y = random_images(plain.out_shape, plain, seed=6)
    expected = plain.pinv(damp=damp, solver="border")(y)
    found = scaled.pinv(damp=damp * factor, solver="border")(y) * factor
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))
    again = plain.pinv(damp=damp, solver="border")(y * factor) / factor
    assert torch.allclose(again, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


def test_single_precision_is_that_of_the_data() -> None:
    weight = random(3, 3, 3, 3).float()
    single, double = (
        Conv2dOperator(kernel, 24, padding=1, padding_mode="reflect") for kernel in (weight, weight.double())
    )
    y = random_images(single.out_shape, single, seed=7)
    found, expected = single.pinv(damp=1.0, solver="border")(y), double.pinv(damp=1.0, solver="border")(y.double())
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_zeros_around_a_kernel_are_taken_off() -> None:
    weight = torch.nn.functional.pad(random(2, 1, 2, 3), (1, 2, 3, 0))
    for mode in ("zeros", "circular", "reflect", "replicate"):
        operator = Conv2dOperator(weight, (10, 11), padding=(3, 2), dilation=1, padding_mode=mode)
        slim = trimmed(operator.convolution)
        assert slim.weight.shape[-2:] == (2, 3)
        x = random_images(operator.in_shape, operator)
        assert torch.allclose(slim._apply(x), operator(x))
        check_against_dense(operator, operator.pinv(damp=0.3, solver="border"), damp=0.3, tol=1e-12)
    lone = torch.zeros(1, 1, 1, 5)
    lone[0, 0, 0, 4] = 1.0
    beside = Conv2dOperator(lone, (12, 5), padding=(0, 2), dilation=(1, 2))
    assert torch.allclose(trimmed(beside.convolution)._apply(torch.ones(1, 1, 12, 5)), beside(torch.ones(1, 1, 12, 5)))
    assert beside.pinv(damp=0.1, solver="border")(torch.ones(beside.out_shape)).shape == (1, 12, 5)
    far = Conv2dOperator(torch.zeros(1, 1, 9, 9), 3, padding=4)
    assert not far.pinv(damp=1.0, solver="border")(torch.ones(1, 3, 3)).any()
    nothing = Conv2dOperator(torch.zeros(1, 1, 3, 3), 6, padding=1)
    assert trimmed(nothing.convolution).weight.shape[-2:] == (1, 1)
    assert not nothing.pinv(damp=0.1, solver="border")(torch.rand(1, 6, 6)).any()


def test_refinement_knows_its_error() -> None:
    """A solve that is a tenth wrong each time: what is left after the last step is what the estimate says."""
    truth = random(2, 1, 4, 4)

    def norms(value: Tensor) -> Tensor:
        return value.flatten(1).norm(dim=1)

    good = refinement.refine(lambda left: 0.9 * left, lambda value: truth - value, truth, norms)
    assert torch.allclose(good.value, truth, rtol=1e-13)
    assert good.steps > 5
    assert bool((good.error <= 1e-13 * norms(truth)).all())
    slow = refinement.refine(lambda left: 0.2 * left, lambda value: truth - value, truth, norms)
    assert torch.allclose(slow.error, norms(truth - slow.value), rtol=1e-6)
    broken = refinement.refine(lambda left: left * torch.nan, lambda value: truth - value, truth, norms)
    assert bool(torch.isinf(broken.error).all())


def test_an_inaccurate_answer_is_never_given_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Conv2dOperator(random(1, 1, 3, 3), 12, padding=1)
    pinv = operator.pinv(damp=0.1, solver="border")
    monkeypatch.setattr(solver, "ACCURACY", 0.0)
    pinv.plan.problem.__dict__["accuracy"] = 1e-25
    y = random_images(operator.out_shape, operator)
    assert pinv.solve(y).status is convpinv.Status.INACCURATE
    with pytest.raises(convpinv.ConvergenceError, match="not to the accuracy, with an error of about"):
        pinv(y)
