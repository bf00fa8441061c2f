"""Singular values, norms, bounds, condition numbers: against ``torch.linalg`` on the matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg import bounds, eigenvalues, leading_values, pinv, svd, symbol_norm
from convpinv.linalg.eigenvalues import HermitianMap, largest_eigenpairs
from convpinv.linalg.solvers import choose
from convpinv.linalg.solvers.krylov import Krylov
from convpinv.testing import conv2d_operators
from linalg.matrices import BASE, dense_values, mixing, random

GEOMETRIES: dict[str, tuple[Tensor, Any, dict[str, Any]]] = {
    "zeros": (random(1, 1, 5, 5), (24, 27), {"padding": 2}),
    "valid": (random(1, 1, 4, 3), (26, 25), {}),
    "full": (random(1, 1, 3, 3), 24, {"padding": 2}),
    "reflect": (random(1, 1, 5, 5), 25, {"padding": 2, "padding_mode": "reflect"}),
    "replicate": (random(2, 2, 3, 3), (17, 18), {"padding": 1, "padding_mode": "replicate"}),
    "circular beyond a turn": (random(2, 2, 3, 3), 17, {"padding": 2, "padding_mode": "circular"}),
    "circular, stride that does not divide": (
        random(4, 1, 3, 3),
        25,
        {"stride": 2, "padding": 1, "padding_mode": "circular"},
    ),
    "strided": (random(5, 2, 3, 3), 24, {"stride": 2, "padding": 1}),
    "strides that differ": (random(2, 2, 3, 4), (20, 22), {"stride": (1, 2), "padding": 1, "padding_mode": "reflect"}),
    "tall": (random(3, 1, 3, 3), 21, {"padding": 2}),
    "groups": (random(4, 2, 3, 3), 14, {"groups": 2, "padding": 1}),
    "dilated": (random(2, 2, 3, 3), 18, {"dilation": 2, "padding": 2}),
    "complex": (random(2, 2, 3, 3, dtype=torch.complex128), 17, {"padding": 1}),
    "equal groups": (BASE.expand(6, 1, 3, 3).clone(), 12, {"groups": 6, "padding": 1}),
    "six-fold values": (mixing(BASE, 6), 12, {"padding": 1}),
    "symmetric kernel": (
        (BASE + BASE.flip(0) + BASE.flip(1) + BASE.flip(0, 1))[None, None],
        26,
        {"padding": 1},
    ),
    "one value only": (torch.linalg.qr(random(5, 5))[0][:, :, None, None], 12, {}),
    "deficient": (random(1, 3, 3, 3).repeat(3, 1, 1, 1), 14, {"padding": 1}),
}


@pytest.fixture(params=GEOMETRIES, ids=str)
def operator(request: pytest.FixtureRequest) -> Conv2dOperator:
    weight, size, options = GEOMETRIES[request.param]
    return Conv2dOperator(weight, size, **options)


def iterated(operator: Conv2dOperator, count: int) -> Tensor:
    """Leave out the decompositions that serve operators as small as these."""
    scaled = svd.unit(operator.convolution)
    return leading_values.leading_values("svdvals", scaled.operator, count) * scaled.scale


def test_iterated_values_with_their_multiplicities(operator: Conv2dOperator) -> None:
    values = dense_values(operator)
    for count in (1, 10):
        assert torch.allclose(iterated(operator, count), values[:count], rtol=1e-8, atol=1e-12), count


def test_exact_values_and_norm(operator: Conv2dOperator) -> None:
    values = dense_values(operator)
    assert torch.allclose(operator.svdvals(), values, rtol=1e-9, atol=1e-12)
    assert torch.allclose(operator.H.svdvals(k=4), values[:4], rtol=1e-9)
    assert operator.norm() == pytest.approx(float(values[0]), rel=1e-9)
    assert operator.H.norm() == operator.norm()


def test_bounds_of_the_grid(operator: Conv2dOperator) -> None:
    largest = float(dense_values(operator)[0])
    lower, upper = operator.norm_bounds()
    assert lower <= largest <= upper
    assert lower >= 0.97 * largest
    if operator.geometry.boundary == "zeros":
        assert upper <= 1.1 * largest


def test_condition_number_by_the_pseudo_inverse(operator: Conv2dOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    values = dense_values(operator)
    monkeypatch.setattr(svd, "exact_values", lambda scaled, limit: None)
    if float(values[-1]) < 1e-12 * float(values[0]):
        assert operator.cond() == float("inf")
    else:
        assert operator.cond() == pytest.approx(float(values[0] / values[-1]), rel=1e-6)


def test_condition_number_by_all_values(operator: Conv2dOperator) -> None:
    values = dense_values(operator)
    if float(values[-1]) < 1e-12 * float(values[0]):
        assert operator.cond() == operator.H.cond() == float("inf")
    else:
        assert operator.cond() == pytest.approx(float(values[0] / values[-1]), rel=1e-6)


@given(conv2d_operators())
@settings(max_examples=150, deadline=None)
def test_any_operator(operator: Conv2dOperator) -> None:
    values = dense_values(operator)
    largest = float(values[0])
    lower, upper = operator.norm_bounds()
    assert lower <= largest <= upper
    assert torch.allclose(operator.svdvals(), values, atol=1e-12 * largest, rtol=0)
    count = min(len(values), 7)
    found = iterated(operator, count)
    # The bound that is stated, on squares.
    allowed = torch.clamp(2e-8 * found**2, min=2e-13 * largest**2)
    assert bool(((found**2 - values[:count] ** 2).abs() <= allowed).all())


@given(conv2d_operators(dtype=torch.complex128))
@settings(max_examples=40, deadline=None)
def test_any_complex_operator(operator: Conv2dOperator) -> None:
    values = dense_values(operator)
    lower, upper = operator.norm_bounds()
    assert lower <= float(values[0]) <= upper
    assert float(iterated(operator, 1)[0]) == pytest.approx(float(values[0]), rel=1e-8)
    assert torch.allclose(operator.svdvals(), values, atol=1e-11)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate"])
def test_large_operators_iterate(mode: str) -> None:
    operator = Conv2dOperator(random(1, 1, 5, 5, dtype=torch.float32), 72, padding=2, padding_mode=mode)
    values = operator.svdvals(k=4)
    assert values.dtype == torch.float32
    assert values.shape == (4,)
    assert operator.norm() == pytest.approx(float(values[0]), rel=1e-6)
    lower, upper = operator.norm_bounds()
    assert lower <= operator.norm() <= upper
    # At this size the norm is independent of the border to a per cent: an estimate that owes nothing to the package.
    x = random(1, 1, 72, 72, dtype=torch.float32)
    for _ in range(60):
        x = operator.H(operator(x))
        x = x / x.norm()
    assert 0.9 * operator.norm() < float(operator(x).norm()) <= operator.norm() * (1 + 1e-5)


def diagonal(values: Tensor) -> HermitianMap:
    return HermitianMap(lambda rows: rows * values, len(values), torch.float64, torch.device("cpu"))


def test_multiple_values_are_not_missed() -> None:
    values = torch.cat([torch.full((40,), 2.0), torch.linspace(1.0, 0.0, 160)]).double()
    pairs = largest_eigenpairs(diagonal(values), 36, 1e-8, 500)
    assert pairs.is_converged
    assert torch.allclose(pairs.values, torch.full((36,), 2.0, dtype=torch.float64))
    gram = pairs.vectors @ pairs.vectors.mT
    assert torch.allclose(gram, torch.eye(36, dtype=torch.float64), atol=1e-12)


def test_a_second_start_finds_what_the_first_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.cat([torch.tensor([5.0, 5.0, 4.0]), torch.linspace(3.0, 0.0, 97)]).double()
    draw, calls = eigenvalues._random, []

    def unlucky(*arguments: Any) -> Tensor:
        calls.append(1)
        rows = draw(*arguments)
        if len(calls) == 1:  # a first start without any part in the leading eigenvectors
            rows[:, :3] = 0.0
        return rows

    monkeypatch.setattr(eigenvalues, "_random", unlucky)
    pairs = largest_eigenpairs(diagonal(values), 5, 1e-8, 500)
    assert pairs.is_converged
    assert torch.allclose(pairs.values, values[:5], rtol=1e-9)


def test_an_iteration_that_stops_early_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading_values, "MAX_ITERATIONS", 3)
    operator = Conv2dOperator(random(1, 1, 5, 5), 40, padding=2)
    with pytest.raises(convpinv.ConvergenceError, match=r"^svdvals: the iteration stopped after 3 steps"):
        operator.svdvals(k=10)


def test_norms_of_symbols() -> None:
    # Certificates in single and in double precision, by direct sums and by the FFT, one channel and many.
    for shape, size, options in (
        ((10, 9, 3, 3), (8, 6), {}),
        ((8, 10, 3, 3), (7, 6), {"dilation": 2}),
        ((12, 3, 4, 4), (8, 10), {"stride": 2}),
        ((3, 4, 9, 9), (12, 9), {}),
        ((1, 7, 3, 3), 9, {}),
        ((140, 130, 2, 1), (2, 2), {}),
    ):
        options = {**options, "padding": 1 if "stride" in options else "same"}
        operator = Conv2dOperator(random(*shape), size, padding_mode="circular", **options)
        assert operator.norm() == pytest.approx(float(dense_values(operator)[0]), rel=1e-12)
    # More frequencies than are probed first: the largest is found among those that were not.
    for seed in range(6):
        operator = Conv2dOperator(random(5, 6, 3, 3, seed=seed), (31, 40), padding="same", padding_mode="circular")
        assert operator.norm() == pytest.approx(float(operator.svdvals()[0]), rel=1e-13)
    # Every frequency has the same norm: nothing can be cleared in single precision.
    flat = Conv2dOperator(torch.linalg.qr(random(12, 12))[0][:, :, None, None], 30)
    assert flat.norm() == pytest.approx(1.0, rel=1e-12)


def test_supremum_lies_above_every_frequency_and_near_the_largest() -> None:
    for seed in range(20):
        weight = random(3, 2, 4, 3, seed=seed)
        operator = Conv2dOperator(weight, 40)
        fine = symbol_norm.sample(operator.convolution, (210, 210))[0]
        dense_grid = symbol_norm.largest_norm(fine)
        (bound,) = symbol_norm.supremum(operator.convolution)
        assert dense_grid <= bound <= 1.02 * dense_grid


def test_schur_bound_is_tight_for_blurs() -> None:
    box = Conv2dOperator(torch.full((1, 1, 5, 5), 1 / 25, dtype=torch.float64), 40, padding=2, padding_mode="reflect")
    assert box.norm() <= box.norm_bounds()[1] <= 1.3
    assert bounds.padding_norm(box.convolution) == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e200])
def test_kernels_of_any_scale(factor: float) -> None:
    for mode in ("zeros", "circular"):
        options: dict[str, Any] = {"padding": 1, "padding_mode": mode}
        plain = Conv2dOperator(random(2, 2, 3, 3), 8, **options)
        scaled = Conv2dOperator(random(2, 2, 3, 3) * factor, 8, **options)
        assert torch.allclose(scaled.svdvals() / factor, plain.svdvals(), rtol=1e-9)
        assert torch.allclose(iterated(scaled, 3) / factor, iterated(plain, 3), rtol=1e-9)
        assert scaled.norm() / factor == pytest.approx(plain.norm(), rel=1e-12)
        assert scaled.cond() == pytest.approx(plain.cond(), rel=1e-9)
        lower, upper = scaled.norm_bounds()
        assert lower <= scaled.norm() <= upper
        assert float(scaled.slogdet().logabsdet) == pytest.approx(
            float(plain.slogdet().logabsdet) + 128 * math.log(factor), rel=1e-9
        )


def test_zero_kernels() -> None:
    for mode in ("zeros", "circular"):
        options: dict[str, Any] = {"padding": 1, "padding_mode": mode}
        operator = Conv2dOperator(torch.zeros(2, 2, 3, 3), 8, **options)
        assert operator.norm() == 0.0
        assert operator.norm_bounds() == (0.0, 0.0)
        assert operator.matrix_rank() == 0
        assert operator.cond() == float("inf")
        assert not iterated(operator, 3).any()
        assert operator.slogdet() == (0.0, -float("inf"))
        assert not operator.clip_singular_values(0.5).any()


def test_ranks_of_large_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd, "exact_values", lambda scaled, limit: None)
    valid = Conv2dOperator(torch.tensor([[[[1.0, 0.2], [0.1, 3.0]]]], dtype=torch.float64), 30)
    assert valid.matrix_rank() == 29 * 29
    assert valid.cond() < 3
    with pytest.raises(convpinv.ArgumentError, match=r"^matrix_rank: the operator is .* below the threshold"):
        valid.matrix_rank(rtol=0.9)
    deficient = Conv2dOperator(random(1, 2, 3, 3).repeat(2, 1, 1, 1), 20)
    assert deficient.cond() == float("inf")
    with pytest.raises(convpinv.ArgumentError, match="needs a circular boundary"):
        deficient.matrix_rank()


def test_an_unconverged_pseudo_inverse_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Larger than any dense matrix, and no direct solver among those that are asked.
    monkeypatch.setattr(choose, "SOLVERS", (Krylov(),))
    monkeypatch.setattr(pinv, "DEFAULT_MAX_ITERATIONS", 5)
    operator = Conv2dOperator(random(1, 1, 5, 5), 66, padding=2)
    with pytest.raises(convpinv.ConvergenceError, match=r"^cond: the smallest singular value was not found") as caught:
        operator.cond()
    assert "\n" not in str(caught.value)
    with pytest.raises(convpinv.ArgumentError, match=r"^matrix_rank: the operator is .*was not found"):
        operator.matrix_rank()


def test_refusals_are_one_clear_line() -> None:
    large = Conv2dOperator(random(1, 1, 3, 3), 100, padding=1)
    for call, message in (
        (large.svdvals, r"^svdvals: the operator is .*svdvals\(k=10\)"),
        (lambda: large.svdvals(k=1000), "^svdvals: k is 1000; it may be at most 512"),
        (lambda: large.svdvals(k=0), "^svdvals: k is 0"),
        (lambda: large.svdvals(k=10001), "it may be at most 10000"),
        (
            Conv2dOperator(random(64, 64, 7, 7), 128, padding=3).slogdet,
            "^slogdet: the operator is .*a determinant needs a circular boundary.*border matrix that fits",
        ),
        (Conv2dOperator(random(1, 1, 3, 3), 9).slogdet, "^slogdet: .*as many outputs as inputs"),
        (lambda: large.clip_singular_values(-1), "^clip_singular_values: maximum is -1"),
    ):
        with pytest.raises(convpinv.ArgumentError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
