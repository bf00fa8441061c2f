"""The strength and its receipt; errors of the PSF; pictures that deblurring would not help."""

import json
import math

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.imaging import blur, deblur, no_harm, psf, trials
from convpinv.imaging.model import BlurModel
from convpinv.imaging.regularization import RULES, PictureSpectrum, StrengthSelection, fit_spectrum
from convpinv.imaging.regularization.rules import crossing
from imaging.shaken import seen_part

SHAKE = torch.zeros(9, 9, dtype=torch.float64)
SHAKE[4, :6] = torch.tensor([0.05, 0.1, 0.2, 0.15, 0.1, 0.05])
SHAKE[:4, 5] = torch.tensor([0.15, 0.1, 0.05, 0.05])


def photograph(size=140, top=130, left=190):
    return data.camera()[top : top + size, left : left + size] / 255.0


def psnr(picture, truth, *, clipped=True):
    picture = np.clip(picture, 0, 1) if clipped else picture
    return -10 * math.log10(np.mean((picture - truth) ** 2))


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_the_automatic_strength_loses_little_against_the_best_in_hindsight(prior, noise):
    scene = data.chelsea()[60:200, 120:260].mean(-1) / 255.0
    blurred = blur(scene, SHAKE, noise=noise, seed=1)
    truth = seen_part(scene, SHAKE, blurred)
    chosen = deblur(blurred, SHAKE, prior=prior, full_output=True).report.strength
    found = {f: psnr(deblur(blurred, SHAKE, prior=prior, strength=f * chosen), truth) for f in (0.25, 0.5, 1, 2, 4)}
    assert found[1] > max(found.values()) - 0.6


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_the_receipt_shows_the_curve_the_range_and_the_other_rules(prior):
    blurred = 100 * blur(photograph(), SHAKE, noise=0.01, seed=0)
    report = deblur(blurred, SHAKE, prior=prior, full_output=True).report
    selection = report.selection
    assert isinstance(selection, StrengthSelection)
    assert selection.rule == ("gcv" if prior == "gradient" else "likelihood")
    assert selection.strength == pytest.approx(report.strength, rel=1e-6)
    assert list(selection.candidates) == sorted(selection.candidates)
    assert len(selection.candidates) == len(selection.criterion) > 50
    assert selection.search_range == (selection.candidates[0], selection.candidates[-1])
    best = selection.candidates[int(np.argmin(selection.criterion))]
    assert 0.4 < best / selection.strength < 2.5
    assert not selection.at_edge
    assert set(selection.alternatives) == set(RULES)
    assert selection.disagreement < 10
    assert selection.psf_error == 0
    assert selection.effective_noise == pytest.approx(report.noise, rel=1e-6)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))["selection"]
    assert told["strength"] == selection.strength
    assert told["at_edge"] is False


def test_a_receipt_a_plane_and_none_for_a_given_strength():
    blurred = blur(np.stack([photograph(80), photograph(80)[::-1]], -1), SHAKE, noise=0.01, seed=0)
    report = deblur(blurred, SHAKE, full_output=True).report
    assert [one.strength for one in report.selection] == pytest.approx(report.strength)
    assert len(report.to_dict()["selection"]) == 2
    given = deblur(blurred, SHAKE, strength=1e-3, full_output=True).report
    assert given.selection is None
    assert given.predicted_gain is None
    assert given.restored_share == (1.0, 1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("prior", "boundary"), [("tv", "unknown"), ("tikhonov", "circular")])
def test_every_rule_helps_and_says_so(rule, prior, boundary):
    scene = photograph(96)
    blurred = blur(scene, SHAKE, noise=0.01, seed=0, boundary="circular" if boundary == "circular" else "valid")
    truth = scene if boundary == "circular" else seen_part(scene, SHAKE, blurred)
    result = deblur(blurred, SHAKE, prior=prior, boundary=boundary, strength=rule, full_output=True)
    assert psnr(result.image, truth) > psnr(blurred, truth) + (3.0 if prior == "tv" else 0.5)
    assert result.report.selection.rule == rule
    assert rule in result.report.selection.alternatives


def test_discrepancy_leaves_the_noise_and_nothing_else():
    blurred = blur(photograph(96), SHAKE, noise=0.02, seed=0)
    report = deblur(blurred, SHAKE, noise=0.02, strength="discrepancy", full_output=True).report
    assert report.residual == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("rule", ["discrepancy", "gcv", "sure"])
def test_measured_and_spectral_forms_of_a_rule_agree_on_a_circular_blur(rule):
    blurred = blur(photograph(128), SHAKE, noise=0.02, seed=0, boundary="circular")
    report = deblur(
        blurred, SHAKE, prior="tikhonov", boundary="circular", noise=0.02, strength=rule, full_output=True
    ).report
    spectral = deblur(
        blurred, SHAKE, prior="tikhonov", boundary="circular", noise=0.02, full_output=True
    ).report.selection.alternatives[rule]
    assert 1 / 4 < report.strength / spectral < 4


def test_the_crossing_lies_between_its_neighbours_or_at_an_end():
    assert crossing([1.0, 100.0], [0.1, 10.0]) == pytest.approx(10.0)
    assert crossing([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert crossing([1.0, 2.0], [0.3, 0.4]) == 2.0


def test_edges_of_the_range_and_disagreement_are_seen():
    def curve(criterion):
        return StrengthSelection("gcv", 1.0, (0.5, 1.0, 2.0), criterion, {"sure": 0.05, "gcv": 1.0})

    assert curve((3.0, 2.0, 1.0)).at_edge
    assert not curve((3.0, 2.0, 3.0)).at_edge
    assert curve((3.0, 2.0, 3.0)).disagreement == pytest.approx(20.0)
    assert StrengthSelection("discrepancy", 1.0, (0.5, 2.0), (1.5, 3.0)).at_edge
    assert not StrengthSelection("discrepancy", 1.0, (0.5, 2.0), (0.5, 3.0)).at_edge


@pytest.mark.parametrize("noise", [0.002, 0.005])
def test_an_error_of_the_psf_is_noticed_and_allowed_for(noise):
    rng = np.random.default_rng(0)
    scene = photograph(200, 100, 150)
    blurred = blur(scene, SHAKE, noise=noise, seed=0)
    truth = seen_part(scene, SHAKE, blurred)
    wrong = np.clip(SHAKE.numpy() + 0.02 * rng.normal(size=SHAKE.shape), 0, None)
    exact = deblur(blurred, SHAKE, full_output=True).report
    assert exact.selection.psf_error == 0
    assert not any("error of the PSF" in warning for warning in exact.warnings)
    result = deblur(blurred, wrong, full_output=True)
    selection = result.report.selection
    assert selection.psf_error > 0.02
    assert selection.effective_noise > 1.5 * result.report.noise
    assert any("error of the PSF" in warning for warning in result.report.warnings)
    without = deblur(blurred, wrong, strength=exact.strength)
    assert psnr(result.image, truth) > psnr(without, truth) + 0.4


def test_upright_edges_are_no_error_of_the_psf():
    stripes = np.kron(np.random.default_rng(3).random((2, 40)), np.ones((80, 4)))
    blurred = blur(0.7 * stripes + 0.3 * photograph(160), psf.motion(9, 20), noise=0.005, seed=0)
    assert deblur(blurred, psf.motion(9, 20), full_output=True).report.selection.psf_error == 0


def test_the_spectrum_is_fitted_to_what_made_it():
    """A scene of differences of a known size gives that size back."""
    size, strength = 128, 0.05
    rng = np.random.default_rng(0)
    model = BlurModel.build(SHAKE, (size, size), "circular")
    amplitude = strength / np.sqrt(np.maximum(model.difference_transfer().numpy(), 1e-9))
    amplitude[0, 0] = 0
    scene = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) * amplitude, s=(size, size))
    blurred = blur(scene, SHAKE, noise=0.01, seed=1, boundary="circular")
    spectrum = PictureSpectrum.of(model, torch.from_numpy(blurred)[None])
    fit = fit_spectrum(spectrum, torch.tensor([0.01]))
    assert math.sqrt(float(fit.power[0])) == pytest.approx(strength, rel=0.1)
    assert float(fit.psf_error[0]) == 0


def test_large_pictures_are_judged_by_some_of_their_frequencies():
    picture = torch.from_numpy(np.pad(photograph(300, 60, 60), ((0, 340), (0, 340)), mode="reflect")[:620, :620] - 0.4)
    model = BlurModel.build(SHAKE, (620, 620), "unknown")
    spectrum = PictureSpectrum.of(model, picture[None])
    assert spectrum.power.shape[-1] == 2**15
    fit = fit_spectrum(spectrum, torch.tensor([0.01]))
    every = torch.arange(1, 620 * 311)
    assert set(spectrum.kept.tolist()) <= set(every.tolist())
    assert float(fit.power[0]) > 0


# Cases that went wrong once, or are near to it: pictures, PSFs and noise of all kinds.
HARD = [
    ("grass", psf.gaussian(0.22), 0.0016),
    ("grass", psf.gaussian(0.3), 0.0),
    ("gravel", psf.gaussian(0.31), 0.001),
    ("camera", psf.gaussian(0.4), 0.05),
    ("camera", psf.motion(1.6, 63), 0.0),
    ("camera", psf.gaussian(5.0), 0.0),
    ("camera", psf.defocus(4.0), 0.1),
    ("camera", torch.ones(1, 1, dtype=torch.float64), 0.03),
    ("brick", psf.gaussian(0.78), 0.014),
    ("moon", psf.motion(15, 20), 0.05),
    ("coins", psf.gaussian(2.0), 0.02),
]


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize(("name", "kernel", "noise"), HARD)
@pytest.mark.filterwarnings("ignore::convpinv.arguments.ConvergenceWarning")
def test_the_automatic_result_is_never_worse_than_the_picture(name, kernel, noise, prior):
    size = 104 + max(kernel.shape)
    scene = getattr(data, name)()[40 : 40 + size, 60 : 60 + size] / 255.0
    blurred = blur(scene, kernel, noise=noise, seed=2)
    truth = seen_part(scene, kernel, blurred)
    restored = deblur(blurred, kernel, prior=prior)
    for clipped in (True, False):
        assert psnr(restored, truth, clipped=clipped) > psnr(blurred, truth, clipped=clipped) - 0.1


def test_a_picture_that_deblurring_would_not_help_is_given_back_and_the_report_says_so():
    grass = data.grass()[100:228, 100:228] / 255.0
    blurred = blur(grass, psf.gaussian(0.22), noise=0.0016, seed=0)
    result = deblur(blurred, psf.gaussian(0.22), full_output=True)
    assert result.report.restored_share < 0.3
    assert any("would not help" in warning for warning in result.report.warnings)
    given = deblur(blurred, psf.gaussian(0.22), strength=result.report.strength, full_output=True)
    assert given.report.restored_share == 1
    assert np.abs(given.image - blurred).max() > np.abs(result.image - blurred).max()


ROWS, COLUMNS = np.mgrid[0:150, 0:150] / 400.0
SMOOTH = {
    "disc with a soft edge": 1 / (1 + np.exp((np.hypot(COLUMNS, ROWS) - 0.25) * 60)),
    "waves": 0.5 + 0.3 * np.sin(20 * COLUMNS) * np.cos(14 * ROWS),
    "slope": 0.3 + 0.4 * COLUMNS + 0.2 * ROWS**2,
}


@pytest.mark.parametrize("noise", [0.0, 0.0005, 0.005])
@pytest.mark.parametrize("kernel", [psf.gaussian(1.8), psf.defocus(4.0), psf.motion(9, 40)], ids=["g", "d", "m"])
@pytest.mark.parametrize("name", SMOOTH)
def test_what_has_no_edges_is_not_given_any(name, kernel, noise):
    """Total variation makes up edges; where there are none the trials lose, and the report says so."""
    blurred = blur(SMOOTH[name], kernel, noise=noise, seed=3)
    truth = seen_part(SMOOTH[name], kernel, blurred)
    result = deblur(blurred, kernel, full_output=True)
    report = result.report
    assert psnr(result.image, truth, clipped=False) > psnr(blurred, truth, clipped=False) - 0.1
    if report.trial_gain is not None and report.trial_gain < 0:
        assert report.restored_share == 0
        assert np.array_equal(result.image, blurred)
        assert any("by trials on it (-" in warning for warning in report.warnings)


def test_trials_are_made_of_small_changes_only_and_photographs_stand_them():
    scene = photograph(150)
    nearly_sharp = blur(scene, psf.gaussian(0.6), noise=0.002, seed=1)
    report = deblur(nearly_sharp, psf.gaussian(0.6), full_output=True).report
    assert report.trial_gain > 1
    assert report.restored_share == 1
    shaken = deblur(blur(scene, SHAKE, noise=0.01, seed=1), SHAKE, full_output=True).report
    assert shaken.trial_gain is None
    # Of a large picture windows are tried, beyond which nothing is known, whatever its own boundary.
    for boundary in ("unknown", "circular"):
        turns = 2 * np.pi * np.arange(560) / 560
        waves = 0.5 + 0.3 * np.sin(9 * turns) * np.cos(7 * turns)[:, None]
        large = blur(waves, psf.gaussian(1.8), noise=0.0005, seed=3, boundary="circular")
        report = deblur(large, psf.gaussian(1.8), boundary=boundary, full_output=True).report
        assert report.trial_gain is not None
    colours = np.stack([blur(SMOOTH[name], psf.gaussian(1.8), noise=0.005, seed=3) for name in SMOOTH], -1)
    together = deblur(colours, psf.gaussian(1.8), full_output=True).report
    assert len(together.trial_gain) == 3
    assert len(set(together.trial_gain)) == 1


def test_trials_of_a_batch_are_those_of_its_pictures_and_long_psfs_have_none(monkeypatch):
    pictures = np.stack([blur(SMOOTH[name], psf.gaussian(1.8), noise=0.005, seed=3) for name in SMOOTH])[:, None]
    together = deblur(torch.from_numpy(pictures), psf.gaussian(1.8), full_output=True)
    for index, picture in enumerate(pictures):
        alone = deblur(torch.from_numpy(picture), psf.gaussian(1.8), full_output=True)
        assert alone.report.trial_gain == pytest.approx(together.report.trial_gain[index], abs=1e-3)
    # Too many to be tried at once are tried one after the other.
    monkeypatch.setattr(trials, "MOST_TOGETHER", 0)
    apart = deblur(torch.from_numpy(pictures), psf.gaussian(1.8), full_output=True)
    assert apart.report.trial_gain == pytest.approx(together.report.trial_gain, abs=1e-3)
    assert torch.allclose(apart.image, together.image, atol=1e-5)
    # Of a long strip windows would be tried, of which a second blur leaves nothing.
    strip = np.tile(SMOOTH["waves"][:40, :100], (1, 20))
    line = np.zeros((41, 3))
    line[19:22, 1] = 0.25, 0.5, 0.25
    assert deblur(strip, line, boundary="circular", full_output=True).report.trial_gain is None
    flat = deblur(np.full((40, 40), 3.0), psf.gaussian(1.0), full_output=True).report
    assert not any("would not help" in warning for warning in flat.warnings)


@pytest.mark.parametrize("noise", [0.005, 0.01, 0.03])
def test_the_check_keeps_quiet_where_restoration_helps_and_predicts_how_much(noise):
    scene = photograph(150)
    blurred = blur(scene, SHAKE, noise=noise, seed=0)
    truth = seen_part(scene, SHAKE, blurred)
    result = deblur(blurred, SHAKE, full_output=True)
    assert result.report.restored_share == 1
    gained = psnr(result.image, truth, clipped=False) - psnr(blurred, truth, clipped=False)
    assert result.report.predicted_gain == pytest.approx(gained, abs=3.0)


def test_white_noise_is_believed_and_texture_is_not():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(128, 128, dtype=torch.float64, generator=rng)
    assert no_harm.quiet_noise(noise) == pytest.approx(1.0, rel=0.08)
    assert no_harm.believable_noise(noise, 1.0, 1.0) > 0.8
    patchy = noise * torch.linspace(0.2, 1.5, 128, dtype=torch.float64)
    assert no_harm.believable_noise(patchy, 1.0, 1.0) == pytest.approx(0.1)
    assert no_harm.believable_noise(patchy, 1.0, 0.0) == 1.0
