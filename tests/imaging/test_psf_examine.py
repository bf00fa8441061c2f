"""The doctor of PSFs: broken ones are found, named, and as good as new; sound ones are left alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, psf

ROUND = psf.gaussian(1.6).numpy()


def shake(size=13):
    """A camera shake: a curved, uneven path, with no symmetry."""
    path = np.zeros((size, size))
    steps = np.linspace(0, 1, 200)
    rows = np.rint(size * (0.2 + 0.6 * steps**2)).astype(int)
    columns = np.rint(size * (0.25 + 0.5 * np.sin(2.2 * steps))).astype(int)
    np.add.at(path, (rows, columns), 0.4 + steps)
    return path / path.sum()


SHAKE = shake()


def names(found):
    return [finding.name for finding in found.findings]


SOUND = {
    "gaussian": ROUND,
    "wide": psf.gaussian(5.0, 9),
    "nearly even": psf.gaussian(9.0, 11),
    "cut": psf.gaussian(2.0, 9),
    "star": psf.moffat(4.0, 1.5, 15),
    "wide star": psf.moffat(20.0, 2.5, 15),
    "airy": psf.airy(3.0),
    "wide airy": psf.airy(9.0, 11),
    "disk": psf.defocus(6.5),
    "box": psf.box(9),
    "motion": psf.motion(21, 45),
    "line": psf.motion(31),
    "point": psf.box(1),
    "haze on 3x3": np.array([[1, 1, 1], [1, 8, 1], [1, 1, 1]]) / 16,
    "negative lobes": np.array([[0, -0.01, 0], [-0.01, 1.04, -0.01], [0, -0.01, 0]]),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_psf_is_left_alone(name):
    found = psf.examine(SOUND[name])
    assert found.findings == () or names(found) == ["empty-frame"]
    assert torch.allclose(found.psf, psf.from_array(SOUND[name]), rtol=0, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 8.0), st.sampled_from((psf.gaussian, psf.defocus, psf.moffat, psf.airy, psf.motion)))
def test_no_maker_of_any_width_is_ill(width, maker):
    assert [finding for finding in psf.examine(maker(width)).findings if finding.matters] == []


@settings(max_examples=40, deadline=None)
@given(st.integers(-6, 6), st.integers(-6, 6), st.sampled_from(("roll", "cut", "pad")))
def test_a_symmetric_psf_goes_back_to_its_centre(down, right, how):
    if how == "roll":
        moved = np.roll(ROUND, (down, right), (0, 1))
    else:
        room = 6 if how == "pad" else 0
        moved = np.pad(ROUND, 12)[12 - down - room : 27 - down + room, 12 - right - room : 27 - right + room]
    found = psf.examine(moved)
    if (down, right) == (0, 0):
        assert not any(finding.matters for finding in found.findings)
    elif how != "cut":
        assert any(finding.corrected for finding in found.findings)
        expected = torch.from_numpy(ROUND)
        reach = (found.psf.shape[0] - 15) // 2
        inner = found.psf[reach : reach + 15, reach : reach + 15] if reach else found.psf
        assert torch.allclose(inner, expected / expected.sum(), atol=1e-12)
    # A cut-off side is symmetric no more once half of the light is gone with it.
    if found.findings and found.findings[-1].name == "off-centre" and not found.findings[-1].corrected:
        assert max(abs(down), abs(right)) > 5
    else:
        centring = psf.centring(found.psf)
        assert max(abs(centring.rows), abs(centring.columns)) < 0.3


def test_what_the_array_cut_off_comes_back_by_symmetry():
    moved = np.pad(ROUND, 5)[5 + 4 : 5 + 4 + 15, 5:20]
    found = psf.examine(moved)
    assert names(found) == ["sum", "off-centre"] or names(found) == ["off-centre"]
    assert torch.allclose(found.psf, torch.from_numpy(ROUND), atol=2e-4)


def test_a_psf_from_the_corner_comes_to_the_middle():
    for kernel in (ROUND, psf.defocus(4).numpy(), np.pad(ROUND, 9)):
        found = psf.examine(np.fft.ifftshift(kernel))
        assert names(found)[0] == "wrapped"
        assert torch.allclose(found.psf, torch.from_numpy(kernel), atol=1e-12)
    lopsided = psf.examine(np.fft.ifftshift(SHAKE))
    assert "wrapped" in names(lopsided)
    assert "np.fft.fftshift" in str(lopsided.findings[names(lopsided).index("wrapped")])
    assert torch.equal(lopsided.psf, psf.from_array(np.fft.ifftshift(SHAKE)))


@pytest.mark.parametrize("kernel", [ROUND, SHAKE, psf.defocus(5).numpy(), psf.motion(9, 30).numpy()])
@pytest.mark.parametrize(("offset", "noise"), [(0.005, 0.0), (0.3, 0.0), (-0.02, 0.0), (-0.2, 0.0), (0.1, 0.01)])
def test_a_background_is_taken_off(kernel, offset, noise):
    scene = np.pad(kernel, 6) / kernel.max()
    counts = 4000 * (scene + offset + np.random.default_rng(0).normal(0, noise, scene.shape))
    found = psf.examine(counts)
    assert "background" in names(found)
    truth = scene / scene.sum()
    # The mean of the border is known to noise / √(its pixels); what is left of it lies under the whole PSF.
    border = 2 * sum(scene.shape) * 2
    allowed = 5 * noise * scene.size / np.sqrt(border) / scene.sum() + 1e-9
    assert float((found.psf - torch.from_numpy(truth)).sum(-1).abs().max()) <= allowed + 6 * noise / scene.sum() * 5
    named = psf.examine(counts, correct=False) if counts.sum() > 0 else None
    if named is not None:
        assert "background" in names(named)
        assert torch.allclose(named.psf, psf.from_array(counts))
        assert not any(finding.corrected for finding in named.findings if finding.name != "sum")


def test_a_background_and_a_shift_together():
    found = psf.examine(100 + 1000 * np.roll(np.pad(ROUND, 8), (5, -3), (0, 1)))
    assert names(found) == ["sum", "background", "off-centre"]
    reach = found.psf.shape[0] // 2
    inner = found.psf[reach - 7 : reach + 8, reach - 7 : reach + 8]
    assert torch.allclose(inner, torch.from_numpy(ROUND), atol=1e-6)


def test_dark_on_bright_is_named():
    found = psf.examine(255 - 200 * np.pad(ROUND, 8) / ROUND.max())
    assert names(found) == ["sum", "inverted"]
    assert "dark" in str(found.findings[1])


def test_negative_values_are_kept_and_named_when_large():
    kernel = ROUND.copy()
    kernel[2, 2:12] -= 0.02
    found = psf.examine(kernel)
    assert "negative" in names(found)
    assert float(found.psf.min()) < -0.01
    assert "negative" not in names(psf.examine(ROUND - 1e-5))


def test_even_sizes_are_named_and_recentred_on_request():
    found = psf.examine(psf.box((4, 6)))
    assert names(found) == ["even"]
    assert "half a row and half a column" in str(found.findings[0])
    assert torch.equal(found.psf, psf.box((4, 6)))
    assert names(psf.examine(psf.box((3, 4)))) == ["even"]
    assert "half a column before" in str(psf.examine(psf.box((3, 4))).findings[0])
    assert "even" in names(psf.examine(np.pad(SHAKE, ((0, 1), (0, 1)))))
    position = np.arange(16) - 7.5
    profile = np.exp(-0.5 * (position / 2) ** 2)
    moved = psf.recentred(np.outer(profile, profile))
    assert moved.shape[0] % 2 == 1
    middle = moved.shape[0] // 2
    assert torch.allclose(moved[middle - 6 : middle + 7, middle - 6 : middle + 7], psf.gaussian(2.0, 13), atol=1e-3)
    assert psf.centring(psf.recentred(psf.box((2, 5)))).rows == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_recentred_has_its_light_in_the_middle(rows, columns, seed):
    found = psf.recentred(np.random.default_rng(seed).random((rows, columns)) + 0.01)
    assert found.shape[0] % 2 == found.shape[1] % 2 == 1
    centring = psf.centring(found)
    assert max(abs(centring.rows), abs(centring.columns)) <= 0.25 + 1e-9
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)


def test_channels_are_moved_together_or_not_at_all():
    moved = np.stack([np.roll(ROUND, 2, 0)] * 3)
    assert [finding.name for finding in psf.examine(moved).findings if finding.corrected] == ["wrapped"]
    apart = np.stack([ROUND, ROUND, np.roll(ROUND, 2, 0)])
    found = psf.examine(apart)
    assert not any(finding.corrected for finding in found.findings)
    assert names(found) == ["off-centre"]


@pytest.mark.parametrize("given", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.ones(3), -ROUND, "gaussian", None])
def test_examine_refuses(given):
    with pytest.raises(ArgumentError, match=r"^psf\.examine: psf is "):
        psf.examine(given)
    with pytest.raises(ArgumentError, match=r"^psf\.recentred: psf is "):
        psf.recentred(given)


def photograph(size=112):
    return data.camera()[130 : 130 + size, 190 : 190 + size] / 255.0


def psnr(picture, truth):
    return -10 * np.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


BROKEN = {
    "background": (lambda k: np.rint(1000 * np.pad(k, 3) / k.max() + 100), "background"),
    "shifted": (lambda k: np.pad(k, ((4, 0), (0, 6))), "recentred"),
    "rolled": (lambda k: np.roll(k, (2, -3), (0, 1)), "rolled"),
    "from the corner": (np.fft.ifftshift, "rolled"),
    "padded to even": (lambda k: np.pad(k, ((0, 1), (0, 1))), "recentred"),
    "scaled": (lambda k: 37.0 * k, "its sum is 37"),
    "over-subtracted": (lambda k: np.pad(k, 4) - 0.03 * k.max(), "background"),
    "framed": (lambda k: np.pad(k, 60), None),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kernel", [psf.motion(9, 30).numpy(), ROUND])
def test_deblur_with_a_broken_psf_is_as_good_as_with_the_right_one(name, kernel):
    break_it, word = BROKEN[name]
    scene = photograph()
    blurred = blur(scene, kernel, noise=0.01, seed=0)
    top, left = (k - 1 - k // 2 for k in kernel.shape)
    truth = scene[top : top + blurred.shape[0], left : left + blurred.shape[1]]
    right = psnr(deblur(blurred, kernel), truth)
    result = deblur(blurred, break_it(kernel), full_output=True)
    assert psnr(result.image, truth) > right - 0.15
    said = " ".join(result.report.warnings)
    assert word in said if word else said == ""
    if name in ("background", "shifted", "padded to even"):
        as_it_is = deblur(blurred, break_it(kernel), correct_psf=False, full_output=True)
        assert psnr(as_it_is.image, truth) < right - 1
        assert any("left" in warning for warning in as_it_is.report.warnings)


def test_blur_and_deblur_about_the_same_even_psf_agree_half_pixels_and_all():
    scene = photograph()
    kernel = psf.box((4, 6))
    blurred = blur(scene, kernel, noise=0.005, seed=0)
    truth = scene[1 : 1 + blurred.shape[0], 2 : 2 + blurred.shape[1]]
    result = deblur(blurred, kernel, full_output=True)
    assert psnr(result.image, truth) > psnr(deblur(blurred, psf.recentred(kernel)), truth) + 2
    assert any("even size" in warning for warning in result.report.warnings)


def test_deblur_says_when_the_psf_lies_the_wrong_way_round():
    scene = photograph(160)
    blurred = blur(scene, SHAKE, noise=0.005, seed=0)
    turned = SHAKE[::-1, ::-1]
    assert any("180 degrees" in w for w in deblur(blurred, turned, full_output=True).report.warnings)
    assert not any("180 degrees" in w for w in deblur(blurred, SHAKE, full_output=True).report.warnings)
    assert psf.orientation(blurred, turned).turned is True
    found = psf.orientation(blurred, SHAKE)
    assert found.turned is False
    assert found.ratio == pytest.approx(1 / psf.orientation(blurred, turned).ratio, rel=0.02)


def test_orientation_has_no_answer_where_there_is_none():
    scene = photograph(96)
    assert psf.orientation(scene, ROUND) == psf.Orientation(1.0, None)
    assert psf.orientation(np.ones((40, 40)), SHAKE).turned is None
    assert psf.orientation(scene[:14, :14], SHAKE).turned is None
    noise = np.random.default_rng(0).normal(size=(96, 96))
    assert psf.orientation(noise, SHAKE).turned is None
    with pytest.raises(ArgumentError, match=r"^psf\.orientation: psf is "):
        psf.orientation(scene, np.zeros((3, 3)))


def test_centring_takes_what_a_measured_psf_may_be():
    light = np.zeros((5, 7))
    light[2, 4], light[2, 6] = 300, 100
    for array in (light, light.astype(np.uint16), light.tolist(), torch.from_numpy(light)):
        centring = psf.centring(array)
        assert (centring.rows, centring.columns) == (0, 1.5)
        assert "1.5 px right of" in str(centring.warning)
    with pytest.raises(ArgumentError, match=r"^psf\.centring: psf "):
        psf.centring(np.zeros((3, 3)))
