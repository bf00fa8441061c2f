"""The noise estimate against known noise, on photographs."""

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, estimate_noise

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


@pytest.mark.parametrize(("name", "within"), [("camera", 0.05), ("coins", 0.2), ("astronaut", 0.2), ("text", 0.25)])
def test_sharp_photograph_at_one_percent(name, within):
    noisy = photograph(name) + np.random.default_rng(1).normal(0, 0.01, photograph(name).shape)
    assert estimate_noise(noisy) == pytest.approx(0.01, rel=within)


def test_clipping_and_constant_frames_do_not_silence_it():
    noisy = blur(photograph("camera"), "gaussian:sigma=1.6", noise=0.02, seed=0)
    clipped = np.clip(noisy * 1.6 - 0.3, 0, 1)
    assert np.mean((clipped == 0) | (clipped == 1)) > 0.3
    assert estimate_noise(clipped) == pytest.approx(0.032, rel=0.1)
    framed = np.full((400, 400), 0.0)
    framed[80:360, 80:360] = noisy[:280, :280]
    assert estimate_noise(framed) == pytest.approx(0.02, rel=0.1)


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
    "picture", [np.ones(4), np.ones((2, 2, 2, 2)), np.array([[np.nan, 1]]), np.ones((4, 4), complex), [[1, 2]], None]
)
def test_refuses(picture):
    with pytest.raises(ArgumentError, match=r"^estimate_noise: image is "):
        estimate_noise(picture)
