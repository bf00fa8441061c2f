"""Deblurring: that it helps, everywhere, and that its report says what was done."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.arguments import ConvergenceError
from convpinv.imaging import DeblurResult, blur, deblur, priors, psf
from convpinv.imaging.deblur import BOUNDARIES, PRIORS
from convpinv.imaging.model import BlurModel
from convpinv.imaging.regularization import LARGEST_VARIANCE, PictureSpectrum, fit_spectrum
from imaging.shaken import MOTION, case, frame, photograph, psnr, seen_part


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
    too_sure = deblur(blurred, psf.motion(9, 60), noise=1e-9, full_output=True).report
    said = next(warning for warning in too_sure.warnings if "misses the picture" in warning)
    assert float(said.split(" times")[0].split()[-1]) < 100  # of the noise that was reckoned with, not of 1e-9
    shifted = torch.nn.functional.pad(MOTION, (8, 0, 0, 0))
    assert any("recentred" in warning for warning in deblur(blurred, shifted, full_output=True).report.warnings)
    clipped = deblur(np.clip(blurred, 0.2, 0.6), MOTION, full_output=True).report
    assert any("clipped" in warning for warning in clipped.warnings)


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


@pytest.mark.filterwarnings("ignore::convpinv.arguments.ConvergenceWarning")
def test_noise_beyond_the_picture_is_survived():
    blurred, _ = case(scene=photograph(64))
    for prior in ("tv", "gradient", "tikhonov"):
        assert np.isfinite(deblur(blurred, MOTION, noise=1e300, prior=prior)).all()


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
