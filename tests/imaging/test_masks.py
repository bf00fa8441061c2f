"""Pixels that were not seen say nothing, whatever they hold, and are filled in as the rest of the picture asks."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, estimate_noise, psf
from convpinv.imaging.deblur import BOUNDARIES
from convpinv.imaging.inpaint import filled
from convpinv.imaging.noise import noise_of_planes
from scenes import ROUNDING

MOTION = psf.motion(9, 30)
SCENE = data.camera()[130:238, 190:300] / 255.0
LOOPS = ["tv", "gradient", "tikhonov"]


def case(boundary="unknown", noise=0.01, scene=SCENE):
    blurred = blur(scene, MOTION, noise=noise, seed=0, boundary="valid" if boundary == "unknown" else boundary)
    top, left = ((k - 1 - k // 2, k // 2) for k in MOTION.shape) if boundary == "unknown" else ((0, 0), (0, 0))
    height, width = scene.shape
    return blurred, scene[top[0] : height - top[1], left[0] : width - left[1]]


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


def scattered(shape, share=0.1, seed=1):
    return np.random.default_rng(seed).random(shape) > share


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("prior", LOOPS)
def test_what_an_unseen_pixel_holds_does_not_matter_at_all(prior, boundary):
    blurred, _ = case(boundary, scene=SCENE[:50, :48])
    mask = scattered(blurred.shape)
    results = []
    for content in (0.0, 1e6, np.nan, -np.inf):
        spoiled = np.where(mask, blurred, content)
        results.append(deblur(spoiled, MOTION, prior=prior, boundary=boundary, mask=mask))
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("prior", LOOPS)
def test_a_tenth_of_the_pixels_is_hardly_missed(prior, boundary):
    blurred, truth = case(boundary)
    mask = scattered(blurred.shape)
    whole = deblur(blurred, MOTION, prior=prior, boundary=boundary)
    partial = deblur(np.where(mask, blurred, 0), MOTION, prior=prior, boundary=boundary, mask=mask)
    assert psnr(partial, truth) > psnr(whole, truth) - 1.0
    assert psnr(partial[~mask], truth[~mask]) > psnr(whole[~mask], truth[~mask]) - 2.5


@pytest.mark.parametrize("boundary", ["zeros", "reflect", "replicate"])
def test_single_precision_restores_as_double_does(boundary):
    scene = np.kron(np.random.default_rng(0).random((6, 6)), np.ones((4, 4)))
    photo = blur(scene, "gaussian:sigma=2", boundary=boundary, noise=0.0005, seed=0)
    mask = scattered(photo.shape, 0.2)
    options = {"prior": "tikhonov", "boundary": boundary, "mask": mask, "strength": 2e-5, "full_output": True}
    exact, single = (deblur(photo.astype(kind), "gaussian:sigma=2", **options) for kind in (np.float64, np.float32))
    assert single.report.status == exact.report.status == "converged"
    assert np.abs(single.image - exact.image).max() < 1e-3


def test_groups_of_like_patches_hold_where_the_border_is_known():
    scene = np.kron(np.random.default_rng(0).random((5, 5)), np.ones((6, 6)))
    photo = blur(scene, "gaussian:sigma=2.5", boundary="zeros", noise=0.0005, seed=0)
    restored = deblur(photo, "gaussian:sigma=2.5", prior="nonlocal", boundary="zeros")
    assert psnr(restored, scene) > psnr(photo, scene) + 3


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov", "nonlocal"])
def test_an_empty_channel_leaves_the_others_as_they_are(prior):
    blurred, _ = case(scene=SCENE[:40, :40])
    mask = np.ones(blurred.shape, bool)
    mask[:2, :2] = False
    lit = np.where(mask, blurred, 0)
    options = {"prior": prior, "mask": mask, "coupled": False if prior in ("tv", "nonlocal") else None}
    colour = deblur(np.stack([lit, np.zeros_like(lit), lit], -1), MOTION, **options)
    assert bool((colour[..., 1] == 0).all())
    assert np.allclose(colour[..., 0], deblur(lit, MOTION, **options), atol=2e-3)


@pytest.mark.parametrize("prior", LOOPS)
def test_lines_columns_and_holes_are_filled_in(prior):
    blurred, truth = case()
    mask = np.ones(blurred.shape, bool)
    mask[30:32], mask[:, ::20], mask[60:66, 40:46] = False, False, False
    restored = deblur(np.where(mask, blurred, np.nan), MOTION, prior=prior)
    assert psnr(restored[~mask], truth[~mask]) > psnr(blurred[~mask], truth[~mask]) + 1.0


@pytest.mark.parametrize("prior", [*LOOPS, "none"])
@pytest.mark.parametrize("value", [True, 1, 1.0])
def test_a_mask_of_ones_is_no_mask(prior, value):
    blurred, _ = case("circular", scene=SCENE[:40, :40])
    expected = deblur(blurred, MOTION, prior=prior, boundary="circular")
    mask = np.full(blurred.shape, value)
    if prior == "none":
        with pytest.raises(ArgumentError, match=r"^deblur: mask is given; prior 'none' needs every pixel"):
            deblur(blurred, MOTION, prior=prior, boundary="circular", mask=mask)
    else:
        assert np.array_equal(deblur(blurred, MOTION, prior=prior, boundary="circular", mask=mask), expected)


def test_the_weighted_solvers_agree_with_the_plain_ones():
    """With a mask that misses one pixel in a corner, everything else must come out as without."""
    for prior in LOOPS:
        for boundary in BOUNDARIES:
            blurred, _ = case(boundary, scene=SCENE[:60, :56])
            mask = np.ones(blurred.shape)
            mask[0, 0] = 0.999999
            strength = 0.01 if prior == "tv" else 0.003
            options = {"prior": prior, "boundary": boundary, "strength": strength, "noise": 0.01}
            plain, weighted = deblur(blurred, MOTION, **options), deblur(blurred, MOTION, mask=mask, **options)
            assert np.abs(plain - weighted).max() < 0.02, (prior, boundary)


@pytest.mark.parametrize("prior", LOOPS)
def test_weights_between_are_believed_as_much(prior):
    blurred, truth = case()
    noisy = blurred + np.where(scattered(blurred.shape, 0.3), 0, 1) * np.random.default_rng(2).normal(
        0, 0.1, blurred.shape
    )
    weights = np.where(scattered(blurred.shape, 0.3), 1.0, 0.01)
    options = {"prior": prior, "noise": 0.01}
    blind = psnr(deblur(noisy, MOTION, **options), truth)
    assert psnr(deblur(noisy, MOTION, mask=weights, **options), truth) > blind + 2


def test_masks_of_every_kind_say_the_same():
    blurred, _ = case(scene=SCENE[:50, :48])
    mask = scattered(blurred.shape)
    expected = deblur(blurred, MOTION, mask=mask)
    for same in (mask.astype(np.uint8), mask.astype(float), torch.from_numpy(mask), np.asfortranarray(mask)):
        assert np.array_equal(deblur(blurred, MOTION, mask=same), expected)
    assert np.array_equal(deblur(np.where(mask, blurred, np.nan), MOTION), expected)
    colour = np.stack([blurred, blurred[::-1], blurred[:, ::-1], blurred], -1)
    masks = np.stack([mask, mask[::-1], mask[:, ::-1], np.ones_like(mask)], -1)
    restored = deblur(colour, MOTION, mask=masks)
    assert np.allclose(restored[..., 0], expected, atol=ROUNDING)
    for channel in range(4):
        alone = deblur(colour[..., channel], MOTION, mask=masks[..., channel])
        assert np.allclose(restored[..., channel], alone, atol=ROUNDING)
    tensor = torch.from_numpy(np.moveaxis(colour, -1, 0).copy())[None]
    together = deblur(tensor, MOTION, mask=torch.from_numpy(np.moveaxis(masks, -1, 0).copy())[None])
    assert torch.allclose(together[0], torch.from_numpy(restored).permute(2, 0, 1), atol=ROUNDING)


def test_the_report_says_what_was_left_out():
    blurred, _ = case(scene=SCENE[:50, :48])
    blurred[3, 4], blurred[7, 8] = np.nan, np.inf
    mask = np.ones(blurred.shape, bool)
    mask[10] = False
    report = deblur(blurred, MOTION, mask=mask, full_output=True).report
    assert report.masked == 2 + blurred.shape[1]
    assert any(text.startswith("2 values") and "NaN" in text for text in report.warnings)
    turned_round = deblur(blurred, MOTION, mask=~mask, full_output=True).report
    assert any("1 or True means that a pixel was seen" in text for text in turned_round.warnings)
    assert not any("True means" in text for text in report.warnings)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_noise_is_that_of_the_seen_pixels(share):
    blurred, _ = case(noise=0.02)
    mask = scattered(blurred.shape, share)
    planes = torch.from_numpy(np.where(mask, blurred, 0))[None]
    seen = torch.from_numpy(mask)[None]
    assert float(noise_of_planes(filled(planes, seen.double()), seen.double())[0]) == pytest.approx(0.02, rel=0.2)


def test_a_filling_keeps_what_is_seen_and_stays_in_its_range():
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(3, 37, 21, generator=generator)
    weight = (torch.rand(3, 37, 21, generator=generator) > 0.9).float()
    result = filled(planes, weight)
    assert torch.equal(result[weight > 0], planes[weight > 0])
    for plane, known, made in zip(planes, weight, result, strict=True):
        assert float(made.min()) >= float(plane[known > 0].min()) - 1e-6
        assert float(made.max()) <= float(plane[known > 0].max()) + 1e-6
    one = torch.zeros(1, 9, 9)
    one[0, 2, 3] = 1
    assert torch.allclose(filled(torch.full((1, 9, 9), 5.0), one), torch.full((1, 9, 9), 5.0))
    ramp = torch.arange(32.0).expand(1, 32, 32)
    gaps = torch.ones_like(ramp)
    gaps[:, :, 10:12] = 0
    assert (filled(ramp * gaps, gaps) - ramp).abs().max() < 2


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones((3, 3)), "mask is a float64 array of shape"),
        (np.full((9, 9), 255), "mask is from 255 to 255; .* mask > 0"),
        (np.full((9, 9), -0.5), "mask is from -0.5"),
        (np.full((9, 9), np.nan), "mask is NaN"),
        (np.zeros((9, 9)), "mask is 0 everywhere"),
        (np.ones((9, 9), complex), "mask is a complex128"),
        ("corner", "mask is 'corner'"),
    ],
)
def test_refuses_masks_in_one_line(mask, says):
    picture = np.random.default_rng(0).random((9, 9))
    with pytest.raises(ArgumentError, match=f"^deblur: {says}") as caught:
        deblur(picture, "gaussian:sigma=0.5", mask=mask)
    assert "\n" not in str(caught.value)


def test_refuses_what_leaves_nothing():
    picture = np.full((9, 9), np.nan)
    picture[0, 0] = 1
    mask = np.ones((9, 9), bool)
    mask[0, 0] = False
    with pytest.raises(ArgumentError, match=r"^deblur: mask is such that only NaN"):
        deblur(picture, "gaussian:sigma=0.5", mask=mask)
    with pytest.raises(ArgumentError, match=r"^deblur: image is not finite; every value"):
        deblur(np.full((9, 9), np.nan), "gaussian:sigma=0.5")
    with pytest.raises(ArgumentError, match=r"^deblur: image is not finite; prior 'none'"):
        deblur(picture, "gaussian:sigma=0.5", prior="none")


def test_the_precision_of_the_gradient_prior_is_that_of_each_picture():
    scene = data.camera()[100:148, 200:250] / 255.0
    pictures = torch.from_numpy(
        np.stack([blur(scene, "gaussian:sigma=1", noise=s, seed=0) for s in (0.0005, 0.02, 0.05)])
    )
    pictures = pictures[:, None].float()
    mask = torch.ones(pictures.shape[-2:], dtype=torch.bool)
    mask[5:7, 9] = False
    strengths = [
        deblur(picture, "gaussian:sigma=1", prior="gradient", mask=mask, full_output=True) for picture in pictures
    ]
    assert (
        min(result.report.strength for result in strengths) < 1e-3 < max(result.report.strength for result in strengths)
    )
    together = deblur(pictures, "gaussian:sigma=1", prior="gradient", mask=mask)
    for alone, one in zip(strengths, together, strict=True):
        assert torch.allclose(alone.image, one, atol=ROUNDING)


def test_a_point_gives_clipped_pictures_back_and_counts_what_was_clipped():
    picture = np.random.default_rng(0).random((30, 30)).clip(max=0.7)
    result = deblur(picture, np.ones((1, 1)), clip=(None, 0.7), full_output=True)
    assert np.array_equal(result.image, picture)
    assert result.report.saturated == (picture == 0.7).sum()


def test_masked_pixels_of_a_masked_array_are_not_seen():
    picture = blur(data.camera()[100:180, 200:290] / 255.0, "gaussian:sigma=1", noise=0.01, seed=0)
    hidden = np.zeros(picture.shape, dtype=bool)
    hidden[10:14, 10:14] = True
    gaps = np.where(hidden, np.nan, picture)
    masked = np.ma.masked_array(np.where(hidden, 1e6, picture), hidden)
    found = deblur(masked, "gaussian:sigma=1", full_output=True)
    assert found.report.masked == hidden.sum()
    np.testing.assert_array_equal(found.image, deblur(gaps, "gaussian:sigma=1"))
    with pytest.raises(ArgumentError, match="a masked array"):
        blur(masked, "gaussian:sigma=1")


def test_the_noise_is_estimated_from_what_was_seen():
    noisy = case(noise=0.02)[0]
    expected = estimate_noise(noisy)
    seen = np.random.default_rng(3).random(noisy.shape) > 0.01
    spoilt = np.where(seen, noisy, 7.0)
    assert estimate_noise(spoilt, mask=seen) == pytest.approx(expected, rel=0.15)
    assert estimate_noise(np.where(seen, noisy, np.nan)) == estimate_noise(spoilt, mask=seen)
