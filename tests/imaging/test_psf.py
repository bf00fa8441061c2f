"""Laws of the PSFs: light, centre, symmetry, direction; and what the texts and the measured ones may be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, psf

lengths = st.floats(0.05, 40.0)


def assert_is_psf(picture, *, symmetric=True):
    assert picture.dtype == torch.float64
    assert picture.device.type == "cpu"
    assert float(picture.sum()) == pytest.approx(1.0, abs=1e-14)
    assert float(picture.min()) >= 0.0
    if symmetric:
        assert picture.shape[0] % 2 == 1
        assert picture.shape[1] % 2 == 1
        assert torch.allclose(picture, picture.flip(0, 1), rtol=0, atol=1e-14)
        found = psf.centring(picture)
        assert abs(found.rows) < 1e-10
        assert abs(found.columns) < 1e-10
        assert found.warning is None


@settings(max_examples=25, deadline=None)
@given(lengths)
def test_round_makers_have_all_their_light_in_the_middle(width):
    for picture in (psf.gaussian(width / 4), psf.defocus(width / 2), psf.moffat(width / 4), psf.airy(width / 8 + 0.01)):
        assert_is_psf(picture)
        assert torch.allclose(picture, picture.T, rtol=0, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(lengths, st.floats(-720, 720))
def test_motion_has_all_its_light_on_a_segment_of_its_length(length, angle):
    picture = psf.motion(length, angle)
    assert_is_psf(picture)
    rows = torch.arange(picture.shape[0], dtype=torch.float64) - picture.shape[0] // 2
    columns = torch.arange(picture.shape[1], dtype=torch.float64) - picture.shape[1] // 2
    direction = np.deg2rad(angle)
    across = rows[:, None] * np.cos(direction) + columns[None, :] * np.sin(direction)
    along = -rows[:, None] * np.sin(direction) + columns[None, :] * np.cos(direction)
    lit = picture > 0
    assert float(across[lit].abs().max()) <= 0.5**0.5 + 1e-9
    assert float(along[lit].abs().max()) <= length / 2 + 0.5**0.5 + 1e-9


def test_motion_turns_counter_clockwise_as_seen():
    picture = psf.motion(21, 30)
    height, width = picture.shape
    assert width > height  # closer to horizontal
    assert float(picture[: height // 2, width // 2 + 1 :].sum()) > 0.3  # up and to the right
    assert float(picture[: height // 2, : width // 2].sum()) == 0.0
    assert torch.allclose(psf.motion(7, 90), psf.motion(7).T)
    assert torch.allclose(psf.motion(13, 150), psf.motion(13, 30).flip(1), atol=1e-12)
    assert torch.allclose(psf.motion(13, 210), psf.motion(13, 30), atol=1e-12)


def test_motion_of_whole_length_is_exact_and_of_length_one_is_a_point():
    assert torch.allclose(psf.motion(5), torch.full((1, 5), 0.2, dtype=torch.float64))
    assert torch.allclose(psf.motion(4), torch.tensor([[0.125, 0.25, 0.25, 0.25, 0.125]], dtype=torch.float64))
    for angle in (0, 33, 45, 90):
        assert psf.motion(1, angle).shape == (1, 1)


def test_defocus_has_the_area_of_a_circle():
    radius = 6.3
    picture = psf.defocus(radius)
    inside = float(picture[picture.shape[0] // 2, picture.shape[1] // 2])
    assert 1 / inside == pytest.approx(np.pi * radius**2, rel=1e-12)
    fine = np.linspace(-0.5, 0.5, 401)
    row, column = 4, 5  # a pixel on the edge of the disk
    share = np.mean((row + fine[:, None]) ** 2 + (column + fine[None, :]) ** 2 <= radius**2)
    middle = picture.shape[0] // 2
    assert float(picture[middle + row, middle + column]) / inside == pytest.approx(share, abs=3e-3)
    assert psf.defocus(0.4).shape == (1, 1)


def test_gaussian_has_its_deviation():
    picture = psf.gaussian(2.0)
    position = torch.arange(picture.shape[0], dtype=torch.float64) - picture.shape[0] // 2
    assert float((picture.sum(1) * position**2).sum()) == pytest.approx(4.0, rel=1e-2)
    assert psf.gaussian(2.0, size=5).shape == (5, 5)


def test_moffat_and_airy_follow_their_formulas():
    star = psf.moffat(6.0, beta=2.5)
    middle = star.shape[0] // 2
    assert float(star[middle, middle + 3] / star[middle, middle]) == pytest.approx(0.5, abs=1e-12)
    spot = psf.airy(5.0)
    middle = spot.shape[0] // 2
    assert float(spot[middle, middle + 5] / spot[middle, middle]) < 1e-20
    # The first bright ring of the Airy pattern has 1.75 % of the centre's brightness, at 1.34 times the dark radius.
    assert float(spot[middle, middle + 6 : middle + 9].max() / spot[middle, middle]) == pytest.approx(0.0175, abs=1e-3)


def test_an_obstruction_takes_light_from_the_middle_to_the_rings():
    free, telescope = psf.airy(6.0), psf.airy(6.0, obstruction=0.4)
    assert torch.equal(free, psf.airy(6.0, obstruction=0.0))
    assert_is_psf(telescope)
    middle = telescope.shape[0] // 2
    rows = telescope[middle, middle:] / telescope[middle, middle]
    # The field of the disk minus that of the hole, by its definition as an integral over the open ring.
    share = torch.linspace(0.4, 1.0, 20001, dtype=torch.float64)
    for pixel in (0, 2, 5, 9, 20):
        wave = torch.special.bessel_j0(3.8317059702075123 * pixel / 6.0 * share) * share
        field = torch.trapezoid(wave, share) / torch.trapezoid(share, share)
        assert float(rows[pixel]) == pytest.approx(float(field**2), abs=2e-6)  # torch's Bessel functions: 5e-7
    with pytest.raises(ArgumentError, match=r"^psf\.airy: obstruction is 1; it must be below 1"):
        psf.airy(3.0, obstruction=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_box_fills_its_taps(rows, columns):
    picture = psf.box((rows, columns))
    assert picture.shape == (rows, columns)
    assert_is_psf(picture, symmetric=bool(rows % 2 and columns % 2))
    found = psf.centring(picture)
    assert found.rows == pytest.approx(-0.5 * (rows % 2 == 0))
    assert found.columns == pytest.approx(-0.5 * (columns % 2 == 0))


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("gaussian:sigma=1.6", psf.gaussian(1.6)),
        ("Gaussian: sigma = 1.6, size = 9", psf.gaussian(1.6, 9)),
        ("motion:length=25,angle=30", psf.motion(25, 30)),
        ("motion:angle=-10,length=7.5", psf.motion(7.5, -10)),
        ("defocus:radius=5", psf.defocus(5)),
        ("box:size=4", psf.box(4)),
        ("box:size=3x5", psf.box((3, 5))),
        ("moffat:fwhm=4,beta=3", psf.moffat(4, 3)),
        ("airy:radius=3", psf.airy(3)),
        ("airy:radius=3,obstruction=0.4", psf.airy(3, obstruction=0.4)),
        (
            "gibson_lanni:numerical_aperture=1.2,wavelength=0.5,pixel_size=0.1,depth=5,size=31",
            psf.gibson_lanni(1.2, 0.5, 0.1, depth=5, size=31),
        ),
    ],
)
def test_parse_calls_the_maker(text, made):
    assert torch.equal(psf.parse(text), made)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gaussian", "sigma"),
        ("gaussian:", "gaussian:sigma=1.6"),
        ("blob:size=3", "defocus:radius=5"),
        ("kernel.png", "read as a picture"),
        ("motion:len=5", "length, angle"),
        ("motion:length=5,length=6", "twice"),
        ("motion:length=long", "length=long"),
        ("box:size=2.5", "box:size=3x5"),
        ("box:size=0", "at least 1"),
        ("gaussian:sigma=-1", "above 0"),
        ("gaussian:sigma=nan", "finite"),
        ("gaussian:sigma=2,size=4", "odd"),
        ("defocus:radius=1e9", "wider than"),
        ("", "motion:length=25"),
    ],
)
def test_parse_says_what_is_wrong_in_one_line(text, says):
    with pytest.raises(ArgumentError, match="psf\\.") as caught:
        psf.parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.int32, np.float32, ">f4", np.float64])
def test_from_array_normalises_any_real_dtype(dtype):
    given = np.array([[0, 2, 0], [1, 4, 1], [0, 0, 0]], dtype=dtype)
    picture = psf.from_array(given)
    assert torch.allclose(picture, torch.tensor([[0, 2, 0], [1, 4, 1], [0, 0, 0]], dtype=torch.float64) / 8)
    assert torch.equal(psf.from_array(given[::-1].copy()[::-1]), picture)
    assert given[1, 1] == 4


def test_from_array_keeps_channels_negatives_and_extreme_scales():
    measured = torch.tensor([[-0.1, 1.0], [0.3, 0.2]], dtype=torch.float32)
    picture = psf.from_array(torch.stack([measured, 3 * measured]))
    assert picture.shape == (2, 2, 2)
    assert torch.allclose(picture.sum((1, 2)), torch.ones(2, dtype=torch.float64))
    assert float(picture.min()) < 0
    for scale in (1e-300, 1e300):
        assert torch.allclose(psf.from_array(measured.double() * scale), psf.from_array(measured.double()))


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((3, 3)),
        np.array([[1.0, -2.0]]),
        np.array([[1.0, np.nan]]),
        np.array([[np.inf, 1.0]]),
        np.ones(3),
        np.ones((2, 2, 2, 2)),
        np.ones((0, 3)),
        np.ones((3, 3), complex),
        np.ones((3, 3), bool),
        "gaussian",
        None,
    ],
)
def test_from_array_refuses(given):
    with pytest.raises(ArgumentError, match=r"^psf\.from_array: array is "):
        psf.from_array(given)


def test_centring_warns_of_light_off_the_centre_and_says_where():
    picture = torch.zeros(9, 11, dtype=torch.float64)
    picture[2, 8] = 1.0
    found = psf.centring(picture)
    assert (found.rows, found.columns) == (-2.0, 3.0)
    assert found.warning is not None
    assert "2.0 px above" in found.warning
    assert "3.0 px right of" in found.warning
    assert psf.centring(psf.box((4, 4))).warning is None
    assert "if that pixel is not the PSF's true origin" in found.warning


@pytest.mark.parametrize("width", [5e-324, 1e-200, 1e-6])
def test_makers_of_next_to_no_width_make_a_point(width):
    makers = (psf.gaussian, psf.motion, psf.defocus, psf.moffat, psf.airy)
    for maker in makers:
        picture = maker(width)
        assert_is_psf(picture)
        assert float(picture.max()) == pytest.approx(1.0, abs=1e-9)
    assert_is_psf(psf.moffat(4.0, beta=1e300))


def test_the_texts_of_a_call_are_blamed_on_that_call():
    with pytest.raises(ArgumentError, match=r"^blur: psf is 'gaussian:sigma=-1'; sigma is -1; it must be above 0$"):
        blur(np.ones((9, 9)), "gaussian:sigma=-1")
    with pytest.raises(ArgumentError, match=r"^blur: psf is 'blob'; it may be like 'gaussian"):
        blur(np.ones((9, 9)), "blob")
