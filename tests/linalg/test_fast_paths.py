"""The short ways of the Fourier solver against the long one: same numbers, and the decomposition only where needed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator
from convpinv.linalg import matrix_inverses, scalar_symbol, spectrum
from convpinv.linalg.spectrum import Regularization
from linalg.matrices import random

# Kernels of one channel, with what they do to the grid: sizes, taps, dilation, groups.
SCALARS = {
    "odd": ((12, 17), (3, 3), 1, 1),
    "even taps, groups": ((7, 8), (4, 2), 1, 3),
    "dilated": ((9, 10), (3, 2), 3, 2),
    "taps that meet": ((4, 6), (3, 3), 2, 1),
    "one pixel": ((5, 5), (1, 1), 1, 1),
}


def circular(weight: Tensor, size: tuple[int, int], dilation: int = 1) -> Conv2dOperator:
    groups = weight.shape[0] if weight.shape[1] == 1 else 1
    return Conv2dOperator(weight, size, padding="same", dilation=dilation, groups=groups, padding_mode="circular")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("case", SCALARS)
def test_one_channel_by_taps_and_by_fft(case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    size, taps, dilation, groups = SCALARS[case]
    double = torch.complex128 if dtype.is_complex else torch.float64
    tolerance = 2000 * torch.finfo(dtype).eps
    for scale, of_one_sign in ((1.0, False), (1.0, True), (1e-25, False), (1e25, False)):
        weight = random(groups, 1, *taps, dtype=dtype) * scale
        if of_one_sign and not dtype.is_complex:  # their largest value is known beforehand
            weight = -weight.abs()
        operator = circular(weight, size, dilation)
        for damp in (0.05 * scale, 3.0 * scale):
            regularization = operator.plan(damp=damp).problem.regularization
            symbol = spectrum.symbol(weight.to(double), operator.geometry, size)
            expected = spectrum.invert_matrices(spectrum.matrices_of(symbol), regularization).reshape(
                symbol[:, 0, 0].shape
            )
            for fewest in (0, 10**9):
                for block in (1, 2**17):
                    for may_look in (True, False):  # on an accelerator nothing is read back
                        monkeypatch.setattr(scalar_symbol, "FEWEST_FREQUENCIES", fewest)
                        monkeypatch.setattr(scalar_symbol, "BLOCK", block)
                        monkeypatch.setattr(scalar_symbol, "_may_look", lambda tensor, answer=may_look: answer)
                        found = scalar_symbol.inverse_symbol(weight, operator.geometry, size, regularization)
                        assert found.dtype == dtype.to_complex()
                        error = (
                            found.to(torch.complex128) / expected.abs().max() - expected / expected.abs().max()
                        ).abs()
                        assert error.max() <= tolerance


def test_one_channel_cuts_zeros() -> None:
    weight = torch.ones(1, 1, 2, 2)
    inverse = (
        circular(weight, (128, 128)).pinv().plan.solver.prepare(circular(weight, (128, 128)).plan().problem).inverse
    )
    symbol = torch.fft.rfft2(weight[0, 0], s=(128, 128)).abs()
    cut = symbol <= spectrum.default_rtol(torch.float32, (128, 128)) * 4.0
    assert 0 < int(cut.sum()) < 300
    assert torch.equal(inverse[0] == 0, cut)
    zero = circular(torch.zeros(1, 1, 3, 3), (128, 128)).pinv()
    assert not zero(torch.ones(1, 128, 128)).any()


def dense(matrices: Tensor, damp: float, rtol: float) -> Tensor:
    wide = matrices.to(torch.complex128 if matrices.is_complex() else torch.float64)
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    kept = values > rtol * values.max()
    inverse = torch.where(kept, values / (values**2 + damp**2 + (~kept)), torch.zeros_like(values))
    return (right.mH * inverse.unsqueeze(-2)) @ left.mH


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("shape", [(3, 3), (40, 40), (19, 7), (7, 19), (33, 20)], ids=str)
@pytest.mark.parametrize("damp", [0.0, 1e-4, 1e-2, 1.0])
def test_matrices_of_every_condition(
    shape: tuple[int, int], dtype: torch.dtype, damp: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Well and badly conditioned matrices, and three of deficient rank, which alone are decomposed in float32."""
    rows, columns = shape
    left = torch.linalg.qr(random(12, rows, min(shape), dtype=dtype, seed=1))[0]
    right = torch.linalg.qr(random(12, columns, min(shape), dtype=dtype, seed=2))[0]
    values = torch.logspace(0.0, -1.0, min(shape), dtype=left.real.dtype).repeat(12, 1)
    values[4:8, -1] = 1e-3
    values[8:11, -1] = 0.0
    matrices = ((left * values.unsqueeze(-2)) @ right.mH)[None]
    rtol = spectrum.default_rtol(dtype, (64, 64))
    monkeypatch.setattr(matrix_inverses, "BLOCK", 5 * rows * columns)  # three blocks
    decomposed: list[int] = []
    plain = matrix_inverses._Stack._decompose

    def counted(stack: matrix_inverses._Stack, inverses: Tensor, rest: Tensor) -> None:
        decomposed.extend(rest.tolist())
        plain(stack, inverses, rest)

    monkeypatch.setattr(matrix_inverses._Stack, "_decompose", counted)
    for scale in (1.0, 1e-20, 1e20):
        decomposed.clear()
        regularization = Regularization(damp * scale, 0.0, rtol, True)
        found = matrix_inverses.pseudo_inverses(matrices * scale, regularization) * scale
        expected = dense(matrices[0], damp, rtol)
        condition = 1.0 / max(damp, 1e-3)
        error = torch.linalg.matrix_norm(found[0] - expected, 2).max() / torch.linalg.matrix_norm(expected, 2).max()
        assert error <= 100 * torch.finfo(dtype).eps * condition
        if damp >= spectrum.CHOLESKY_DAMP * min(shape) ** 0.5:
            assert not decomposed
        else:
            assert set(decomposed) >= {8, 9, 10}
            if torch.finfo(dtype).eps > 1e-10 or (rows == columns and damp == 0.0):
                assert set(decomposed) == {8, 9, 10}


def test_the_threshold_is_that_of_all_matrices() -> None:
    """The largest singular value may be that of a matrix which was not decomposed."""
    matrices = random(1, 6, 4, 4, dtype=torch.float32)
    matrices[0, 0] = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-5]))
    matrices[0, 1] = 1e3 * torch.eye(4)
    regularization = Regularization(0.0, 0.0, 1e-7, True)
    found = matrix_inverses.pseudo_inverses(matrices, regularization)[0, 0]
    assert torch.allclose(found, torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])), atol=1e-5)


@pytest.mark.parametrize(("outputs", "inputs", "stride"), [(3, 3, 1), (5, 6, 1), (6, 5, 1), (2, 2, 2), (4, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_application_and_adjoint_in_both_layouts(outputs: int, inputs: int, stride: int, dtype: torch.dtype) -> None:
    operator = Conv2dOperator(
        random(outputs, inputs, 3, 3, dtype=dtype), (6, 8), stride=stride, padding=1, padding_mode="circular"
    )
    pinv, inverse = operator.pinv(damp=0.2), operator.to_dense()
    gram = inverse.mH @ inverse + 0.04 * torch.eye(inverse.shape[1], dtype=dtype)
    inverse = torch.linalg.solve(gram, inverse.mH)
    y, x = random(2, *operator.out_shape, dtype=dtype, seed=1), random(2, *operator.in_shape, dtype=dtype, seed=2)
    assert torch.allclose(pinv(y).flatten(1), y.flatten(1) @ inverse.mT)
    assert torch.allclose(pinv.H(x).flatten(1), x.flatten(1) @ inverse.conj())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (1, 2), (3, 1), (6, 1)])
def test_data_that_are_no_numbers_are_told_by_the_result(channels: int, stride: int, bad: float) -> None:
    operator = (
        Conv2dOperator(
            random(channels, channels, 2, 2, dtype=torch.float32),
            (6, 8),
            stride=stride,
            padding=(0, 0),
            padding_mode="zeros",
        )
        if stride == 2
        else circular(random(channels, channels, 3, 3, dtype=torch.float32), (6, 8))
    )
    pinv = operator.pinv(damp=0.1)
    assert pinv.plan.solver.name == "fourier"
    for call, shape in ((pinv, pinv.in_shape), (pinv.H, pinv.H.in_shape)):
        for place in ((1, 0, 0, 0), (0, channels - 1, 2, 3)):
            data = torch.ones(2, *shape)
            data[place] = bad
            with pytest.raises(convpinv.ArgumentError, match="its argument is not finite"):
                call(data)
    # Finite data whose result is not: nobody's argument is wrong.
    tiny = circular(torch.full((1, 1, 1, 1), 1e-30), (4, 4)).pinv()
    assert torch.isinf(tiny(torch.full((1, 4, 4), 1e20))).all()


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e5])
def test_the_threshold_of_many_channels_goes_with_the_scale(scale: float) -> None:
    """A kernel without some frequencies: what counts as zero hangs on the largest value, which must not underflow."""
    mixing = random(4, 4, 1, 1, dtype=torch.float32) + 3 * torch.eye(4)[..., None, None]
    weight = mixing * torch.tensor([[0.25, 0.5, 0.25]])
    y = random(1, 4, 12, 16, dtype=torch.float32, seed=1)
    expected = circular(weight, (12, 16)).pinv()(y)
    found = circular(weight * scale, (12, 16)).pinv()(y) * scale
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_what_is_not_a_number_travels() -> None:
    matrices = torch.full((1, 5, 3, 2), torch.nan, dtype=torch.complex64)
    regularization = circular(random(3, 2, 2, 2, dtype=torch.float32), (4, 4)).plan(damp=0.1).problem.regularization
    inverse = matrix_inverses.pseudo_inverses(matrices, regularization)
    assert inverse.shape == (1, 5, 2, 3)
    assert bool(inverse.isnan().all())


def test_a_huge_threshold_cuts_everything() -> None:
    weight = random(1, 1, 3, 3, dtype=torch.float32)
    y = random(1, 1, 8, 8, dtype=torch.float32)
    assert float(circular(weight, (8, 8)).pinv(atol=1e30)(y).abs().max()) == 0


def test_coarse_products_of_matrices_are_not_used_for_the_symbol() -> None:
    weight = random(1, 1, 5, 5, dtype=torch.float32)
    y = random(1, 1, 160, 160, dtype=torch.float32)
    expected = circular(weight, (160, 160)).pinv(damp=0.1)(y)
    try:
        torch.set_float32_matmul_precision("medium")
        assert not spectrum.products_are_exact(weight)
        found = circular(weight, (160, 160)).pinv(damp=0.1)(y)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert float((found - expected).norm() / expected.norm()) < 1e-5
