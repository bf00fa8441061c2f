"""PinvOperator: gradients, plans, refusals, outcomes; what choose decides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

import convpinv
from convpinv import Conv2dOperator, Status, conv_pinv2d
from convpinv.linalg.spectrum import default_rtol
from convpinv.testing import check_against_dense, conv2d_operators, random_images


@given(conv2d_operators())
@settings(max_examples=120, deadline=None)
def test_automatic_choice_agrees_with_the_dense_matrix(operator: Conv2dOperator) -> None:
    check_against_dense(operator, operator.pinv(damp=0.2), damp=0.2)
    check_against_dense(operator, operator.pinv(rtol=1e-3), rtol=1e-3, tol=1e-7)


@pytest.mark.parametrize("solver", ["fourier", "separable", "dense"])
def test_atol_and_rtol_are_those_of_torch(solver: str) -> None:
    generator = torch.Generator().manual_seed(3)
    rows, columns = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    operator = Conv2dOperator(torch.outer(rows, columns)[None, None], (6, 7), padding="same", padding_mode="circular")
    matrix = operator.to_dense()
    values = torch.linalg.svdvals(matrix)
    y = random_images(operator.out_shape, operator)
    for cut in (0.03, 0.3):
        middle = float(values[0]) * cut
        for atol, rtol in ((None, cut), (middle, None), (middle, cut / 10)):
            expected = y.flatten(1) @ torch.linalg.pinv(matrix, atol=atol, rtol=rtol).mT
            found = operator.pinv(solver=solver, atol=atol, rtol=rtol)(y).flatten(1)
            assert torch.allclose(found, expected), (solver, atol, rtol)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("padding", [0, "same"])
def test_a_threshold_beyond_the_dtype_cuts_all(channels: int, padding: int | str) -> None:
    weight = torch.randn(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0))
    operator = Conv2dOperator(weight, 12, padding=padding, padding_mode="circular" if padding else "zeros")
    assert not operator.pinv(atol=1e40)(random_images(operator.out_shape, operator)).any()


def test_damp_and_cut_together() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (6, 6), padding=1, padding_mode="circular")
    u, s, vh = torch.linalg.svd(operator.to_dense())
    inverse = torch.where(s > 0.2 * s[0], s / (s**2 + 0.01), torch.zeros_like(s))
    y = random_images(operator.out_shape, operator)
    expected = y.flatten(1) @ ((vh.mH * inverse) @ u.mH).mT
    for solver in ("fourier", "dense"):
        assert torch.allclose(operator.pinv(damp=0.1, rtol=0.2, solver=solver)(y).flatten(1), expected)


def test_separable_cuts_on_products() -> None:
    # Singular values 1, 0.1 on each axis: the product 0.01 falls below rtol = 0.03, though each factor stands above.
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    taps = torch.tensor([0.55, 0.45], dtype=torch.float64)  # circular on two pixels: singular values 1 and 0.1
    operator = Conv2dOperator(torch.outer(taps, taps)[None, None], 2, padding="same", padding_mode="circular")
    assert torch.allclose(operator.svdvals(), torch.kron(rows.diagonal(), rows.diagonal()).sort(descending=True).values)
    pinv = operator.pinv(rtol=0.03, solver="separable")
    assert torch.linalg.matrix_rank(pinv.to_dense()) == 3
    check_against_dense(operator, pinv, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_box_keeps_the_frequencies_it_has(dtype: torch.dtype) -> None:
    # A 4 × 4 box on 64²: exactly (1 − 3/64)² of the frequencies are not zero, in single precision too.
    operator = Conv2dOperator(torch.ones(1, 1, 4, 4, dtype=dtype), 64, padding="same", padding_mode="circular")
    noise = torch.randn(1, 64, 64, dtype=dtype, generator=torch.Generator().manual_seed(0))
    kept = operator(operator.pinv(solver="fourier")(noise))
    spectrum = torch.fft.fft2(kept).abs() > 1e-3
    assert int(spectrum.sum()) == 61 * 61


@pytest.mark.parametrize("factor", [1e-30, 1e-5, 1e5, 1e30])
def test_kernels_of_any_scale_in_single_precision(factor: float) -> None:
    weight = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    y = torch.rand(1, 12, 12)
    whole = {"input_size": 12, "padding": 1, "padding_mode": "circular"}
    expected = conv_pinv2d(y, weight, **whole)
    assert torch.allclose(conv_pinv2d(y, weight * factor, **whole) * factor, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("factor", [1e-25, 1e25])
def test_kernels_of_any_scale_keep_their_plan(factor: float) -> None:
    # The norm of such a kernel leaves float32's range: once everything then passed for a product.
    weight = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    y = torch.rand(1, 12, 12)
    assert Conv2dOperator(weight * factor, 12, padding=1).pinv().plan.solver.name == "dense"
    expected = conv_pinv2d(y, weight, 12, padding=1, rtol=0.01)
    assert torch.allclose(conv_pinv2d(y, weight * factor, 12, padding=1, rtol=0.01) * factor, expected, atol=1e-3)
    product = torch.outer(weight[0, 0, 0], weight[0, 0, 1])[None, None]
    expected = conv_pinv2d(y, product, 12, padding=1, rtol=0.01, solver="separable")
    found = conv_pinv2d(y, product * factor, 12, padding=1, rtol=0.01, solver="separable") * factor
    assert torch.allclose(found, expected, atol=1e-3)


def test_zero_kernel_has_the_zero_pseudo_inverse() -> None:
    for weight in (torch.zeros(1, 1, 3, 3), torch.zeros(3, 2, 3, 3)):
        for mode in ("circular", "zeros"):
            operator = Conv2dOperator(weight, 6, padding=1, padding_mode=mode)
            assert operator.pinv()(torch.rand(operator.out_shape)).abs().max() == 0


GRADIENT_CASES = [
    ("circular", "same", 1, 1, "fourier"),
    ("circular", 1, 2, 1, "fourier"),
    ("zeros", 1, 1, 2, "dense"),
    ("reflect", 1, (2, 1), 1, "dense"),
    ("zeros", "valid", 1, 1, "krylov"),
    ("replicate", 1, 2, 1, "krylov"),
]


@pytest.mark.parametrize(("mode", "padding", "stride", "groups", "solver"), GRADIENT_CASES)
@pytest.mark.parametrize("damp", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_by_the_data(
    mode: str, padding: int | str, stride: int, groups: int, solver: str, damp: float, dtype: torch.dtype
) -> None:
    weight = torch.randn(2, 2 // groups, 3, 3, generator=torch.Generator().manual_seed(5), dtype=dtype)
    operator = Conv2dOperator(weight, (4, 6), stride, padding, groups=groups, padding_mode=mode)
    pinv = operator.pinv(damp=damp, solver=solver, tol=1e-13 if damp else 1e-12)
    y = random_images(operator.out_shape, operator, batch=1).requires_grad_()
    fast = solver == "krylov"  # random projections of the Jacobian instead of its hundreds of columns
    assert torch.autograd.gradcheck(pinv, (y,), atol=1e-5, fast_mode=fast)
    assert torch.autograd.gradgradcheck(lambda data: pinv(data).abs().square().sum(), (y,), atol=1e-4, fast_mode=fast)
    x = random_images(operator.in_shape, operator, batch=1).requires_grad_()
    assert torch.autograd.gradcheck(pinv.H, (x,), atol=1e-5, fast_mode=fast)


def test_prepared_state_keeps_the_kernel_of_the_moment() -> None:
    weight = torch.rand(1, 1, 3, 3)
    pinv = Conv2dOperator(weight, 8, padding=1, padding_mode="circular").pinv(damp=0.1)
    y = torch.rand(1, 8, 8)
    before = pinv(y)
    weight.zero_()
    assert torch.equal(pinv(y), before)


def test_a_call_changes_neither_data_nor_state() -> None:
    for solver in ("fourier", "separable", "dense", "krylov"):
        operator = Conv2dOperator(torch.ones(1, 1, 3, 3) / 9, 8, padding=1, padding_mode="circular")
        pinv = operator.pinv(damp=0.1, solver=solver)
        y = torch.rand(2, 1, 8, 8)
        copy = y.clone()
        first = pinv(y)
        pinv.H(y)
        assert torch.equal(y, copy)
        assert torch.equal(pinv(y), first)


def test_explain_says_why_the_others_refuse() -> None:
    text = Conv2dOperator(torch.rand(3, 3, 3, 3), (64, 64), padding=1).pinv(damp=0.1).explain()
    assert text.startswith("solver   Border (periodic, corrected at the border), border matrix 774 x 774")
    assert "instead  solver='krylov', without a matrix to prepare: data side, 64 x 64 x 3" in text
    assert "refused  Fourier, Blocks: boundary is 'zeros'; the DFT diagonalises circular boundaries only" in text
    assert "         Separable: the kernel is not a product" in text
    assert "         Dense: 12288 unknowns, over the limit" in text


def test_a_refusal_ends_in_an_alternative() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), 8, padding=1)
    with pytest.raises(
        convpinv.SolverRefusedError, match=r"Fourier refuses: boundary is 'zeros'.*solver='dense' serves"
    ):
        operator.pinv(solver="fourier")
    with pytest.raises(convpinv.SolverRefusedError, match="damp is what it can do"):
        operator.pinv(solver="krylov", rtol=0.1)
    large = Conv2dOperator(torch.rand(1, 1, 3, 3), 100, padding=1)
    with pytest.raises(convpinv.SolverRefusedError, match="use damp instead"):
        large.pinv(rtol=0.1)
    with pytest.raises(convpinv.ArgumentError, match="solver is 'magic'; it may be 'auto', 'fourier'"):
        operator.pinv(solver="magic")
    with pytest.raises(convpinv.ArgumentError, match="damp is -1"):
        operator.pinv(damp=-1)
    with pytest.raises(convpinv.ArgumentError, match="max_iter is 0"):
        operator.pinv(max_iter=0)


def test_unconverged_raises_and_solve_tells() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 5, 5, dtype=torch.float64), 40)
    y = torch.rand(1, 36, 36, dtype=torch.float64)
    pinv = operator.pinv(damp=1e-3, solver="krylov", max_iter=3)
    with pytest.raises(convpinv.ConvergenceError, match="stopped at max_iter before the tolerance, after 3 iterations"):
        pinv(y)
    solution = pinv.solve(y)
    assert solution.status is Status.MAX_ITERATIONS
    assert solution.iterations == 3
    assert solution.residual > 1e-10
    assert solution.status.likely_causes
    assert torch.isfinite(solution.value).all()


def test_solve_reports_direct_solvers_truly() -> None:
    operator = Conv2dOperator(torch.rand(2, 3, 3, 3, dtype=torch.float64), 9, padding=1, padding_mode="circular")
    for damp in (0.0, 0.2):
        solution = operator.pinv(damp=damp).solve(random_images(operator.out_shape, operator))
        assert solution.status is Status.DIRECT
        assert solution.iterations == 0
        assert 0 < solution.residual < 1e-12


def test_default_threshold() -> None:
    assert default_rtol(torch.float64, (1024, 1024)) == pytest.approx(4 * 2.0**-52 * 20)
    assert default_rtol(torch.complex64, (1, 1)) == pytest.approx(4 * 2.0**-23)


def test_svdvals() -> None:
    for operator in (
        Conv2dOperator(torch.rand(3, 2, 3, 3, dtype=torch.float64), (6, 8), 2, 1, padding_mode="circular"),
        Conv2dOperator(torch.rand(1, 5, 2, 2, dtype=torch.float64), (4, 4), 2),
        Conv2dOperator(
            torch.ones(1, 1, 3, 3, dtype=torch.float64), (6, 7), padding=(2, 0)
        ),  # tall by rows, wide by columns
        Conv2dOperator(torch.ones(1, 2, 3, 3, dtype=torch.float64), (6, 6), padding=2),
        Conv2dOperator(torch.rand(3, 2, 3, 3, dtype=torch.complex128), (5, 7), 1, 1, padding_mode="circular"),
        Conv2dOperator(torch.ones(1, 1, 3, 2, dtype=torch.float64), (6, 7), padding=1, padding_mode="reflect"),
        Conv2dOperator(torch.rand(1, 1, 3, 3, dtype=torch.float64), (6, 7), padding=1),
    ):
        values = torch.linalg.svdvals(operator.to_dense())
        assert torch.allclose(operator.svdvals(), values, atol=1e-12)
        assert operator.norm() == pytest.approx(float(values[0]))
        assert operator.matrix_rank() == int((values > 1e-10 * values[0]).sum())
        assert operator.matrix_rank(rtol=0.5) == int((values > 0.5 * values[0]).sum())
        if values[-1] > 1e-10 * values[0]:
            assert operator.cond() == pytest.approx(float(values[0] / values[-1]), rel=1e-6)
        else:
            assert operator.cond() > 1e10
    assert Conv2dOperator(torch.zeros(1, 1, 1, 1), 2).cond() == float("inf")
    with pytest.raises(convpinv.ArgumentError, match="exact values need a circular boundary"):
        Conv2dOperator(torch.rand(1, 1, 3, 3), 100).svdvals()


@pytest.mark.parametrize("factor", [1e-25, 1e20, 1e30])
def test_scale_and_damping_together(factor: float) -> None:
    weight = torch.rand(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = {"input_size": 8, "padding": 1, "padding_mode": "circular"}
    y = torch.rand(3, 8, 8)
    expected = conv_pinv2d(y, weight, **whole, damp=0.5)
    scaled = conv_pinv2d(y, weight * factor, **whole, damp=0.5 * factor) * factor
    assert (scaled - expected).norm() <= 1e-4 * expected.norm()
    assert conv_pinv2d(y, weight * 0, **whole, damp=0.5 * factor).abs().max() == 0


def test_damping_beyond_reason_is_refused() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), 8)
    for damp in (1e200, float("inf"), float("nan"), 10**400, "1"):
        with pytest.raises(convpinv.ArgumentError, match=r"^pinv: damp is"):
            operator.pinv(damp=damp)  # pyright: ignore[reportArgumentType]


def test_no_cut_asked_for_is_no_cut() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), 100)
    assert operator.pinv(damp=0.5, rtol=0.0, solver="krylov").explain().startswith("solver   Krylov")
