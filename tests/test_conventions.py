"""The page docs/conventions.md, one claim a test, against torch, SciPy and NumPy as independent references."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.sparse.linalg
import torch
import torch.nn.functional as F

import convpinv
from scenes import random_array, scene

PAGE = Path(__file__).resolve().parents[1] / "docs" / "conventions.md"


SCIPY_MODES = {"zeros": "constant", "circular": "grid-wrap", "reflect": "mirror", "replicate": "nearest"}


MODES = sorted(SCIPY_MODES)


def random_psf(*shape: int, seed: int = 0) -> np.ndarray:
    psf = np.random.default_rng(seed).random(shape) + 0.1
    return psf / psf.sum(axis=(-2, -1), keepdims=True)


def operator(kernel: np.ndarray, size: tuple[int, int], **options: Any) -> convpinv.Conv2dOperator:
    return convpinv.Conv2dOperator(torch.from_numpy(kernel)[None, None], size, **options)


# Correlation and convolution


def test_weights_correlate() -> None:
    kernel, picture = random_array(3, 5), random_array(9, 8, seed=1)
    found = operator(kernel, (9, 8))(torch.from_numpy(picture)[None])[0].numpy()
    np.testing.assert_allclose(found, scipy.signal.correlate2d(picture, kernel, mode="valid"), atol=1e-12)
    assert np.abs(found - scipy.signal.convolve2d(picture, kernel, mode="valid")).max() > 0.1


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (4, 6), (1, 7)])
@pytest.mark.parametrize("mode", MODES)
def test_psfs_convolve_about_the_centre(mode: str, shape: tuple[int, int]) -> None:
    psf, picture = random_psf(*shape), random_array(11, 12, seed=1)
    found = convpinv.blur(picture, psf, boundary=mode)
    # scipy.ndimage.convolve has its centre at k // 2, for even k too.
    np.testing.assert_allclose(found, scipy.ndimage.convolve(picture, psf, mode=SCIPY_MODES[mode]), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (4, 6)])
def test_valid_blur_is_a_valid_convolution_at_the_offset_that_is_documented(shape: tuple[int, int]) -> None:
    psf, picture = random_psf(*shape), random_array(11, 12, seed=1)
    found = convpinv.blur(picture, psf)
    np.testing.assert_allclose(found, scipy.signal.convolve2d(picture, psf, mode="valid"), atol=1e-12)
    top, left = (k - 1 - k // 2 for k in shape)
    same = scipy.ndimage.convolve(picture, psf, mode="constant")
    np.testing.assert_allclose(found, same[top : top + found.shape[0], left : left + found.shape[1]], atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4)])
def test_deblur_undoes_scipys_convolution_without_a_shift(shape: tuple[int, int]) -> None:
    psf = random_psf(*shape)
    psf[shape[0] // 2, shape[1] // 2] += 1.0  # well-conditioned
    psf /= psf.sum()
    picture = random_array(12, 13, seed=1)
    blurred = scipy.ndimage.convolve(picture, psf, mode="grid-wrap")
    found = convpinv.deblur(blurred, psf, prior="none", boundary="circular")
    np.testing.assert_allclose(found, picture, atol=1e-10)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov", "none"])
@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (3, 2)])
def test_deblur_does_not_shift_where_the_border_is_unknown(prior: str, shape: tuple[int, int]) -> None:
    psf = random_psf(*shape)
    picture = scene(30)
    blurred = convpinv.blur(picture, psf, noise=0.01, seed=0)
    top, left = (k - 1 - k // 2 for k in shape)
    rows, columns = blurred.shape
    result = convpinv.deblur(blurred, psf, prior=prior, full_output=True)
    errors = {}
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            moved = np.roll(picture, (row, column), axis=(0, 1))[top : top + rows, left : left + columns]
            errors[row, column] = np.abs(result.image - moved)[3:-3, 3:-3].mean()
    assert min(errors, key=errors.__getitem__) == (0, 0)
    # The residual is that of the true alignment, too: about the noise, and what a prior that shrinks everything takes.
    assert result.report.residual < (0.02 if prior == "tikhonov" else 0.015)


def test_flipping_a_psf_makes_it_a_weight() -> None:
    psf, picture = random_psf(4, 5), random_array(9, 8, seed=1)
    weight = np.ascontiguousarray(psf[::-1, ::-1])
    for mode in MODES:
        found = operator(weight, (9, 8), padding="same", padding_mode=mode)(torch.from_numpy(picture)[None])[0]
        np.testing.assert_allclose(found, convpinv.blur(picture, psf, boundary=mode), atol=1e-12)


# The centre, and what is read outside


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(3, 5), (4, 6), (2, 3)])
def test_same_puts_the_odd_pixel_after_the_picture_as_torch_does(mode: str, shape: tuple[int, int]) -> None:
    kernel, picture = random_array(*shape), random_array(9, 8, seed=1)
    word: Any = mode  # torch types it as literals
    layer = torch.nn.Conv2d(1, 1, shape, padding="same", padding_mode=word, bias=False, dtype=torch.float64)
    layer.weight.data = torch.from_numpy(kernel)[None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that even kernels cost it a copy
        expected = layer(torch.from_numpy(picture)[None, None])[0].detach()
    same = operator(kernel, (9, 8), padding="same", padding_mode=mode)
    torch.testing.assert_close(same(torch.from_numpy(picture)[None]), expected)
    # The tap under the output is (k − 1) // 2: a kernel that is 1 there and 0 elsewhere does nothing.
    tap = np.zeros(shape)
    tap[(shape[0] - 1) // 2, (shape[1] - 1) // 2] = 1.0
    same = operator(tap, (9, 8), padding="same", padding_mode=mode)
    np.testing.assert_array_equal(same(torch.from_numpy(picture)[None])[0], picture)


def test_half_the_kernel_as_padding_gives_one_more_for_even_kernels() -> None:
    assert operator(random_array(4, 5), (9, 8), padding=(2, 2)).out_shape == (1, 10, 8)


def documented_rows() -> dict[str, tuple[list[str], str]]:
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        word = cells[0].strip("`")
        if len(cells) == 5 and word in SCIPY_MODES:
            rows[word] = (" ".join(cells[1:4]).split(), cells[4].strip("`"))
    return rows


@pytest.mark.parametrize("mode", MODES)
def test_the_table_of_padding_modes(mode: str) -> None:
    shown, scipy_word = documented_rows()[mode]
    row = np.arange(5, dtype=np.float64) + 1  # so that a zero is no index
    expected = np.array([0.0 if entry == "." else float(entry) + 1 for entry in shown])
    padded = torch.from_numpy(row)[None, None, None]
    torch_word = "constant" if mode == "zeros" else mode
    np.testing.assert_array_equal(F.pad(padded, (2, 2, 0, 0), mode=torch_word)[0, 0, 0], expected)
    assert scipy_word == SCIPY_MODES[mode]
    for tap in range(5):
        kernel = np.zeros((1, 5))
        kernel[0, tap] = 1.0
        found = operator(kernel, (1, 5), padding=(0, 2), padding_mode=mode)(torch.from_numpy(row)[None, None])
        np.testing.assert_array_equal(found[0, 0], expected[tap : tap + 5])
        np.testing.assert_array_equal(found[0], scipy.ndimage.correlate(row[None], kernel, mode=scipy_word))


def test_reflect_does_not_repeat_the_edge() -> None:
    kernel, picture = random_array(3, 3), random_array(6, 7, seed=1)
    found = operator(kernel, (6, 7), padding=1, padding_mode="reflect")(torch.from_numpy(picture)[None])[0]
    np.testing.assert_allclose(found, scipy.ndimage.correlate(picture, kernel, mode="mirror"), atol=1e-12)
    assert np.abs(found.numpy() - scipy.ndimage.correlate(picture, kernel, mode="reflect")).max() > 0.1


def test_padding_has_torchs_limits() -> None:
    for mode, most in (("reflect", 4), ("circular", 5)):
        operator(random_array(3, 3), (5, 5), padding=most, padding_mode=mode)
        with pytest.raises(convpinv.ArgumentError):
            operator(random_array(3, 3), (5, 5), padding=most + 1, padding_mode=mode)


# Shapes, dtypes, kinds


def test_shapes() -> None:
    A = convpinv.Conv2dOperator(torch.rand(4, 1, 3, 2), (6, 7), stride=(1, 2), groups=2)
    assert A.in_shape == (2, 6, 7)
    assert A.out_shape == (4, 4, 3)
    assert A.to_dense().shape == (48, 84)
    for leading in ((), (5,), (5, 3)):
        assert A(torch.rand(*leading, *A.in_shape)).shape == (*leading, *A.out_shape)
        assert A.pinv()(torch.rand(*leading, *A.out_shape)).shape == (*leading, *A.in_shape)
    x = torch.rand(A.in_shape)
    torch.testing.assert_close(A.to_dense() @ x.flatten(), A(x).flatten())
    assert convpinv.Conv2dOperator(torch.rand(1, 1, 3, 3), 6).in_shape == (1, 6, 6)


def test_one_to_one_channel_treats_every_channel_alike() -> None:
    A = operator(random_array(3, 3), (8, 9), padding=1, padding_mode="circular")
    picture = torch.from_numpy(random_array(2, 3, 8, 9, seed=1))
    for P in (A, A.H, A.pinv(damp=0.1), A.pinv(damp=0.1).H):
        alone = torch.stack([torch.stack([P(channel[None])[0] for channel in one]) for one in picture])
        torch.testing.assert_close(P(picture), alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_dtype_in_is_dtype_out_and_nothing_is_converted(dtype: torch.dtype) -> None:
    A = convpinv.Conv2dOperator(torch.randn(2, 1, 3, 3, dtype=dtype), (6, 6))
    x = torch.randn(1, 6, 6, dtype=dtype)
    assert A(x).dtype == A.pinv()(A(x)).dtype == A.to_dense().dtype == dtype
    other = torch.float64 if dtype != torch.float64 else torch.float32
    with pytest.raises(convpinv.ArgumentError):
        A(x.real.to(other))


@pytest.mark.parametrize("call", [convpinv.blur, lambda x, psf: convpinv.deblur(x, psf, prior="gradient")])
def test_kinds_of_pictures(call: Any) -> None:
    psf = convpinv.psf.gaussian(1.0, size=3)
    colour = np.random.default_rng(0).random((16, 18, 3))
    array = call(colour, psf)
    tensor = call(torch.from_numpy(colour).permute(2, 0, 1), psf)
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(np.moveaxis(array, 2, 0), tensor, atol=1e-10)
    assert call(colour.astype(np.float32), psf).dtype == np.float32
    integers = (200 * colour).astype(np.uint8)
    found = call(integers, psf)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, call(integers.astype(np.float64), psf), rtol=1e-3, atol=0.1)


def test_a_psf_per_channel_comes_first() -> None:
    psf = random_psf(3, 3, 5)
    colour = np.random.default_rng(0).random((12, 14, 3))
    found = convpinv.blur(colour, psf, boundary="reflect")
    for channel in range(3):
        expected = scipy.ndimage.convolve(colour[..., channel], psf[channel], mode="mirror")
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-12)


# Damping and the rank threshold


@pytest.mark.parametrize("mode", MODES)
def test_damp_is_that_of_lsqr(mode: str) -> None:
    A = operator(random_array(3, 3), (7, 6), padding=1, padding_mode=mode)
    y = random_array(7, 6, seed=1)
    expected = scipy.sparse.linalg.lsqr(A.to_dense().numpy(), y.ravel(), damp=0.3, atol=1e-14, btol=1e-14)[0]
    found = A.pinv(damp=0.3)(torch.from_numpy(y)[None])
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-9)


@pytest.mark.parametrize("mode", ["circular", "zeros"])
@pytest.mark.parametrize("cut", [{"rtol": 0.2}, {"atol": 1.5}, {"atol": 0.5, "rtol": 0.3}, {"atol": 2.0, "rtol": 0.1}])
def test_atol_and_rtol_are_torchs(mode: str, cut: dict[str, Any]) -> None:
    A = operator(random_array(3, 3), (8, 6), padding=1, padding_mode=mode)
    y = torch.from_numpy(random_array(1, 8, 6, seed=1))
    expected = torch.linalg.pinv(A.to_dense(), **cut) @ y.flatten()
    torch.testing.assert_close(A.pinv(**cut)(y).flatten(), expected)
    full = torch.linalg.pinv(A.to_dense()) @ y.flatten()
    assert (expected - full).norm() > 1e-3 * full.norm()  # the cut cuts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(4, 4), (32, 16)])
def test_default_threshold(dtype: torch.dtype, size: tuple[int, int]) -> None:
    rtol = 4 * torch.finfo(dtype).eps * math.log2(size[0] * size[1])
    for factor, kept in ((1.2, True), (0.8, False)):
        # Two channels that do not mix: the singular values are 3 and 3·factor·rtol.
        weight = torch.diag(torch.tensor([3.0, 3.0 * factor * rtol], dtype=dtype))[:, :, None, None]
        P = convpinv.Conv2dOperator(weight, size).pinv(solver="fourier")
        assert bool((P(torch.ones(2, *size, dtype=dtype))[1].abs() > 1).all()) is kept


def test_the_default_threshold_stands_with_damping_and_yields_to_atol() -> None:
    small = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float32))[:, :, None, None]
    A = convpinv.Conv2dOperator(small, (4, 4))
    y = torch.ones(2, 4, 4)
    assert float(A.pinv()(y)[1].abs().max()) == 0.0
    assert float(A.pinv(atol=1e-10)(y)[1].min()) == pytest.approx(1e9, rel=1e-4)
    assert float(A.pinv(damp=1e-9)(y)[1].abs().max()) == 0.0
    assert float(A.pinv(damp=1e-9, rtol=0.0)(y)[1].min()) == pytest.approx(0.5e9, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-5, 1e5])
@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_scaling_the_kernel_divides_the_pseudo_inverse(scale: float, mode: str) -> None:
    kernel = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    one, other = (
        convpinv.Conv2dOperator(factor * kernel, (8, 8), padding=1, padding_mode=mode).pinv()(y)
        for factor in (1.0, scale)
    )
    torch.testing.assert_close(other * scale, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def test_iterations_refuse_a_threshold() -> None:
    A = operator(random_array(3, 3), (8, 8), padding=1)
    with pytest.raises(convpinv.SolverRefusedError, match="damp"):
        A.pinv(rtol=0.1, solver="krylov")


def test_every_padding_mode_is_in_the_table() -> None:
    assert sorted(documented_rows()) == MODES
    assert re.search(r"`k // 2`, for even k too", PAGE.read_text(encoding="utf-8"))
