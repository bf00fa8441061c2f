"""A denoiser as the prior: what it is called with, every boundary, batches, masks, and what it gains."""

import math

import pytest
import torch
from tests.imaging.scenes import photograph

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
            scene = photograph(*size, 60 + 10 * index)
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
    first = start.planes if model.boundary_is_known else start.scene
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
    ratios = [later / earlier for earlier, later in zip(levels, levels[1:], strict=False)]
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
