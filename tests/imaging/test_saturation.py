"""Clipped light: found where it hides something, taken as a bound, and left alone where it is what it seems."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, psf
from convpinv.imaging.clipping import clipped_pixels
from imaging.shaken import seen_part

MOTION, DISC = psf.motion(11, 30), psf.defocus(3)


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - np.clip(truth, 0, 1)) ** 2))


def lamps():
    """A dark scene with lamps of 3 to 10 times the level at which the camera clips."""
    scene = 0.7 * data.camera()[130:262, 190:322] / 255.0
    rows, columns = np.mgrid[:132, :132]
    for row, column, radius, light in ((40, 35, 4, 10.0), (95, 60, 2.5, 5.0), (60, 100, 3, 3.0)):
        scene[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = light
    return scene


def page():
    """A printed page, its paper exactly at the clipping level."""
    return np.clip((data.page()[:120, :140] / 255.0 - 0.25) / 0.4, 0, 1)


def taken(scene, kernel, noise=0.01, bits=None, boundary="valid"):
    """The camera's picture before and after clipping, and the truth."""
    light = blur(scene, kernel, noise=noise, seed=0, boundary=boundary)
    clipped = np.clip(light, 0, 1)
    if bits:
        clipped = np.round(clipped * 255) / 255
    return light, clipped, seen_part(scene, kernel, light) if boundary == "valid" else scene


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("kernel", [MOTION, DISC])
def test_lamps_leave_hardly_a_ring(kernel, bits):
    light, clipped, truth = taken(lamps(), kernel, 0.005, bits)
    result = deblur(clipped, kernel, full_output=True)
    # What can be had: the same picture as if the sensor had no end.
    ideal = np.clip(deblur(light, kernel, strength=result.report.strength), 0, 1)
    away = np.logical_not(binary_dilation((light >= 1) | (truth > 0.99), iterations=3))
    rings = np.abs(np.clip(result.image, 0, 1) - ideal)[away]
    assert np.mean(rings > 0.05) < 0.01
    assert psnr(result.image, truth) > psnr(ideal, truth) - 3.5
    naive = np.abs(np.clip(deblur(clipped, kernel, clip=False), 0, 1) - ideal)[away]
    assert np.mean(naive > 0.05) > 0.04
    assert result.report.saturated == int((clipped == 1).sum())
    assert any("hide light" in text for text in result.report.warnings)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("boundary", ["unknown", "circular", "zeros", "reflect", "replicate"])
def test_overexposure_helps_under_every_prior_and_boundary(prior, boundary):
    scene = 1.6 * data.camera()[100:196, 120:216] / 255.0
    _, clipped, truth = taken(scene, MOTION, 0.005, boundary="valid" if boundary == "unknown" else boundary)
    options = {"prior": prior, "boundary": boundary, "noise": 0.005}
    plain = psnr(deblur(clipped, MOTION, clip=False, **options), truth)
    assert psnr(deblur(clipped, MOTION, **options), truth) > plain + 0.9


def test_crushed_shadows_are_bounds_too():
    scene = 1.2 * (data.camera()[100:220, 120:240] / 255.0 - 0.15)
    _, clipped, truth = taken(scene, MOTION, 0.003)
    result = deblur(clipped, MOTION, full_output=True)
    assert psnr(result.image, truth) > psnr(deblur(clipped, MOTION, clip=False), truth) + 2
    assert result.report.saturated == int((clipped == 0).sum())


@pytest.mark.parametrize("kernel", [MOTION, DISC, psf.gaussian(1.5)])
@pytest.mark.parametrize("scene", [page(), (page() > 0.5).astype(float)])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_white_paper_is_what_it_seems(scene, kernel, noise):
    _, clipped, _ = taken(scene, kernel, noise, bits=8)
    result = deblur(clipped, kernel, full_output=True)
    assert result.report.saturated == 0
    assert np.array_equal(result.image, deblur(clipped, kernel, clip=False))


def test_levels_may_be_given():
    light, clipped, truth = taken(lamps(), MOTION, 0.005)
    found = deblur(clipped, MOTION, full_output=True)
    given = deblur(clipped, MOTION, clip=(None, 1.0), full_output=True)
    assert np.array_equal(found.image, given.image)
    # Levels that the picture exceeds: what lies beyond is as little believed.
    beyond = np.where(light > 1, 1.0 + 0.1 * np.random.default_rng(0).random(light.shape), light)
    assert psnr(deblur(beyond, MOTION, clip=(None, 1.0)), truth) > psnr(deblur(beyond, MOTION), truth) + 3


def test_a_batch_gives_what_its_pictures_give():
    batch = torch.from_numpy(np.stack([taken(lamps(), MOTION)[1], taken(lamps()[::-1], MOTION, 0.02)[1]]))[:, None]
    together = deblur(batch, MOTION)
    for picture, result in zip(batch, together, strict=True):
        assert torch.allclose(deblur(picture, MOTION), result, atol=1e-6)


def test_what_a_plateau_hides_does_not_depend_on_the_noise_of_other_pictures():
    rng, kernel = np.random.default_rng(0), psf.gaussian(1.5)
    scenes = [np.kron(rng.random((6, 6)), np.ones((8, 8))) * (1 + i) + 0.1 * rng.random((48, 48)) for i in range(3)]
    photos = [blur(scene, kernel, noise=0.003 * 4**i, seed=i) for i, scene in enumerate(scenes)]
    batch = torch.from_numpy(np.minimum(np.stack(photos)[:, None], 0.8))
    seen = rng.random(batch.shape[-2:]) > 0.3
    # A border that is not so keeps the last picture at the very limit.
    options = {"boundary": "zeros", "strength": 0.01, "mask": seen, "full_output": True}
    together = deblur(batch, kernel, **options).report.saturated
    assert together == sum(deblur(picture, kernel, **options).report.saturated for picture in batch)


def test_the_definition_of_a_plateau():
    ramp = torch.linspace(0, 1, 10000, dtype=torch.float64).reshape(100, 100)
    assert not clipped_pixels(ramp).any()
    high = clipped_pixels(ramp.clamp(max=0.9))
    assert torch.equal(high == 1, ramp >= 0.9)
    assert not (high < 0).any()
    both = clipped_pixels(ramp.clamp(0.2, 0.9))
    assert torch.equal(both == -1, ramp <= 0.2)
    assert not clipped_pixels(torch.full((9, 9), 3.0)).any()
    seen = torch.ones(100, 100, dtype=torch.bool)
    seen[:, 50:] = False
    masked = clipped_pixels(torch.where(seen, ramp.clamp(max=0.5), 7.0), seen)
    assert torch.equal(masked == 1, seen & (ramp >= 0.5))


@pytest.mark.parametrize(
    ("clip", "says"),
    [
        (True, "clip is True"),
        ((1.0, 0.5), r"clip is \(1, 0.5\)"),
        ((0, float("nan")), "clip is nan"),
        ("white", "clip is 'white'"),
        ((0, 1, 2), r"clip is \(0, 1, 2\)"),
    ],
)
def test_refuses_levels_in_one_line(clip, says):
    picture = np.random.default_rng(0).random((9, 9))
    with pytest.raises(ArgumentError, match=f"^deblur: {says}"):
        deblur(picture, "gaussian:sigma=0.5", clip=clip)


LAMPS = [("gaussian:sigma=2", 5), ("defocus:radius=4", 3), ("motion:length=15,angle=30", 3)]


@pytest.mark.parametrize(("kernel", "away"), LAMPS)
def test_lamps_leave_no_rings(kernel, away):
    # Lamps of 1.6 to 8 times the clipping level over a smooth ground: taken as it is, 0.08 to 0.8 of full scale.
    rows, columns = np.mgrid[:180, :180]
    scene = 0.3 + 0.1 * np.sin(columns / 25) * np.cos(rows / 31)
    for row, column, radius, light in ((50, 50, 5, 4.0), (120, 60, 8, 2.0), (70, 130, 3, 8.0), (135, 135, 11, 1.6)):
        scene[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = light
    photo = np.round(np.clip(blur(scene, kernel, noise=0.005, seed=0), 0, 1) * 255) / 255
    top, left = ((whole - part) // 2 for whole, part in zip(scene.shape, photo.shape, strict=True))
    truth = scene[top : top + photo.shape[0], left : left + photo.shape[1]]
    outside = np.logical_not(binary_dilation((photo >= 1) | (truth >= 1), iterations=away))

    def highest(**options):
        return np.abs(np.clip(deblur(photo, kernel, **options), 0, 1) - truth)[outside].max()

    assert highest() < 0.05
    assert highest(clip=False) > 0.07
