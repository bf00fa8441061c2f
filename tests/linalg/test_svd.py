"""Singular values, norms, bounds, condition numbers, determinants, clipping: against ``torch.linalg`` on the matrix."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg import bounds, determinant, eigenvalues, leading_values, pinv, svd, symbol_norm
from convpinv.linalg.eigenvalues import HermitianMap, largest_eigenpairs
from convpinv.linalg.solvers import choose
from convpinv.linalg.solvers.krylov import Krylov
from convpinv.testing import conv2d_operators

BASE = torch.tensor([[0.9, -0.3, 0.4], [0.1, 1.0, -0.7], [0.5, 0.2, -0.6]], dtype=torch.float64)


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixing(kernel: Tensor, channels: int) -> Tensor:
    """Kernel times an orthogonal channel matrix: every singular value as often as there are channels."""
    orthogonal = torch.linalg.qr(random(channels, channels))[0]
    return torch.einsum("oc,tu->octu", orthogonal, kernel)


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


def dense_values(operator: Conv2dOperator) -> Tensor:
    return torch.linalg.svdvals(operator.to_dense())


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


SQUARE: dict[str, tuple[Tensor, Any, dict[str, Any]]] = {
    "circular": (random(2, 2, 3, 3), (5, 6), {"padding": 1, "padding_mode": "circular"}),
    "circular, odd": (random(3, 3, 3, 3), (5, 3), {"padding": 1, "padding_mode": "circular"}),
    "circular complex": (
        random(2, 2, 3, 2, dtype=torch.complex128),
        6,
        {"padding": "same", "padding_mode": "circular"},
    ),
    "circular groups": (random(4, 2, 3, 3), (4, 6), {"groups": 2, "padding": 1, "padding_mode": "circular"}),
    "stride 2": (random(4, 1, 3, 3), 6, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
    "stride 2, more channels": (random(12, 3, 2, 2), (6, 4), {"stride": 2}),
    "stride 3 by 2": (random(6, 1, 3, 2), (9, 6), {"stride": (3, 2)}),
    "stride 1 by 2": (random(2, 1, 1, 2), (3, 6), {"stride": (1, 2)}),
    "stride 2 by 1": (random(2, 1, 2, 1), (6, 3), {"stride": (2, 1)}),
    "stride 3": (random(9, 1, 3, 3, dtype=torch.complex128), (3, 6), {"stride": 3}),
    "separable": (mixing(torch.outer(BASE[0], BASE[1]), 3), (4, 5), {"padding": 1, "padding_mode": "reflect"}),
    "separable complex": (
        torch.outer(random(3, dtype=torch.complex128), random(3, dtype=torch.complex128, seed=1))[None, None],
        (5, 4),
        {"padding": 1},
    ),
    "dense": (random(2, 2, 3, 3), 5, {"padding": 1}),
    "dense groups": (random(4, 2, 3, 3), 5, {"groups": 2, "padding": 1, "padding_mode": "replicate"}),
    "single precision": (random(2, 2, 3, 3, dtype=torch.float32), 5, {"padding": 1, "padding_mode": "circular"}),
}


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("sign", [1, -1])
def test_determinants(name: str, sign: int) -> None:
    weight, size, options = SQUARE[name]
    if sign < 0:  # an exchange of two outputs, or a turned sign, turns the determinant's sign by another route
        weight = weight * torch.linspace(-1.0, 1.5, len(weight), dtype=weight.real.dtype)[:, None, None, None]
    operator = Conv2dOperator(weight, size, **options)
    for current in (operator, operator.H):
        expected = torch.linalg.slogdet(current.to_dense())
        found = current.slogdet()
        assert found.sign.dtype == operator.dtype
        assert found.logabsdet.dtype == operator.dtype.to_real()
        tolerance = 1e-3 if operator.dtype == torch.float32 else 1e-8
        assert float((found.sign - expected.sign).abs()) < tolerance
        assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet), abs=tolerance)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_determinants_by_the_border(mode: str) -> None:
    count = 0
    for index, ((inputs, outputs, groups, stride), taps, size) in enumerate(
        itertools.product(
            ((1, 1, 1, 1), (2, 2, 1, 1), (4, 4, 2, 1), (1, 4, 1, 2), (2, 8, 2, 2)),
            ((3, 3), (5, 3)),
            ((6, 8), (8, 6), (7, 5)),
        )
    ):
        if size[0] % stride or size[1] % stride:
            continue
        dtype = torch.complex128 if index % 2 else torch.float64
        weight = random(outputs, inputs // groups, *taps, dtype=dtype, seed=index)
        padding = (taps[0] // 2, taps[1] // 2)
        operator = Conv2dOperator(weight, size, padding=padding, stride=stride, groups=groups, padding_mode=mode)
        expected = torch.linalg.slogdet(operator.to_dense())
        found = determinant._border(operator.convolution)
        assert found is not None
        assert float((found[0] - expected.sign).abs()) < 1e-6
        assert float(found[1]) == pytest.approx(float(expected.logabsdet), abs=1e-6)
        count += 1
    assert count == 26


def test_a_determinant_too_large_to_write_down() -> None:
    operator = Conv2dOperator(random(1, 1, 3, 3), 66, padding=1)
    expected = torch.linalg.slogdet(operator.to_dense())
    found = operator.slogdet()
    assert float(found.sign) == float(expected.sign)
    assert float(found.logabsdet) == pytest.approx(float(expected.logabsdet), rel=1e-9)


def test_signs_of_permutations() -> None:
    for order in itertools.permutations(range(5)):
        matrix = torch.eye(5, dtype=torch.float64)[list(order)]
        assert determinant.permutation_sign(torch.tensor(order)) == round(float(torch.linalg.det(matrix)))


def test_singular_determinants() -> None:
    box = Conv2dOperator(torch.ones(1, 1, 2, 1), (6, 4), padding="same", padding_mode="circular")
    assert box.slogdet() == (0.0, -float("inf"))
    # Square in all, by a tall factor and a wide one.
    oblong = Conv2dOperator(torch.ones(2, 1, 2, 3), (6, 6), stride=(2, 1), padding=(0, 1))
    assert oblong.slogdet() == (0.0, -float("inf"))


CLIPPED: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {
    "circular": ((6, 4, 3, 3), (8, 9), {"padding": 1, "padding_mode": "circular"}),
    "circular, stride": ((8, 3, 3, 3), 8, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
    "circular, groups": ((6, 2, 3, 3), 8, {"groups": 3, "padding": 1, "padding_mode": "circular"}),
    "kernel larger than the picture": ((2, 2, 5, 5), 3, {"padding": 2, "padding_mode": "circular"}),
    "zeros": ((3, 3, 3, 3), 10, {"padding": 1}),
    "reflect": ((2, 2, 3, 3), 10, {"padding": 1, "padding_mode": "reflect"}),
    "strided, dilated": ((4, 2, 3, 3), 15, {"stride": 2, "dilation": 2, "padding_mode": "replicate", "padding": 1}),
    "large": ((1, 1, 5, 5), 48, {"padding": 2}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", CLIPPED)
def test_clipped_kernels_keep_below_the_maximum(name: str, dtype: torch.dtype) -> None:
    shape, size, options = CLIPPED[name]
    operator = Conv2dOperator(random(*shape, dtype=dtype), size, **options)
    largest = operator.norm()
    for share in (0.3, 0.8):
        clipped = operator.clip_singular_values(share * largest)
        assert clipped.dtype == dtype
        assert clipped.shape == operator.weight.shape
        precise = Conv2dOperator(clipped.to(torch.complex128), size, **options)
        found = float(dense_values(precise)[0]) if name != "large" else precise.norm()
        assert 0.98 * share * largest < found <= share * largest
    same = operator.clip_singular_values(1.001 * largest)
    assert torch.equal(same, operator.weight)
    assert same.data_ptr() != operator.weight.data_ptr()


def test_clipping_changes_less_than_scaling() -> None:
    operator = Conv2dOperator(random(8, 8, 3, 3), 12, padding=1, padding_mode="circular")
    clipped = operator.clip_singular_values(0.5 * operator.norm())
    assert (clipped - operator.weight).norm() < 0.9 * (0.5 * operator.weight).norm()
    # A kernel as large as the picture holds the clipped matrices exactly: nothing is cropped, nothing scaled.
    whole = Conv2dOperator(random(2, 2, 5, 5), 5, padding=2, padding_mode="circular")
    values = whole.svdvals()
    maximum = 0.6 * float(values[0])
    options = {"input_size": 5, "padding": 2, "padding_mode": "circular"}
    found = Conv2dOperator(whole.clip_singular_values(maximum), **options).svdvals()
    assert torch.allclose(found, values.clamp(max=maximum), rtol=1e-9)


@given(conv2d_operators(), st.floats(0.05, 1.5))
@settings(max_examples=40, deadline=None)
def test_any_clipped_kernel(operator: Conv2dOperator, share: float) -> None:
    maximum = share * float(dense_values(operator)[0])
    clipped = operator.clip_singular_values(maximum)
    geometry = operator.geometry
    again = svd.unit(type(operator.convolution)(clipped, geometry))
    assert float(torch.linalg.svdvals(again.operator.to_dense())[0]) * again.scale <= maximum * (1 + 1e-13)
