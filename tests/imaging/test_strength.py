"""Strengths of other tools give the filters of those tools."""

import numpy as np
import pytest
import torch
from skimage import data, restoration

from convpinv import Conv2dOperator
from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, psf, strength

KERNEL = psf.motion(7, 30)


def picture(size=64):
    scene = data.camera()[130 : 130 + size, 190 : 190 + size] / 255.0
    return blur(scene, KERNEL, noise=0.01, seed=0, boundary="circular")


def filtered(blurred, penalty, keep_mean=True):
    """Apply K̄ / (|K|² + penalty), written down here, to a picture about its mean."""
    kernel = np.zeros(blurred.shape)
    height, width = KERNEL.shape
    kernel[:height, :width] = KERNEL.numpy()
    transfer = np.fft.fft2(np.roll(kernel, (-(height // 2), -(width // 2)), (0, 1)))
    mean = blurred.mean() if keep_mean else 0.0
    result = np.fft.ifft2(np.conj(transfer) / (np.abs(transfer) ** 2 + penalty) * np.fft.fft2(blurred - mean)).real
    return result + mean


@pytest.mark.parametrize(
    ("given", "penalty"),
    [(strength.from_nsr(0.02), 0.02), (strength.from_snr_db(15.0), 10**-1.5), (strength.from_gamma(40.0), 1 / 40)],
)
def test_the_filter_is_that_of_the_other_tool(given, penalty):
    blurred = picture()
    restored = deblur(blurred, KERNEL, prior=given.prior, strength=given.strength, boundary="circular")
    assert np.abs(restored - filtered(blurred, penalty)).max() < 1e-9


def test_identity_balance_is_wiener_of_scikit_image():
    blurred = picture()
    blurred = blurred - blurred.mean()
    point = np.zeros((3, 3))
    point[1, 1] = 1
    theirs = restoration.wiener(blurred, KERNEL.numpy(), 0.05, reg=point, clip=False)
    prior, weight = strength.from_balance(0.05, KERNEL, reg="identity")
    ours = deblur(blurred, KERNEL, prior=prior, strength=weight, boundary="circular")
    assert np.abs(ours - theirs).max() < 1e-9


@pytest.mark.parametrize("balance", [1e-3, 1e-2, 0.1, 1.0])
def test_laplacian_balance_comes_as_near_as_gradient_can(balance):
    blurred = picture()
    blurred = blurred - blurred.mean()
    theirs = np.asarray(restoration.wiener(blurred, KERNEL.numpy(), balance, clip=False), dtype=float)
    prior, weight = strength.from_balance(balance, KERNEL)
    assert prior == "gradient"

    def distance(factor):
        ours = deblur(blurred, KERNEL, prior=prior, strength=factor * weight, boundary="circular")
        return np.sqrt(np.mean((ours - theirs) ** 2))

    assert distance(1.0) < 0.25 * np.std(theirs)
    assert distance(1.0) < min(distance(0.1), distance(10.0))


def test_rcond_halves_the_inverse_at_the_threshold_of_the_truncation():
    blurred = torch.from_numpy(picture())
    prior, weight = strength.from_rcond(0.2)
    assert prior == "tikhonov"
    for gain in (0.2, 0.02, 1.0):
        share = gain**2 / (gain**2 + weight)
        assert share == pytest.approx({0.2: 0.5, 0.02: 0.0099, 1.0: 0.9615}[gain], rel=1e-3)
    operator = Conv2dOperator(KERNEL.flip(0, 1)[None, None], blurred.shape, padding="same", padding_mode="circular")
    truncated = operator.pinv(rtol=0.2)((blurred - blurred.mean())[None])[0] + blurred.mean()
    damped = deblur(blurred, KERNEL, prior=prior, strength=weight, boundary="circular")
    assert float((damped - truncated).std() / truncated.std()) < 0.3


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: strength.from_nsr(0), "nsr"),
        (lambda: strength.from_snr_db(float("nan")), "snr"),
        (lambda: strength.from_snr_db(1e9), "snr"),
        (lambda: strength.from_gamma(-1), "gamma"),
        (lambda: strength.from_rcond(1.0), "rcond"),
        (lambda: strength.from_balance(0.0, KERNEL), "balance"),
        (lambda: strength.from_balance(0.1, np.zeros((3, 3))), "psf"),
        (lambda: strength.from_balance(0.1, np.ones((3, 3, 3))), "psf"),
        (lambda: strength.from_balance(0.1, KERNEL, reg="sobel"), "reg"),
    ],
)
def test_refuses_what_is_no_strength(call, says):
    with pytest.raises(ArgumentError, match=rf"^strength\.\w+: {says} is "):
        call()
