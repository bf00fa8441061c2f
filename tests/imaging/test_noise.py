"""The noise estimate against known noise, on photographs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, estimate_noise
from convpinv.imaging.poisson_gaussian import poisson_gaussian_of_planes

SIGMAS = (0.002, 0.01, 0.05)
CROP = (slice(0, 300), slice(0, 300))


def photograph(name):
    picture = getattr(data, name)().astype(float) / 255
    return (picture.mean(-1) if picture.ndim == 3 else picture)[CROP]


@pytest.mark.parametrize("name", ["camera", "coins", "astronaut", "text"])
@pytest.mark.parametrize("psf", ["gaussian:sigma=1.6", "defocus:radius=3"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_blurred_photograph(name, psf, sigma):
    assert estimate_noise(blur(photograph(name), psf, noise=sigma, seed=1)) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize(
    ("name", "within"),
    [("camera", 0.1), ("coins", 0.1), ("moon", 0.1), ("chelsea", 0.1), ("astronaut", 0.15), ("coffee", 0.25)],
)
@pytest.mark.parametrize("sigma", [0.005, 0.01, 0.03])
def test_sharp_photograph_with_the_noise_that_it_brings(name, within, sigma):
    noisy = photograph(name) + np.random.default_rng(1).normal(0, sigma, photograph(name).shape)
    assert estimate_noise(noisy) == pytest.approx(math.hypot(sigma, estimate_noise(photograph(name))), rel=within)


@pytest.mark.parametrize(("name", "at_most"), [("grass", 4.5), ("gravel", 2.5), ("brick", 1.2)])
def test_sharp_texture_is_noise_to_it_and_that_is_known(name, at_most):
    """What the page on noise says of textures stays true, in both directions."""
    noisy = photograph(name) + np.random.default_rng(1).normal(0, 0.005, photograph(name).shape)
    found = estimate_noise(noisy) / 0.005
    assert 0.9 < found < at_most
    assert (found > 2) == (name != "brick")


@pytest.mark.parametrize("sigma", [0.0, 0.002, 0.01, 0.05])
def test_rounding_to_bytes_is_noise_too(sigma):
    exact = blur(photograph("camera"), "gaussian:sigma=1.6", noise=sigma, seed=1)
    rounded = np.clip(np.rint(255 * exact), 0, 255).astype(np.uint8)
    total = 255 * math.hypot(sigma, 1 / 255 / math.sqrt(12))
    assert estimate_noise(rounded) == pytest.approx(total, rel=0.1 if sigma else 0.3)
    assert estimate_noise(rounded / np.float32(255)) == pytest.approx(total / 255, rel=0.1 if sigma else 0.3)
    assert estimate_noise(rounded) >= 1 / math.sqrt(12) - 1e-9


@settings(max_examples=20, deadline=None)
@given(st.integers(40, 150), st.integers(40, 150), st.floats(-6, 6), st.floats(-100, 100), st.integers(0, 2**31))
def test_white_noise_alone_is_measured_without_bias(rows, columns, exponent, offset, seed):
    sigma = 10**exponent
    noise = sigma * (np.random.default_rng(seed).normal(size=(rows, columns)) + offset)
    assert estimate_noise(noise) == pytest.approx(sigma, rel=0.15)


def test_its_own_error_is_as_small_as_said():
    found = [estimate_noise(np.random.default_rng(seed).normal(size=(256, 256))) for seed in range(12)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.01)
    assert np.std(found) < 0.015


@pytest.mark.parametrize("peak", [30, 300])
@pytest.mark.parametrize("name", ["camera", "coins"])
def test_noise_that_grows_with_the_light_is_its_mean_square(name, peak):
    light = blur(photograph(name), "gaussian:sigma=1.5").clip(0)
    photons = np.random.default_rng(0).poisson(light * peak) / peak
    assert estimate_noise(photons) == pytest.approx(math.sqrt(light.mean() / peak), rel=0.1)


@pytest.mark.parametrize(("peak", "read", "offset"), [(30, 2, 0), (300, 5, 0), (300, 3, 20), (2000, 10, 100)])
@pytest.mark.parametrize("name", ["camera", "coins", "astronaut"])
def test_poisson_gaussian(name, peak, read, offset):
    light = peak * blur(photograph(name), "gaussian:sigma=1.5").clip(0)
    rng = np.random.default_rng(3)
    noise = estimate_noise(rng.poisson(light) + rng.normal(offset, read, light.shape), model="poisson-gaussian")
    values = np.quantile(light, [0.1, 0.5, 0.9])
    assert noise.deviation(values + offset) == pytest.approx(np.sqrt(values + read**2), rel=0.1)
    assert noise.gain == pytest.approx(1.0, rel=0.2)
    assert noise.strata >= 3
    assert noise.read_noise(offset) == noise.deviation(offset)


def test_poisson_gaussian_layouts_and_units():
    rng = np.random.default_rng(0)
    light = np.linspace(20, 300, 200)[:, None, None] * np.ones((1, 180, 3))
    gains = np.array([0.5, 1.0, 4.0])
    picture = gains * rng.poisson(light)
    noise = estimate_noise(picture, model="poisson-gaussian")
    assert noise.gain == pytest.approx(gains, rel=0.15)
    assert noise.deviation(picture).shape == picture.shape
    assert noise.deviation(gains * 100) == pytest.approx(gains * 10, rel=0.1)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    same = estimate_noise(tensor.expand(2, 3, 200, 180), model="poisson-gaussian")
    assert same.gain.shape == (2, 3)
    assert torch.allclose(
        same.variance(tensor.expand(2, 3, 200, 180))[1].permute(1, 2, 0), torch.from_numpy(noise.variance(picture))
    )
    assert np.array_equal(noise.variance(-1e9), np.zeros(3))
    assert isinstance(estimate_noise(picture[..., 0], model="poisson-gaussian").gain, float)
    smaller = estimate_noise(picture[..., 0] * 1e-6, model="poisson-gaussian")
    assert smaller.gain == pytest.approx(noise.gain[0] * 1e-6, rel=0.01)


def test_poisson_gaussian_of_white_noise_is_nearly_flat():
    picture = 5 + blur(photograph("camera"), "gaussian:sigma=1.6", noise=0.02, seed=0)
    noise = estimate_noise(picture, model="poisson-gaussian")
    assert noise.deviation(np.quantile(picture, [0.05, 0.95])) == pytest.approx([0.02, 0.02], rel=0.07)
    constant = estimate_noise(np.full((30, 30), 0.5), model="poisson-gaussian")
    assert (constant.gain, constant.intercept, constant.strata) == (0.0, 0.0, 0.0)


def test_clipping_and_constant_frames_do_not_silence_it():
    noisy = blur(photograph("camera"), "gaussian:sigma=1.6", noise=0.02, seed=0)
    clipped = np.clip(noisy * 1.6 - 0.3, 0, 1)
    assert np.mean((clipped == 0) | (clipped == 1)) > 0.3
    assert estimate_noise(clipped) == pytest.approx(0.032, rel=0.1)
    framed = np.full((400, 400), 0.0)
    framed[80:360, 80:360] = noisy[:280, :280]
    assert estimate_noise(framed) == pytest.approx(0.02, rel=0.1)


def test_a_sky_where_most_pixels_are_dark_has_no_line():
    rng = np.random.default_rng(0)
    planes = torch.zeros(1, 40, 40, dtype=torch.float64)
    planes[0, torch.from_numpy(rng.integers(0, 40, 30)), torch.from_numpy(rng.integers(0, 40, 30))] = 9.0
    # Holes everywhere leave no patches; the median of each level's triples is 0.
    seen = torch.from_numpy(rng.random((1, 40, 40)) > 0.05)
    gain, intercept, strata = poisson_gaussian_of_planes(planes * seen, seen)
    assert (float(gain), float(intercept), float(strata)) == (0.0, 0.0, 0.0)


def test_units_dtypes_and_layouts():
    rng = np.random.default_rng(0)
    levels = np.array([1.0, 4.0, 9.0])
    colour = 100 + levels * rng.normal(size=(200, 220, 3))
    found = estimate_noise(colour)
    assert found.shape == (3,)
    assert found == pytest.approx(levels, rel=0.05)
    tensor = torch.from_numpy(colour).permute(2, 0, 1)
    assert torch.allclose(estimate_noise(tensor), torch.from_numpy(found))
    assert estimate_noise(tensor.expand(2, 3, 200, 220)).shape == (2, 3)
    assert estimate_noise(tensor.float()).dtype == torch.float32
    assert isinstance(estimate_noise(tensor[0]), float)
    assert estimate_noise(colour[..., 0] * 1e-6) == pytest.approx(found[0] * 1e-6, rel=1e-9)
    assert estimate_noise(np.rint(colour[..., 2]).astype(np.uint8)) == pytest.approx(9.0, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (3, 50), (9, 9), (64, 64)])
def test_constant_pictures_of_any_size_have_no_noise(shape):
    assert estimate_noise(np.full(shape, 0.3)) == 0.0
    assert np.isfinite(estimate_noise(np.random.default_rng(0).random(shape)))


@pytest.mark.parametrize(
    "picture",
    [np.ones(4), np.ones((2, 2, 2, 2)), np.array([[np.nan, np.nan]]), np.ones((4, 4), complex), [[1, 2]], None],
)
def test_refuses(picture):
    with pytest.raises(ArgumentError, match=r"^estimate_noise: image is "):
        estimate_noise(picture)


def test_refuses_other_models():
    with pytest.raises(ArgumentError, match=r"^estimate_noise: model is 'poisson'; it may be 'white'"):
        estimate_noise(np.ones((9, 9)), model="poisson")
