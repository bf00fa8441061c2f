"""The page docs/conventions.md, one claim a test: units, angles, centres, and that nothing is clipped."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

import convpinv
from scenes import random_array, scene

# Units


@pytest.mark.parametrize("prior", ["gradient", "tikhonov", "tv"])
def test_noise_and_strength_are_in_the_pictures_units(prior: str) -> None:
    # The gradient prior iterates: rounding, amplified until it stops, moves it by some 1e-5 of full scale.
    blurred = convpinv.blur(scene(), "gaussian:sigma=1", noise=0.01, seed=0)
    one = convpinv.deblur(blurred, "gaussian:sigma=1", prior=prior, noise=0.01)
    other = convpinv.deblur(255 * blurred, "gaussian:sigma=1", prior=prior, noise=2.55)
    np.testing.assert_allclose(other / 255, one, atol=1e-4)
    factor = 255 if prior == "tv" else 1
    one = convpinv.deblur(blurred, "gaussian:sigma=1", prior=prior, strength=0.003)
    other = convpinv.deblur(255 * blurred, "gaussian:sigma=1", prior=prior, strength=0.003 * factor)
    np.testing.assert_allclose(other / 255, one, atol=1e-4)


@pytest.mark.parametrize("prior", ["gradient", "tikhonov", "tv"])
def test_a_reported_strength_given_back_gives_the_same_picture(prior: str) -> None:
    blurred = 255 * convpinv.blur(scene(), "gaussian:sigma=1", noise=0.02, seed=0)
    chosen = convpinv.deblur(blurred, "gaussian:sigma=1", prior=prior, full_output=True)
    strength = chosen.report.strength
    assert isinstance(strength, float)
    again = convpinv.deblur(blurred, "gaussian:sigma=1", prior=prior, strength=strength)
    assert np.abs(again - chosen.image).max() < 0.02 * np.ptp(blurred)
    twice = convpinv.deblur(blurred, "gaussian:sigma=1", prior=prior, strength=10 * strength)
    assert np.abs(twice - chosen.image).max() > 0.04 * np.ptp(blurred)  # the strength matters


@pytest.mark.parametrize("negative", [False, True])
def test_strength_is_for_a_largest_transfer_of_one(negative: bool) -> None:
    psf = np.array([[0.2, 0.5, 0.3]]) if not negative else np.array([[-0.2, 1.4, -0.2]])
    blurred = scene()
    strength = 0.05
    K = np.fft.fft2(np.roll(np.pad(psf, ((0, 23), (0, 21))), -1, axis=1))
    largest = np.abs(K).max()
    assert bool(largest > 1.5) is negative
    # The minimiser of ½‖A x − y‖² + strength·½‖x − mean‖² with A, y scaled so that the largest transfer is 1.
    Y = np.fft.fft2(blurred - blurred.mean())
    expected = np.fft.ifft2(K.conj() * Y / (np.abs(K) ** 2 + strength * largest**2)).real + blurred.mean()
    for scale in (1.0, 7.0):  # PSFs are scaled to sum 1
        found = convpinv.deblur(blurred, scale * psf, prior="tikhonov", boundary="circular", strength=strength)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_tikhonov_strength_is_the_square_of_damp() -> None:
    blurred = scene() - scene().mean()
    psf = convpinv.psf.gaussian(1.0)
    A = convpinv.Conv2dOperator(psf[None, None], (24, 24), padding="same", padding_mode="reflect")
    expected = A.pinv(damp=0.2)(torch.from_numpy(blurred)[None])[0]
    found = convpinv.deblur(blurred, psf, prior="tikhonov", boundary="reflect", strength=0.04)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_angles_turn_counter_clockwise_as_seen() -> None:
    psf = convpinv.psf.motion(9, 45)
    assert float(psf[0, -1]) > 0  # upper right
    assert float(psf[-1, 0]) > 0  # lower left
    assert float(psf[0, 0]) == float(psf[-1, -1]) == 0
    assert convpinv.psf.motion(9, 0).shape[0] == 1
    assert convpinv.psf.motion(9, 90).shape[1] == 1


def test_a_psf_off_its_centre_is_reported_and_not_moved() -> None:
    psf = np.zeros((5, 5))
    psf[2, 4] = 1.0  # two pixels right of the centre
    picture = scene()
    shifted = convpinv.blur(picture, psf, boundary="circular")
    np.testing.assert_allclose(shifted, np.roll(picture, 2, axis=1), atol=1e-12)
    result = convpinv.deblur(shifted, psf, prior="none", boundary="circular", full_output=True)
    assert any("centre of mass" in warning for warning in result.report.warnings)
    np.testing.assert_allclose(result.image, picture, atol=1e-10)


# Nothing is clipped


def test_nothing_is_clipped() -> None:
    wide = 1000 * random_array(16, 16)
    np.testing.assert_allclose(
        convpinv.blur(wide, "box:size=3", boundary="circular"),
        scipy.ndimage.uniform_filter(wide, 3, mode="grid-wrap"),
        atol=1e-9,
    )
    step = np.zeros((32, 32))
    step[:, 16:] = 1.0
    # Sharpening a sharp step overshoots on both sides.
    found = convpinv.deblur(step, "gaussian:sigma=1", prior="gradient", strength=1e-3)
    assert found.max() > 1.05
    assert found.min() < -0.05
