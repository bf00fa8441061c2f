"""The three jobs that the naive recipe is recommended for: how it fails on each, and what is promised instead.

The photograph is real (scikit-image's astronaut, binned), the arithmetic float32 throughout.
"""

from __future__ import annotations

import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from torch import Tensor

import convpinv

SIZE = 128


def naive_inverse(
    y: Tensor, kernel: Tensor, padding: object = None, mode: str = "reflect", eps: float = 1e-3
) -> Tensor:
    """The recipe as it circulates, kept here to show that the tests tell it from a pseudo-inverse."""
    if padding is not None:
        y = F.pad(y, padding, mode="reflect")  # pyright: ignore[reportArgumentType]
    K = torch.fft.fft2(kernel, s=y.shape[-2:])
    inverse = K / (K.abs() + eps) ** 2
    return torch.fft.ifft2(torch.fft.fft2(y) * inverse).real


@pytest.fixture(scope="module")
def photo() -> Tensor:
    pixels = skimage.data.astronaut()[: 2 * SIZE, 96 : 96 + 2 * SIZE].astype(np.float32) / 255
    pixels = pixels.reshape(SIZE, 2, SIZE, 2, 3).mean((1, 3))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def batch(photo: Tensor) -> Tensor:
    return torch.stack([photo.roll(16 * shift, -1).rot90(shift % 4, (-2, -1)) for shift in range(8)])


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    return torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def circular(kernel: Tensor) -> convpinv.Conv2dOperator:
    return convpinv.Conv2dOperator(kernel, (SIZE, SIZE), padding="same", padding_mode="circular")


def relative_error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def psnr(found: Tensor, truth: Tensor) -> float:
    return -10 * float(torch.log10((found - truth).square().mean()))


def frame_psnr(found: Tensor, truth: Tensor, width: int = 8) -> float:
    outer = torch.ones(truth.shape[-2:], dtype=torch.bool)
    outer[width:-width, width:-width] = False
    return psnr(found[..., outer], truth[..., outer])


# The recipe


def test_recipe_turns_one_picture_into_three(photo: Tensor, kernel: Tensor) -> None:
    found = naive_inverse(photo[None], kernel)
    assert found.shape == (3, 3, SIZE, SIZE)
    assert all(relative_error(one, photo) > 0.5 for one in found)


def test_recipe_raises_for_a_batch(batch: Tensor, kernel: Tensor) -> None:
    with pytest.raises(RuntimeError):
        naive_inverse(batch, kernel)


def test_recipe_raises_when_it_pads(photo: Tensor, kernel: Tensor) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        naive_inverse(photo[None], kernel, padding=(2, 2))


def test_recipe_shifts_the_picture(photo: Tensor) -> None:
    taps = torch.tensor([0.05, 0.15, 0.6, 0.15, 0.05])
    symmetric = (taps[:, None] * taps)[None, None]
    A = circular(symmetric)
    found = naive_inverse(A(photo)[None], symmetric)[0]
    assert psnr(found, photo) < 20
    assert psnr(found.roll((-2, -2), (-2, -1)), photo) > 40
    assert psnr(A.pinv()(A(photo)), photo) > 100


# The jobs


def test_kernel_mixes_the_channels(kernel: Tensor) -> None:
    # Otherwise job one would be three jobs of one channel.
    flat = kernel.flatten(2)
    mixed = flat[~torch.eye(3, dtype=torch.bool)].norm() / flat.norm()
    assert float(mixed) > 0.5
    values = circular(kernel).svdvals()
    assert 100 < float(values[0] / values[-1]) < 2000


def test_job_one_mixing_kernel_circular_border(photo: Tensor, kernel: Tensor) -> None:
    A = circular(kernel)
    assert relative_error(A.pinv()(A(photo)), photo) < 1e-4
    found = convpinv.conv_pinv2d(A(photo), kernel, (SIZE, SIZE), padding=2, padding_mode="circular")
    assert relative_error(found, photo) < 1e-4


def test_job_one_data_come_from_torch(photo: Tensor, kernel: Tensor) -> None:
    """The data are torch's own convolution, so that an operator that is wrong in itself is found out."""
    y = F.conv2d(F.pad(photo[None], (2, 2, 2, 2), mode="circular"), kernel)
    found = convpinv.conv_pinv2d(y, kernel, (SIZE, SIZE), padding=2, padding_mode="circular")
    assert relative_error(found[0], photo) < 1e-4


def test_job_one_ill_conditioned_kernels_need_double_precision_or_damp(photo: Tensor) -> None:
    mixing = torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]], dtype=torch.float64)
    blurring = mixing[:, :, None, None] * convpinv.psf.gaussian(1.6)
    single, double = circular(blurring.float()), circular(blurring)
    exact = double(photo.double())
    assert relative_error(single.pinv()(single(photo)), photo) > 1e-3
    assert relative_error(double.pinv()(exact), photo.double()) < 1e-6
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noisy = exact + 0.01 * noise
    assert relative_error(double.pinv()(noisy), photo.double()) > 1e3
    assert relative_error(double.pinv(damp=0.1)(noisy), photo.double()) < 0.12


def test_job_two_unknown_border(photo: Tensor) -> None:
    psf = convpinv.psf.motion(11, 30)
    top, left = psf.shape[0] // 2, psf.shape[1] // 2
    sharp = photo[:, top : SIZE - top, left : SIZE - left]
    blurred = convpinv.blur(photo, psf, noise=0.005, seed=0)
    restored = convpinv.deblur(blurred, psf)
    assert restored.dtype == torch.float32
    assert restored.shape == blurred.shape == sharp.shape
    assert psnr(restored, sharp) > psnr(blurred, sharp) + 4
    assert frame_psnr(restored, sharp) > frame_psnr(blurred, sharp) + 4
    # A periodic border, at the best of its strengths, rings: the comparison that the job is about.
    periodic = max(
        psnr(convpinv.deblur(blurred, psf, boundary="circular", prior="gradient", strength=strength), sharp)
        for strength in (1e-3, 1e-2, 1e-1, 1.0)
    )
    assert psnr(restored, sharp) > periodic + 4


def test_job_three_batch_of_eight(batch: Tensor, kernel: Tensor) -> None:
    A = circular(kernel)
    P = A.pinv()
    found = P(A(batch))
    assert found.shape == batch.shape
    assert max(relative_error(one, truth) for one, truth in zip(found, batch, strict=True)) < 1e-4
    alone = torch.stack([P(A(one)) for one in batch])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_job_three_batch_of_eight_with_unknown_border(batch: Tensor) -> None:
    psf = convpinv.psf.gaussian(1.2)
    reach = psf.shape[0] // 2
    blurred = convpinv.blur(batch, psf, noise=0.002, seed=0)
    sharp = batch[..., reach:-reach, reach:-reach]
    restored = convpinv.deblur(blurred, psf, prior="gradient")
    assert restored.shape == blurred.shape
    for one, before, truth in zip(restored, blurred, sharp, strict=True):
        assert psnr(one, truth) > psnr(before, truth) + 3
    torch.testing.assert_close(convpinv.deblur(blurred[5], psf, prior="gradient"), restored[5], rtol=1e-4, atol=1e-4)
