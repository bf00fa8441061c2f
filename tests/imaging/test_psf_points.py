"""PSFs from points: the truth is found within the error that is stated, and what is no point is left out."""

import numpy as np
import pytest
import torch
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, psf


def points(count, size, kernel, noise, seed, at=None):
    """Points at any place, each a PSF moved by parts of a pixel, over a slanted ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(float)
    picture = 100 + 0.05 * rows - 0.03 * columns
    places = rng.uniform(14, size - 15, (count, 2)) if at is None else np.asarray(at, float)
    brightness = rng.uniform(300, 1000, count)
    for (row, column), light in zip(places, brightness, strict=True):
        picture += light * kernel(rows - row, columns - column)
    return picture + rng.normal(0, noise, picture.shape), places


def round_star(rows, columns, sigma=1.6):
    return np.exp(-(rows**2 + columns**2) / (2 * sigma**2))


GRID = [(20 + 32 * i + 0.37 * j, 20 + 32 * j + 0.21 * i) for i in range(4) for j in range(4)]


@pytest.mark.parametrize(("count", "noise"), [(1, 2.0), (3, 2.0), (16, 2.0), (16, 15.0)])
def test_points_give_the_psf_within_its_error(count, noise):
    at = GRID[:count]
    errors = []
    for seed in range(4):
        picture, places = points(count, 140, round_star, noise, seed, at)
        found = psf.from_points(picture, 17)
        assert found.count == count
        assert found.rejected == {}
        nearest = (found.positions[:, None] - torch.from_numpy(places)).square().sum(-1).min(1).values.sqrt()
        assert float(nearest.max()) < 0.02 * noise + 0.01
        errors.append((found.psf - psf.gaussian(1.6, 17)) / found.uncertainty)
    assert 0.75 < float(torch.stack(errors).square().mean().sqrt()) < 1.4


def test_more_points_know_better():
    errors = {1: 0.0, 4: 0.0, 16: 0.0}
    for count in errors:
        for seed in range(4):
            picture, _ = points(count, 140, round_star, 5.0, seed, GRID[:count])
            found = psf.from_points(picture, 17)
            errors[count] += float((found.psf - psf.gaussian(1.6, 17)).norm())
            assert float(found.psf.sum()) == pytest.approx(1.0, abs=1e-12)
    assert errors[1] > 1.4 * errors[4]
    assert errors[4] > 1.4 * errors[16]


def test_a_lopsided_psf_is_not_made_round():
    def comet(rows, columns):
        return round_star(rows, columns, 1.5) + 0.4 * round_star(rows - 2.5, columns - 1.0, 2.0)

    picture, _ = points(16, 140, comet, 1.0, 0, GRID)
    found = psf.from_points(picture, 21).psf
    rows, columns = np.mgrid[-10:11, -10:11].astype(float)
    best = min(
        float(np.abs(found.numpy() - truth / truth.sum()).max() / found.max())
        for down in np.arange(0.6, 1.4, 0.02)
        for right in (0.3, 0.35, 0.4, 0.45)
        for truth in (comet(rows + down, columns + right),)
    )
    assert best < 0.02
    centring = psf.centring(found)
    assert max(abs(centring.rows), abs(centring.columns)) < 0.25


def test_points_that_will_not_do_are_left_out_and_counted():
    at = [(30, 30), (30, 75), (36, 83), (5, 60), (75, 30), (75, 100), (110, 60), (110, 105)]
    picture, _ = points(len(at), 140, round_star, 1.0, 3, at)
    picture[40:44, 118:122] += 400  # a square: no point
    found = psf.from_points(picture, 17)
    assert found.rejected == {"at the border": 1, "with a neighbour": 2, "not like the others": 1}
    assert found.count == 5
    assert float((found.psf - psf.gaussian(1.6, 17)).abs().max()) < 0.01 * float(found.psf.max())
    # The brightest, whose top is cut off, spoils its neighbour too.
    full = np.minimum(picture, np.sort(picture.ravel())[-6])
    assert psf.from_points(full, 17).rejected["saturated"] == 2
    assert psf.from_points(picture, 17, saturation=float(picture.max()) - 1).rejected["saturated"] == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_points_in_any_dtype_and_scale(dtype):
    picture, _ = points(16, 140, round_star, 2.0, 0, GRID)
    counts = (picture / 5 if dtype == np.uint8 else picture).astype(dtype)
    found = psf.from_points(counts, 17)
    assert found.count == 16
    assert float((found.psf - psf.gaussian(1.6, 17)).abs().max()) < 0.01 * float(found.psf.max())
    again = psf.from_points(torch.from_numpy(counts.astype(np.float64) * 1e-6), 17)
    # Rounded values lie at the limits of what is left out, and a rounding decides.
    assert float((again.psf - found.psf).abs().max()) < 0.01 * float(found.psf.max())


def test_a_ground_without_noise_weighs_no_more_than_others():
    """Its noise is zero, not small: a weight of one over its square was not a number."""
    picture, _ = points(16, 140, round_star, 2.0, 0, GRID)
    exact = np.floor(picture / 5)
    exact -= np.median(exact)
    assert float((psf.from_points(exact, 17).psf - psf.gaussian(1.6, 17)).abs().max()) < 0.01
    half = exact.copy()
    half[:70] += np.random.default_rng(0).normal(0, 1, half[:70].shape)
    found = psf.from_points(half, 17)
    assert float((found.psf - psf.gaussian(1.6, 17)).abs().max()) < 0.01
    assert bool(torch.isfinite(found.uncertainty).all())


def test_a_noisy_surrounding_does_not_pull_a_quiet_point_down():
    rng, sky = np.random.default_rng(0), np.zeros((80, 160))
    sky[40, 40], sky[40, 120] = 5000, 50000
    seen = blur(sky, "gaussian:sigma=1.6", boundary="zeros") + 100
    for left, noise in ((0, 1), (80, 100)):
        seen[:, left : left + 80] += rng.normal(0, noise, (80, 80))
    found = psf.from_points(seen, 17)
    error = float((found.psf - psf.gaussian(1.6, 17)).square().mean().sqrt())
    assert error < 4e-4
    assert 0.5 < float(found.uncertainty.median()) / error < 2


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((60, 60)), "0 bright spots"),
        (np.random.default_rng(0).normal(size=(90, 90)), "0 bright spots"),
        (data.camera()[::2, ::2], "without a usable point"),
        (np.ones((9, 9)), "it must have 25 rows and columns at least"),
        (np.ones((60, 60, 3)), "one plane"),
        ("stars.fits", "image is"),
    ],
)
def test_points_are_refused_in_one_line(picture, says):
    with pytest.raises(ArgumentError, match=r"^psf\.from_points: image is ") as caught:
        psf.from_points(picture, 17)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    for size in (4, 3, 0):
        with pytest.raises(ArgumentError, match=r"^psf\.from_points: size is "):
            psf.from_points(np.zeros((60, 60)), size)
