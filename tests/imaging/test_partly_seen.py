"""What is chosen and judged for a picture hangs on what was seen of it: no neighbour and no single pixel undoes it."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.imaging import blur, deblur, estimate_noise, psf
from scenes import ROUNDING

SCENE = data.camera()[100:260, 180:340] / 255.0


def photo(shape, noise, seed=0):
    blurred = blur(SCENE, shape, noise=noise, seed=seed)
    top, left = ((whole - part) // 2 for whole, part in zip(SCENE.shape, blurred.shape, strict=True))
    return blurred, SCENE[top : top + blurred.shape[0], left : left + blurred.shape[1]]


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


@pytest.mark.parametrize("prior", ["tv", "gradient"])
@pytest.mark.parametrize("spoilt", ["gap", "half", "lamp", "nothing"])
def test_a_neighbour_with_gaps_changes_nothing(prior, spoilt):
    grid = np.linspace(0, 1, 72)
    smooth = 0.5 + 0.3 * np.sin(6 * grid)[:, None] * np.cos(5 * grid)
    tiles = np.kron(np.random.default_rng(0).random((8, 8)), np.ones((9, 9)))
    picture, mate = (blur(one, "gaussian:sigma=1.5", noise=s, seed=5) for one, s in ((smooth, 1e-3), (tiles, 0.02)))
    if spoilt == "gap":
        mate[5, 5] = np.nan
    if spoilt == "half":
        mate[:, ::2] = np.nan
    if spoilt == "lamp":
        mate = np.minimum(mate, np.quantile(mate, 0.9))
    options = {"prior": prior, "full_output": True}
    alone = [deblur(one, "gaussian:sigma=1.5", **options) for one in (picture, mate)]
    # Nothing is to be gained on the smooth one, which the check must go on finding out.
    assert alone[0].report.restored_share == 0
    both = deblur(torch.from_numpy(np.stack([picture, mate]))[:, None], "gaussian:sigma=1.5", **options)
    for index, one in enumerate(alone):
        assert np.allclose(both.image[index, 0].numpy(), one.image, rtol=0, atol=ROUNDING)
        assert np.atleast_1d(both.report.strength)[index] == pytest.approx(one.report.strength, rel=1e-4)
        assert np.atleast_1d(both.report.noise)[index] == pytest.approx(one.report.noise, rel=1e-4)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("gap", ["pixel", "scattered", "hole"])
def test_gaps_do_not_hide_an_error_of_the_psf(prior, gap):
    blurred, truth = photo(psf.gaussian(1.5), 0.003)
    spoiled = blurred.copy()
    if gap == "pixel":
        spoiled[50, 70] = np.nan
    elif gap == "scattered":
        spoiled[np.random.default_rng(0).random(blurred.shape) < 0.01] = np.nan
    else:
        spoiled[60:75, 80:95] = np.nan
    for wrong in (1.7, 2.2):
        whole, partly = (deblur(one, psf.gaussian(wrong), prior=prior, full_output=True) for one in (blurred, spoiled))
        assert 0.5 < partly.report.strength / whole.report.strength < 2
        seen = np.isfinite(spoiled)
        assert psnr(partly.image[seen], truth[seen]) > psnr(whole.image[seen], truth[seen]) - 0.7
        doubted = [any("does not fit" in said for said in one.report.warnings) for one in (whole, partly)]
        assert all(doubted) or wrong < 2


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_a_result_far_out_of_range_is_not_handed_out(prior):
    blurred, truth = photo(psf.gaussian(1.5), 0.003)
    lost = deblur(blurred, psf.gaussian(2.2), prior=prior, full_output=True)
    assert lost.report.restored_share == 0
    assert np.array_equal(lost.image, blurred)
    assert any("the picture is given back" in said for said in lost.report.warnings)
    strength = lost.report.strength
    asked = deblur(blurred, psf.gaussian(2.2), prior=prior, strength=strength, full_output=True)
    assert psnr(asked.image, truth) < psnr(blurred, truth) - 3
    # A PSF that is a little too wide has its say.
    assert psnr(deblur(blurred, psf.gaussian(1.6), prior=prior), truth) > psnr(blurred, truth) + 1


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_many_gaps_do_not_pass_for_a_scene(prior, share):
    blurred, truth = photo(psf.gaussian(1.5), 0.003)
    seen = np.random.default_rng(5).random(blurred.shape) >= share
    restored = deblur(np.where(seen, blurred, np.nan), psf.gaussian(1.5), prior=prior)
    # A strength for what smooth fillings hold at frequencies that the blur emptied: 20 dB below the blurred picture.
    assert psnr(restored, truth) > psnr(blurred, truth) + 1.5


WEIGHTS = np.where(np.random.default_rng(1).random((160, 160)) < 0.5, 1.0, 1 / 400)


@pytest.mark.parametrize("rule", [None, "discrepancy", "gcv", "sure"])
@pytest.mark.parametrize("noise", [0.01, None])
def test_rules_know_how_noisy_each_pixel_is(rule, noise):
    blurred, truth = photo(psf.gaussian(1.5), 0)
    weights = WEIGHTS[: blurred.shape[0], : blurred.shape[1]]
    noisy = blurred + 0.01 * np.random.default_rng(2).standard_normal(blurred.shape) / np.sqrt(weights)
    options = {"mask": weights, "full_output": True}
    result = deblur(noisy, psf.gaussian(1.5), noise=noise, strength=rule, **options)
    assert result.report.noise == pytest.approx(0.01, rel=0.25)
    tried = [deblur(noisy, psf.gaussian(1.5), strength=10.0**power, **options).image for power in range(-5, -1)]
    best = max(psnr(image, truth) for image in tried)
    # The discrepancy principle smoothes, here as everywhere.
    assert psnr(result.image, truth) > best - (2.5 if rule == "discrepancy" else 1.0)


@pytest.mark.parametrize("kind", ["scattered", "side", "scaled"])
def test_the_noise_is_that_of_weight_one(kind):
    weights = np.ones((160, 160))
    if kind == "scattered":
        weights = WEIGHTS
    elif kind == "side":
        weights[:, 100:] = 0.01
    else:
        weights *= 0.25
    noisy = blur(SCENE, psf.gaussian(1.5), boundary="reflect")
    noisy = noisy + 0.02 * np.random.default_rng(2).standard_normal(noisy.shape) / np.sqrt(weights)
    assert estimate_noise(noisy, mask=weights) == pytest.approx(0.02, rel=0.2)


def test_channels_that_are_restored_together_are_given_back_together():
    scene = data.coffee()[60:260, 100:300] / 255.0
    blurred = blur(scene, psf.gaussian(1.5), noise=0.003, seed=0)
    apart = [
        deblur(blurred[..., channel], psf.gaussian(2.2), full_output=True).report.restored_share for channel in range(3)
    ]
    together = deblur(blurred, psf.gaussian(2.2), full_output=True).report.restored_share
    assert min(together) == max(together) < 1
    assert max(apart) > min(apart)
