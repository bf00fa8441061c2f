"""Deblurring: that it helps, everywhere; that it keeps what it was given; that it refuses what it cannot do."""

import json
import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.arguments import ArgumentError, ConvergenceError, ConvpinvError, result_fits
from convpinv.imaging import DeblurResult, blur, deblur, estimate_noise, priors, psf
from convpinv.imaging.deblur import BOUNDARIES, PRIORS
from convpinv.imaging.model import BlurModel
from convpinv.imaging.regularization import LARGEST_VARIANCE, PictureSpectrum, fit_spectrum

MOTION = psf.motion(11, 30)


def photograph(size=128, top=130, left=190):
    return data.camera()[top : top + size, left : left + size] / 255.0


def seen_part(scene, kernel, like):
    """Cut out of the scene what the valid convolution is centred on."""
    top, left = (k - 1 - k // 2 for k in kernel.shape)
    return scene[top : top + like.shape[0], left : left + like.shape[1]]


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


def frame(picture, width=8):
    inside = np.zeros(picture.shape, bool)
    inside[width:-width, width:-width] = True
    return picture[~inside]


def case(kernel=MOTION, noise=0.01, boundary="unknown", scene=None, seed=0):
    """Return a blurred picture and the truth under it."""
    scene = photograph() if scene is None else scene
    blurred = blur(scene, kernel, noise=noise, seed=seed, boundary="valid" if boundary == "unknown" else boundary)
    return blurred, seen_part(scene, kernel, blurred) if boundary == "unknown" else scene


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(
    ("prior", "gain"), [("tv", 5.0), ("hyperlaplacian", 4.5), ("gradient", 3.0), ("tikhonov", 1.5)]
)
def test_every_prior_and_boundary_beats_the_input_up_to_the_border(prior, gain, boundary):
    blurred, truth = case(boundary=boundary)
    restored = deblur(blurred, MOTION, prior=prior, boundary=boundary)
    assert psnr(restored, truth) > psnr(blurred, truth) + gain
    assert psnr(frame(restored), frame(truth)) > psnr(frame(blurred), frame(truth)) + gain / 3


@pytest.mark.parametrize("boundary", ["unknown", "circular"])
def test_without_prior_and_without_noise_the_pseudo_inverse_explains_the_picture(boundary):
    kernel = psf.gaussian(0.7)
    blurred, truth = case(kernel, noise=0.0, boundary=boundary, scene=photograph(48))
    result = deblur(blurred, kernel, prior="none", boundary=boundary, full_output=True)
    assert result.report.residual < 1e-6
    if boundary == "circular":  # else the frame is free, and the smallest solution is one of many
        assert psnr(result.image, truth) > psnr(blurred, truth) + 20
    assert result.report.strength is None


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.05, 0.1])
@pytest.mark.parametrize("kernel", [psf.gaussian(1.5), psf.defocus(3), psf.motion(15, 100), psf.box(4)])
def test_automatic_strength_helps_at_every_noise(kernel, noise):
    blurred, truth = case(kernel, noise=noise)
    assert psnr(deblur(blurred, kernel), truth) > psnr(blurred, truth) + 1.0


def test_automatic_strength_is_near_the_best_in_hindsight():
    blurred, truth = case(noise=0.01)
    result = deblur(blurred, MOTION, full_output=True)
    chosen = result.report.strength
    best = max(psnr(deblur(blurred, MOTION, strength=chosen * 1.5**power), truth) for power in range(-3, 4))
    assert psnr(result.image, truth) > best - 0.25


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("boundary", ["unknown", "circular", "replicate"])
def test_a_point_psf_of_any_size_moves_nothing(size, prior, boundary):
    point = np.zeros((size, size))
    point[size // 2, size // 2] = 1
    sharp = photograph(40)
    restored = deblur(sharp, point, noise=0.0, prior=prior, boundary=boundary)
    assert np.abs(restored - sharp).max() < 0.02


@pytest.mark.parametrize("kernel", [psf.box((4, 6)), psf.gaussian(2.0), MOTION])
def test_the_result_is_not_shifted(kernel):
    blurred, truth = case(kernel)
    restored = deblur(blurred, kernel)
    inner = truth[4:-4, 4:-4]
    errors = {
        (row, column): np.mean(
            (restored[4 + row : truth.shape[0] - 4 + row, 4 + column : truth.shape[1] - 4 + column] - inner) ** 2
        )
        for row in (-1, 0, 1)
        for column in (-1, 0, 1)
    }
    assert min(errors, key=errors.__getitem__) == (0, 0)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_scale_and_offset_pass_through(prior):
    blurred, _ = case(scene=photograph(96))
    restored = deblur(blurred, MOTION, prior=prior)
    for scale, offset in ((1e5, 0.0), (1e-5, 0.0), (255.0, 100.0), (-1.0, 1.0)):
        again = (deblur(scale * blurred + offset, MOTION, prior=prior) - offset) / scale
        assert np.abs(again - restored).max() < 2e-3


def test_arrays_tensors_and_batches_agree():
    colour = np.stack([case(scene=photograph(64, 130, left), seed=left)[0] for left in (150, 190, 230)], axis=-1)
    restored = deblur(colour, MOTION, coupled=False)
    assert restored.shape == colour.shape
    tensor = torch.from_numpy(colour).permute(2, 0, 1)
    alone = deblur(tensor, MOTION, coupled=False)
    assert torch.allclose(alone, torch.from_numpy(restored).permute(2, 0, 1), atol=1e-9)
    batch = torch.stack([tensor, 2 * tensor.flip(0)])
    together = deblur(batch, MOTION, coupled=False)
    assert together.shape == batch.shape
    for picture, result in zip(batch, together, strict=True):
        for plane, plane_result in zip(picture, result, strict=True):
            assert torch.allclose(deblur(plane, MOTION), plane_result, atol=1e-9)


def test_one_psf_a_channel():
    kernels = torch.zeros(2, 7, 7, dtype=torch.float64)
    kernels[0, 3] = 1 / 7
    kernels[1, :, 3] = 1 / 7
    scene = torch.from_numpy(np.stack([photograph(64), photograph(64, 200, 100)]))
    blurred = blur(scene, kernels, noise=0.01, seed=0)
    restored = deblur(blurred, kernels)
    for channel in (0, 1):
        assert torch.allclose(restored[channel], deblur(blurred[channel], kernels[channel]), atol=1e-9)


@pytest.mark.parametrize(
    ("given", "returned"),
    [("uint8", "float32"), ("uint16", "float32"), (">u2", "float32"), ("float16", "float16"), ("float32", "float32")],
)
def test_dtypes_and_units_of_arrays(given, returned):
    levels = np.clip(np.rint(case(scene=photograph(64))[0] * 255), 0, 255)
    restored = deblur(levels.astype(given), MOTION, prior="gradient")
    assert restored.dtype == returned
    exact = deblur(levels, MOTION, prior="gradient")
    assert exact.dtype == np.float64
    assert np.abs(restored - exact).max() < (1.0 if given == "float16" else 0.1)
    assert exact.max() > 100


def test_inputs_are_left_alone_and_views_are_read():
    blurred, _ = case(scene=photograph(64))
    kernel = MOTION.numpy().copy()
    before, kernel_before = blurred.copy(), kernel.copy()
    blurred.flags.writeable = False
    restored = deblur(blurred[::-1, ::-1], kernel[::-1, ::-1])
    assert np.array_equal(blurred, before)
    assert np.array_equal(kernel, kernel_before)
    assert np.abs(restored - deblur(np.ascontiguousarray(blurred[::-1, ::-1]), MOTION)).max() < 1e-9


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("value", [0.0, 0.4, -3e4])
def test_constant_pictures_stay(prior, value):
    flat = np.full((40, 44), value)
    restored = deblur(flat, psf.gaussian(0.6), prior=prior, boundary="circular")
    assert np.allclose(restored, flat, rtol=1e-6)


def test_strength_is_used_and_reported():
    blurred, _ = case(scene=photograph(64))
    weak, strong = (deblur(blurred, MOTION, strength=s, full_output=True) for s in (1e-4, 1e-1))
    assert weak.report.strength == pytest.approx(1e-4, rel=1e-6)
    assert weak.report.strength_rule == "given"
    assert np.std(strong.image) < np.std(weak.image)
    doubled = deblur(blurred, 7 * MOTION, strength=1e-4)
    assert np.abs(doubled - weak.image).max() < 1e-9


@pytest.mark.parametrize("prior", ["tv", "gradient"])
def test_tv_and_gradient_minimise_what_they_say(prior):
    """No nearby picture has a lower cost: the circular case, where the cost is written down here from scratch."""
    blurred, _ = case(boundary="circular", scene=photograph(48))
    strength = 0.01
    restored = deblur(blurred, MOTION, prior=prior, boundary="circular", strength=strength)

    def cost(picture):
        misfit = blur(picture, MOTION, boundary="circular") - blurred
        down, right = (np.roll(picture, -1, axis) - picture for axis in (0, 1))
        squares = down**2 + right**2
        rest = np.sqrt(squares).sum() if prior == "tv" else 0.5 * squares.sum()
        return 0.5 * np.sum(misfit**2) + strength * rest

    rng = np.random.default_rng(0)
    others = [restored + size * rng.normal(size=restored.shape) for size in (1e-2, 3e-3)]
    others += [deblur(blurred, MOTION, prior=prior, boundary="circular", strength=strength * f) for f in (0.8, 1.25)]
    others += [1.01 * restored, 0.99 * restored, blurred]
    assert all(cost(other) > cost(restored) for other in others)


def test_report_says_what_was_done():
    blurred, _ = case(scene=photograph(64))
    calls = []
    result = deblur(blurred, MOTION, noise=0.01, full_output=True, progress=lambda *step: calls.append(step))
    assert isinstance(result, DeblurResult)
    report = json.loads(json.dumps(result.report.to_dict()))
    assert report["prior"] == "tv"
    assert report["boundary"] == "unknown"
    assert report["noise"] == 0.01
    assert report["noise_rule"] == "given"
    assert "likelihood" in report["strength_rule"]
    assert "Fourier" in report["solver"]
    assert report["status"] == "converged"
    assert report["residual"] == pytest.approx(0.01, rel=0.3)
    assert report["warnings"] == []
    assert [step for step, _ in calls] == list(range(1, report["iterations"] + 1))
    estimated = deblur(blurred, MOTION, full_output=True).report
    assert estimated.noise == pytest.approx(0.01, rel=0.2)
    assert "patches" in estimated.noise_rule
    colour = deblur(np.stack([blurred, blurred], -1), MOTION, full_output=True).report
    assert isinstance(colour.strength, tuple)
    assert len(colour.strength) == len(colour.noise) == len(colour.residual) == 2


def test_report_warns_of_what_is_wrong():
    blurred, _ = case(noise=0.002)
    wrong = deblur(blurred, psf.motion(21, 120), full_output=True).report
    assert any("does not fit this PSF" in warning for warning in wrong.warnings)
    fine = deblur(blurred, MOTION, full_output=True).report
    assert fine.warnings == ()
    too_sure = deblur(blurred, psf.motion(21, 120), noise=1e-9, full_output=True).report
    said = next(warning for warning in too_sure.warnings if "misses the picture" in warning)
    assert float(said.split(" times")[0].split()[-1]) < 100  # of the noise that was reckoned with, not of 1e-9
    shifted = torch.nn.functional.pad(MOTION, (8, 0, 0, 0))
    assert any("recentred" in warning for warning in deblur(blurred, shifted, full_output=True).report.warnings)
    clipped = deblur(np.clip(blurred, 0.2, 0.6), MOTION, full_output=True).report
    assert any("clipped" in warning for warning in clipped.warnings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": np.ones((2, 2, 2, 2))}, "image"),
        ({"image": torch.ones(1, 1, 1, 9, 9)}, "image"),
        ({"image": np.ones((9, 9), complex)}, "image"),
        ({"image": np.ones((9, 9), bool)}, "image"),
        ({"image": np.full((9, 9), np.nan)}, "image"),
        ({"image": [[1.0]]}, "image"),
        ({"image": np.ones((0, 9))}, "image"),
        ({"psf": np.ones((3, 99))}, "psf"),
        ({"psf": np.ones((3, 3, 3))}, "psf"),
        ({"psf": np.zeros((3, 3))}, "psf"),
        ({"psf": np.full((3, 3), np.inf)}, "psf"),
        ({"psf": np.ones((3, 3), complex)}, "psf"),
        ({"psf": None}, "psf"),
        ({"noise": -1.0}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"noise": "low"}, "noise"),
        ({"prior": "laplacian"}, "prior"),
        ({"prior": 3.0}, "prior"),
        ({"boundary": "mirror"}, "boundary"),
        ({"strength": 0}, "strength"),
        ({"strength": -1}, "strength"),
        ({"strength": float("inf")}, "strength"),
        ({"prior": "none", "strength": 1.0}, "strength"),
        ({"prior": "none", "strength": "gcv"}, "strength"),
        ({"strength": "best"}, "strength"),
        ({"progress": 3}, "progress"),
        ({"noise": 10**400}, "noise"),
        ({"noise": [0.1, 0.1]}, "noise"),
        ({"noise": np.array([-0.1])}, "noise"),
        ({"image": np.ones((9, 9), np.float32), "noise": 1e300}, "noise"),
        ({"image": torch.ones(9, 9).to_sparse()}, "image"),
        ({"image": torch.ones(9, 9, device="meta")}, "image"),
        ({"image": torch.ones(9, 9).to(torch.float8_e4m3fn)}, "image"),
        ({"psf": [[1.0], [1.0, 2.0]]}, "psf"),
        ({"psf": torch.ones(3, 3).to_sparse()}, "psf"),
        ({"psf": "gaussian:sigma=-1"}, "psf"),
        ({"psf": "blob:size=3"}, "psf"),
        ({"image": np.eye(1, 9), "psf": [[1.0]], "prior": "gradient", "boundary": "reflect", "noise": 0.1}, "boundary"),
    ],
)
def test_refuses_in_one_line_that_names_the_argument(change, says):
    arguments = {"image": np.random.default_rng(0).random((9, 9)), "psf": "gaussian:sigma=0.5"} | change
    with pytest.raises(ArgumentError, match=f"^deblur: {says} is ") as caught:
        deblur(arguments.pop("image"), arguments.pop("psf"), **arguments)
    assert "\n" not in str(caught.value)
    if says == "prior":
        assert "'tikhonov'" in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 5)])
@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_tiny_pictures_give_finite_ones(shape, prior):
    picture = np.random.default_rng(0).random(shape)
    kernel = np.ones((min(shape[0], 2), min(shape[1], 3)))
    for boundary in ("unknown", "circular", "replicate"):
        assert np.isfinite(deblur(picture, kernel, prior=prior, boundary=boundary)).all()


@pytest.mark.parametrize("wrong", [psf.motion(25, 120), psf.gaussian(4.0), MOTION])
def test_no_fit_implies_more_contrast_than_a_picture_has(wrong):
    blurred, _ = case(noise=0.002)
    unit = torch.from_numpy((blurred - blurred.mean()) / blurred.std())[None]
    model = BlurModel.build(wrong, blurred.shape, "circular")
    fit = fit_spectrum(PictureSpectrum.of(model, unit), torch.tensor([0.002 / blurred.std()]))
    contrast = float(fit.power[0] * (1 / model.difference_transfer().flatten()[1:]).mean())
    assert contrast < 1.001 * LARGEST_VARIANCE
    assert bool(fit.capped[0]) == (wrong is not MOTION)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("kernel", [psf.gaussian(3), psf.gaussian(5)])
@pytest.mark.filterwarnings("ignore::convpinv.arguments.ConvergenceWarning")
def test_noise_free_data_under_a_smooth_blur_are_no_catastrophe(prior, kernel):
    blurred, truth = case(kernel, noise=0.0, scene=photograph(140))
    assert psnr(deblur(blurred, kernel, prior=prior), truth) > psnr(blurred, truth)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("prior", PRIORS)
def test_where_nothing_blurs_and_no_noise_is_given_the_picture_comes_back(size, prior):
    point = np.zeros((size, size))
    point[size // 2, size // 2] = 7
    noisy = photograph(64) + np.random.default_rng(0).normal(0, 0.01, (64, 64))
    result = deblur(noisy, point, prior=prior, full_output=True)
    assert np.array_equal(result.image, noisy)
    assert any("no blur to undo" in warning for warning in result.report.warnings)
    assert np.std(deblur(noisy, point, strength=1.0)) < np.std(noisy)


@pytest.mark.parametrize("noise", [0.005, 0.01])
def test_texture_is_not_lost_under_a_psf_that_hardly_blurs(noise):
    scene = data.chelsea()[50:210, 140:300].mean(-1) / 255.0
    kernel = psf.gaussian(0.3)
    blurred, truth = case(kernel, noise=noise, scene=scene)
    result = deblur(blurred, kernel, full_output=True)
    assert psnr(result.image, truth) > psnr(blurred, truth) - 0.4
    assert any("hardly blurs" in warning for warning in result.report.warnings)
    assert "texture" in result.report.noise_rule


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_magnitude_is_restored_alike(prior, dtype):
    blurred, _ = case(scene=photograph(64))
    restored = deblur(blurred, MOTION, prior=prior)
    scales = (1e-30, 1e30) if dtype == np.float32 else (1e-290, 1e290)
    for scale in scales:
        result = deblur((blurred * scale).astype(dtype), MOTION, prior=prior, full_output=True)
        assert np.abs(result.image.astype(float) / scale - restored).max() < 5e-3
        assert np.isfinite(result.report.noise)
        assert result.report.noise > 0
        assert result.report.warnings == ()


def test_a_small_deviation_from_a_large_mean_is_a_picture_above_rounding_only():
    blurred, _ = case(scene=photograph(64))
    restored = deblur(blurred, MOTION)
    for deviation, touched in ((1.0, True), (1e-3, False)):
        lifted = (1e4 + deviation * (blurred - blurred.mean())).astype(np.float32)
        result = deblur(lifted, MOTION, noise=0.01 * deviation, full_output=True)
        assert any("rounding" in warning for warning in result.report.warnings) != touched
        if touched:
            assert np.abs((result.image - 1e4) - (restored - blurred.mean())).max() < 0.05
        else:
            assert np.array_equal(result.image, lifted)


@pytest.mark.filterwarnings("ignore::convpinv.arguments.ConvergenceWarning")
def test_noise_beyond_the_picture_is_survived():
    blurred, _ = case(scene=photograph(64))
    for prior in ("tv", "gradient", "tikhonov"):
        assert np.isfinite(deblur(blurred, MOTION, noise=1e300, prior=prior)).all()


def test_a_result_beyond_the_range_of_its_dtype_is_refused():
    blurred, _ = case(scene=photograph(64))
    high = (65500 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.float16)
    with pytest.raises(
        ArgumentError, match=r"^deblur: the result exceeds float16's range; give the picture as float32$"
    ):
        deblur(high, MOTION)
    with pytest.raises(ArgumentError, match=r"^blur: the result exceeds float32's range"):
        blur(blurred.astype(np.float32), MOTION, noise=1e300)


def test_a_result_of_nan_is_not_said_to_exceed_a_range():
    with pytest.raises(ConvpinvError, match=r"^deblur: the result holds NaN"):
        result_fits("deblur", torch.tensor([0.0, math.nan]), torch.float64)


def test_noise_may_be_any_number_or_one_a_channel():
    blurred, _ = case(scene=photograph(64))
    expected = deblur(blurred, MOTION, noise=0.01)
    for noise in (np.float64(0.01), np.array(0.01), torch.tensor(0.01, dtype=torch.float64), [0.01]):
        assert np.array_equal(deblur(blurred, MOTION, noise=noise), expected)
    colour = np.stack([blurred, 2 * blurred[::-1]], -1)
    estimated = estimate_noise(colour)
    result = deblur(colour, MOTION, noise=estimated, full_output=True)
    assert result.report.noise == pytest.approx(tuple(estimated), rel=1e-12)
    assert np.array_equal(result.image, deblur(colour, MOTION))
    assert np.allclose(deblur(colour, MOTION, noise=(0.01, 0.3))[..., 0], expected, atol=1e-9)
    batch = torch.from_numpy(np.stack([colour, colour[:, ::-1]])).permute(0, 3, 1, 2)
    levels = estimate_noise(batch)
    assert levels.shape == (2, 2)
    assert torch.equal(deblur(batch, MOTION, noise=levels), deblur(batch, MOTION))
    assert torch.equal(deblur(batch, MOTION, noise=[0.01, 0.2]), deblur(batch, MOTION, noise=[[0.01, 0.2]] * 2))


def test_the_pseudo_inverse_that_does_not_converge_advises_what_helps():
    unfinished = SimpleNamespace(status=SimpleNamespace(is_success=False, message="stops"), iterations=9, residual=0.5)
    inverse = SimpleNamespace(solve=lambda data: unfinished)
    model = SimpleNamespace(camera=lambda: SimpleNamespace(pinv=lambda: inverse))
    with pytest.raises(ConvergenceError, match=r"^deblur: .*take prior 'tikhonov' with a small strength") as caught:
        priors.pseudo_inverse(cast(BlurModel, model), torch.zeros(1, 4, 4))
    assert "larger strength" not in str(caught.value)


@pytest.mark.parametrize("boundary", ["unknown", "replicate"])
def test_the_residual_is_that_of_the_blur_about_the_centre_of_an_even_psf(boundary):
    kernel = psf.box((4, 6))
    blurred, _ = case(kernel, boundary=boundary, scene=photograph(64))
    result = deblur(blurred, kernel, boundary=boundary, full_output=True)
    again = blur(result.image, kernel, boundary="valid" if boundary == "unknown" else boundary)
    if boundary == "unknown":
        blurred = seen_part(blurred, kernel, again)
    assert result.report.residual == pytest.approx(np.sqrt(np.mean((again - blurred) ** 2)), rel=1e-6)


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_the_strength_refers_to_a_largest_transfer_of_one(prior):
    kernel = torch.tensor([[0.0, -0.1, 0.0], [-0.1, 1.4, -0.1], [0.0, -0.1, 0.0]], dtype=torch.float64)
    blurred, _ = case(kernel, boundary="circular", scene=photograph(48))
    result = deblur(blurred, kernel, prior=prior, boundary="circular", strength=0.02, full_output=True)
    assert result.report.strength == pytest.approx(0.02, rel=1e-6)
    automatic = deblur(blurred, kernel, prior=prior, boundary="circular", noise=0.05, full_output=True)
    chosen = automatic.report.strength
    again = deblur(blurred, kernel, prior=prior, boundary="circular", noise=0.05, strength=chosen)
    assert np.abs(again - automatic.image).max() < 1e-6


def test_blur_is_a_convolution_with_the_centre_at_half_the_size():
    point = np.zeros((9, 9))
    point[4, 4] = 1
    kernel = np.arange(1.0, 13.0).reshape(3, 4) / 78
    seen = blur(point, kernel, boundary="zeros")
    assert np.allclose(seen[4 - 1 : 4 + 2, 4 - 2 : 4 + 2], kernel)
    assert seen.sum() == pytest.approx(1.0)
    assert blur(point, kernel).shape == (7, 6)
    for boundary in ("circular", "reflect", "replicate"):
        assert np.allclose(blur(point, kernel, boundary=boundary), seen)
    again = blur(point, kernel, noise=0.1, seed=3)
    assert np.array_equal(again, blur(point, kernel, noise=0.1, seed=3))
    assert not np.array_equal(again, blur(point, kernel, noise=0.1, seed=4))
    assert np.std(blur(np.zeros((200, 200)), kernel, noise=0.1) / 0.1) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "says"), [({"noise": -1}, "noise"), ({"seed": -1}, "seed"), ({"boundary": "unknown"}, "boundary")]
)
def test_blur_refuses(change, says):
    with pytest.raises(ArgumentError, match=f"^blur: {says} is "):
        blur(np.ones((9, 9)), "box:size=3", **change)
