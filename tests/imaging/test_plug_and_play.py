"""A denoiser as the prior: what it is called with, every boundary, batches, masks, and what it gains."""

import itertools
import math

import numpy as np
import pytest
import torch
from skimage import data, restoration

from convpinv import imaging
from convpinv.arguments import ArgumentError
from convpinv.imaging import psf
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.priors import (
    Constraint,
    GivenDenoiser,
    NonlocalBayes,
    Observation,
    Problem,
    TotalVariation,
    minimise,
    plug_and_play,
)
from convpinv.imaging.priors.plug_and_play import FIRST_LEVEL, LAST_LEVEL, STEPS, STRENGTH_OF_NOISE, _cut, _put
from scenes import photograph

BOUNDARIES = (UNKNOWN, "circular", "zeros", "reflect", "replicate")
KERNEL = psf.motion(9, 30)


def blurred(size=(64, 56), boundary=UNKNOWN, noise=0.03, count=1, seed=0):
    """Pictures (count, 1, H, W) of unit scale, and the scenes under them."""
    model = BlurModel.build(KERNEL, size, boundary)
    scenes, pictures = [], []
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        if boundary == UNKNOWN:
            rows, columns = (n + k - 1 for n, k in zip(size, KERNEL.shape, strict=True))
            scene = photograph(rows, columns, 60 + 10 * index)
        else:
            scene = photograph(size[0], size[1], 60 + 10 * index)
        picture = model.camera()(scene[None])[0]
        pictures.append(picture + noise * torch.randn(picture.shape, generator=generator, dtype=picture.dtype))
        scenes.append(model.seen_of_scene(scene))
    return model, torch.stack(pictures), torch.stack(scenes)


def run(model, pictures, denoisers, noise=0.03, weight=None, progress=None):
    observation = Observation(pictures, weight)
    count = len(pictures)
    strength = torch.full((count,), 1e-3, dtype=torch.float64)
    problem = Problem(model, observation, TotalVariation(), strength, Constraint.of(model))
    start = minimise(problem, keep_scene=True)
    first = start.planes if model.boundary_is_known or start.scene is None else start.scene
    chosen = torch.full((count,), STRENGTH_OF_NOISE * noise**2, dtype=torch.float64)
    return start.planes, plug_and_play(model, observation, chosen, denoisers, first, progress)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_patches_gain_over_total_variation(boundary):
    model, pictures, scenes = blurred(boundary=boundary)
    start, restoration = run(model, pictures, [NonlocalBayes()])
    before, after = (float((each - scenes).square().mean()) for each in (start, restoration.planes))
    assert restoration.planes.shape == pictures.shape
    assert after < 0.9 * before


def test_the_levels_fall_to_the_noise_and_the_denoiser_sees_the_whole_scene():
    model, pictures, _ = blurred()
    seen = []

    def denoise(scene, sigma):
        seen.append((tuple(scene.shape), sigma))
        return scene

    steps = []
    run(model, pictures, [GivenDenoiser(denoise, "nothing")], progress=lambda *step: steps.append(step))
    rows, columns = (n + k - 1 for n, k in zip(model.picture, KERNEL.shape, strict=True))
    assert {shape for shape, _ in seen} == {(1, rows, columns)}
    levels = [sigma for _, sigma in seen]
    assert math.isclose(levels[0], FIRST_LEVEL)
    assert math.isclose(levels[-1], LAST_LEVEL * 0.03)
    ratios = [later / earlier for earlier, later in itertools.pairwise(levels)]
    assert max(ratios) - min(ratios) < 1e-9
    assert steps == [(index + 1, STEPS) for index in range(STEPS)]


def test_much_noise_never_makes_the_levels_rise():
    model, pictures, _ = blurred(noise=1.0)
    levels = []

    def denoise(scene, sigma):
        levels.append(sigma)
        return scene

    run(model, pictures, [GivenDenoiser(denoise, "nothing")], noise=1.0)
    assert levels == [LAST_LEVEL] * STEPS


def test_a_batch_gives_what_its_pictures_give_alone():
    model, pictures, _ = blurred(count=2)
    _, together = run(model, pictures, [NonlocalBayes(), NonlocalBayes()])
    for index in range(2):
        _, alone = run(model, pictures[index : index + 1], [NonlocalBayes()])
        torch.testing.assert_close(together.planes[index], alone.planes[0], rtol=0, atol=1e-6)


def test_pixels_that_were_not_seen_are_found():
    model, pictures, scenes = blurred()
    weight = torch.ones_like(pictures)
    weight[..., 20:23, :] = 0
    _, whole = run(model, pictures, [NonlocalBayes()])
    _, gap = run(model, pictures * weight, [NonlocalBayes()], weight=weight)
    errors = [float((each.planes - scenes).square().mean()) for each in (whole, gap)]
    assert errors[1] < 1.25 * errors[0]


@pytest.mark.parametrize("taps", [(1, 1), (3, 5), (4, 6), (9, 2)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_what_is_cut_from_the_grid_goes_back_to_its_place(taps, boundary):
    model = BlurModel.build(torch.ones(taps, dtype=torch.float64), (13, 17), boundary)
    shape = model.picture if model.boundary_is_known else model.grid
    scene = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = _cut(model, scene)
    back = _put(model, whole)
    assert back.shape == scene.shape
    assert torch.equal(_cut(model, back), whole)
    assert torch.equal(model.window(back), model.window(scene))
    if boundary == UNKNOWN:
        assert whole.shape[-2:] == tuple(n + k - 1 for n, k in zip(model.picture, taps, strict=True))


SHAKE = "motion:length=9,angle=30"


@pytest.fixture(scope="module")
def colour():
    """A blurred photograph in colour and its truth."""
    scene = data.astronaut()[60:124, 100:172] / 255.0
    blurred = imaging.blur(scene, SHAKE, noise=0.02, seed=1)
    rows, columns = ((n - m) // 2 for n, m in zip(scene.shape[:2], blurred.shape[:2], strict=True))
    truth = scene[rows : rows + blurred.shape[0], columns : columns + blurred.shape[1]]
    return blurred, truth


def test_colour_gains_and_is_the_same_in_any_layout(colour):
    blurred, truth = colour
    result = imaging.deblur(blurred, SHAKE, prior="nonlocal", full_output=True)
    smooth = imaging.deblur(blurred, SHAKE)
    assert np.mean((result.image - truth) ** 2) < 0.9 * np.mean((smooth - truth) ** 2)
    assert result.report.prior == "nonlocal"
    assert len(result.report.strength) == 3
    tensor = torch.from_numpy(blurred).permute(2, 0, 1)
    again = imaging.deblur(tensor[None], SHAKE, prior="nonlocal")
    assert again.shape == tensor[None].shape
    np.testing.assert_allclose(again[0].permute(1, 2, 0).numpy(), result.image, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 255.0])
def test_units_do_not_matter(colour, scale):
    grey = colour[0].mean(-1)
    reference = imaging.deblur(grey, SHAKE, prior="nonlocal")
    scaled = imaging.deblur(scale * grey + 3 * scale, SHAKE, prior="nonlocal")
    np.testing.assert_allclose((scaled - 3 * scale) / scale, reference, atol=1e-4)


@pytest.mark.parametrize("layout", ["grey array", "colour array", "grey tensor", "colour tensor", "batch"])
def test_a_denoiser_sees_the_kind_that_was_given(colour, layout):
    blurred, _ = colour
    tensor = torch.from_numpy(blurred).permute(2, 0, 1)
    picture, axes = {
        "grey array": (blurred[..., 0], 2),
        "colour array": (blurred, 3),
        "grey tensor": (tensor[0], 2),
        "colour tensor": (tensor, 3),
        "batch": (tensor[None], 4),
    }[layout]
    seen = []

    def denoiser(image, sigma):
        seen.append((type(image), image.ndim, image.dtype, float(image.mean()), sigma))
        return image

    result = imaging.deblur(picture, SHAKE, prior=denoiser)
    assert result.shape == picture.shape
    kind, dimensions, dtype, mean, _ = seen[0]
    assert (kind, dimensions, dtype) == (type(picture), axes, picture.dtype)
    assert abs(mean - float(picture.mean())) < 0.1
    levels = [each[-1] for each in seen]
    assert levels == sorted(levels, reverse=True)
    assert 0.01 < levels[-1] < 0.05  # 1.25 times the noise of 0.02


def test_scikit_image_denoises(colour):
    grey = colour[0].mean(-1)
    truth = colour[1].mean(-1)

    def denoiser(image, sigma):
        return restoration.denoise_tv_chambolle(image, weight=sigma)

    result = imaging.deblur(grey, SHAKE, prior=denoiser)
    assert np.mean((result - truth) ** 2) < 0.6 * np.mean((grey - truth) ** 2)


def test_bm3d_denoises(colour):
    bm3d = pytest.importorskip("bm3d")
    grey, truth = colour[0].mean(-1)[:40, :40], colour[1].mean(-1)[:40, :40]
    result = imaging.deblur(grey, SHAKE, prior=lambda image, sigma: bm3d.bm3d(image, sigma))
    assert np.mean((result - truth) ** 2) < 0.6 * np.mean((grey - truth) ** 2)


@pytest.mark.parametrize(
    ("denoiser", "words"),
    [
        (lambda image, sigma: image[:-1], "a denoiser that returned .*it must return"),
        (lambda image, sigma: None, "a denoiser that returned"),
        (lambda image, sigma: image * np.nan, "a denoiser that returned NaN or infinity"),
    ],
    ids=["shape", "nothing", "nan"],
)
def test_a_denoiser_that_fails_is_named(colour, denoiser, words):
    with pytest.raises(ArgumentError, match=f"^deblur: prior is {words}"):
        imaging.deblur(colour[0], SHAKE, prior=denoiser)


def test_refuses_what_has_no_meaning(colour):
    with pytest.raises(ArgumentError, match=r"^deblur: strength is 'sure'; prior 'nonlocal' takes its strength"):
        imaging.deblur(colour[0], SHAKE, prior="nonlocal", strength="sure")
    kernels = imaging.psf.parse(SHAKE).expand(3, -1, -1)
    with pytest.raises(ArgumentError, match=r"^deblur: boundary is 'reflect'; with one PSF a channel"):
        imaging.deblur(colour[0], kernels, prior=lambda image, sigma: image, boundary="reflect")
    with pytest.raises(ArgumentError, match=r"^deblur: coupled is False; a denoiser gets the whole picture"):
        imaging.deblur(colour[0], SHAKE, prior=lambda image, sigma: image, coupled=False)
    apart = imaging.deblur(colour[0][:40, :40], kernels, prior="nonlocal", boundary="reflect")
    assert apart.shape == (40, 40, 3)


def test_one_psf_a_channel(colour):
    blurred, truth = colour
    kernels = torch.stack([imaging.psf.parse(SHAKE)] * 3)
    one = imaging.deblur(blurred, SHAKE, prior="nonlocal")
    three = imaging.deblur(blurred, kernels, prior="nonlocal")
    np.testing.assert_allclose(three, one, atol=2e-3)
    assert np.mean((three - truth) ** 2) < 0.7 * np.mean((blurred - truth) ** 2)
