"""PSFs from pictures: the truth is found within the error that is stated, and what cannot be measured is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from skimage import data

from convpinv import Conv2dOperator
from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, psf
from convpinv.imaging.psf_solve import non_negative_least_squares


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.floats(-2, 2))
def test_non_negative_least_squares_is_scipys(count, seed, lean):
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(40, count)), rng.normal(lean, 1, size=40)
    expected, _ = nnls(matrix, target)
    found = non_negative_least_squares(torch.from_numpy(matrix.T @ matrix), torch.from_numpy(matrix.T @ target))
    assert np.allclose(found.numpy(), expected, atol=1e-8)


# ---- points


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


# ---- edges


def edge(rows, columns, degrees, samples=16):
    """An ideal edge on square pixels, turned counter-clockwise from the vertical; bright on its right."""
    turn = np.deg2rad(degrees)
    down = (np.arange(rows * samples) + 0.5) / samples - rows / 2
    right = (np.arange(columns * samples) + 0.5) / samples - columns / 2
    lit = (right - 0.3) * np.cos(turn) - down[:, None] * np.sin(turn) > 0
    return lit.reshape(rows, samples, columns, samples).mean((1, 3))


@pytest.mark.parametrize(
    ("kernel", "tolerance"),
    [(psf.gaussian(0.8), 0.08), (psf.gaussian(1.5), 0.12), (psf.moffat(3.0, 3.0, 21), 0.12), (psf.defocus(4.0), 0.12)],
)
@pytest.mark.parametrize("degrees", [6.0, -12.0])
def test_an_edge_gives_a_round_psf(kernel, tolerance, degrees):
    seen = 10 + 50 * blur(edge(100, 90, degrees), kernel, noise=0.004, seed=0)
    truth = torch.zeros(21, 21, dtype=torch.float64)
    spare = (21 - kernel.shape[0]) // 2
    truth[spare : 21 - spare, spare : 21 - spare] = kernel
    found = psf.from_edge(seen, 21)
    assert found.angle == pytest.approx(degrees, abs=0.15)
    assert float(found.psf.sum()) == pytest.approx(1.0, abs=1e-12)
    error = found.psf - truth
    assert float(error.abs().max()) < tolerance * float(truth.max())
    assert float(error.norm()) < 3 * float(found.uncertainty.norm())
    assert float(found.uncertainty.norm()) < 6 * max(float(error.norm()), 0.01 * float(truth.norm()))


def test_the_transfer_function_of_an_edge_is_that_of_lens_and_pixel():
    kernel = psf.gaussian(0.9)
    found = psf.from_edge(blur(edge(120, 90, 5.0), kernel, noise=0.001, seed=0), 15)
    for frequency in (0.05, 0.15, 0.25, 0.4):
        measured = float(found.mtf[(found.frequency - frequency).abs().argmin()])
        expected = np.exp(-2 * (np.pi * 0.9 * frequency) ** 2) * np.sinc(frequency)
        assert measured == pytest.approx(expected, abs=0.012)
    assert float(found.mtf[0]) == pytest.approx(1.0)


def test_an_edge_either_way_up_and_bright_on_either_side():
    seen = blur(edge(80, 80, 8.0), psf.gaussian(1.2), noise=0.002, seed=0)
    found = psf.from_edge(seen, 13)
    assert not found.horizontal
    for turned, degrees, horizontal in (
        (1 - seen, 8.0, False),
        (seen[:, ::-1].copy(), -8.0, False),
        (seen[::-1, ::-1].copy(), 8.0, False),
        (seen.T.copy(), -8.0, True),
        (np.rot90(seen).copy(), 8.0, True),
    ):
        again = psf.from_edge(turned, 13)
        assert again.angle == pytest.approx(degrees, abs=0.1)
        assert again.horizontal == horizontal
        assert float((again.psf - found.psf).abs().max()) < 0.03 * float(found.psf.max())


def test_a_sharp_edge_gives_a_point():
    found = psf.from_edge(edge(60, 60, 6.0) + np.random.default_rng(0).normal(0, 0.002, (60, 60)), 9).psf
    assert float(found[4, 4]) > 0.98


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.zeros((40, 40)), "without an edge"),
        (np.random.default_rng(0).normal(size=(40, 40)), "without an edge"),
        (data.camera()[100:200, 100:200], "edge"),
        (edge(60, 60, 0.3), "slanted"),
        (edge(60, 22, 3.0), "smaller size"),
        (np.ones((8, 40)), "16 pixels along"),
        (np.ones((40, 40, 3)), "one plane"),
    ],
)
def test_edges_are_refused_in_one_line(picture, says):
    with pytest.raises(ArgumentError, match=r"^psf\.from_edge: image is ") as caught:
        psf.from_edge(picture, 21)
    assert says in str(caught.value)
    with pytest.raises(ArgumentError, match=r"^psf\.from_edge: size is "):
        psf.from_edge(edge(60, 60, 6.0), 8)


# ---- pairs


def photograph(size=120):
    return data.camera()[130 : 130 + size, 190 : 190 + size] / 255.0


def shake(size=11):
    path = np.zeros((size, size))
    steps = np.linspace(0, 1, 200)
    rows = np.rint(size * (0.2 + 0.6 * steps**2)).astype(int)
    columns = np.rint(size * (0.25 + 0.5 * np.sin(2.2 * steps))).astype(int)
    np.add.at(path, (rows, columns), 0.4 + steps)
    return path / path.sum()


def test_a_pair_is_the_damped_pseudo_inverse_with_the_picture_as_kernel():
    rng = np.random.default_rng(0)
    scene, size, strength = rng.normal(size=(16, 19)), (3, 5), 0.02
    seen = blur(scene, rng.random(size), noise=0.1, seed=0)
    # valid(scene ∗ k), as a convolution of k: torch correlates, hence the flip; the mean of all is the offset's.
    weight = torch.from_numpy(scene[::-1, ::-1].copy())[None, None]
    padding = tuple(n - 1 for n in seen.shape)
    A = Conv2dOperator(weight, size, padding=padding)
    assert A.out_shape == (1, *seen.shape)
    dense = A.to_dense()
    dense = dense - dense.mean(0)
    target = torch.from_numpy(seen - seen.mean()).flatten()
    damping = strength * torch.linalg.matrix_norm(dense, 2) ** 2
    taps = torch.linalg.solve(dense.T @ dense + damping * torch.eye(15, dtype=dense.dtype), dense.T @ target)
    found = psf.from_pair(scene, seen, size, align=False, non_negative=False, strength=strength)
    assert torch.allclose(found.psf.flatten(), taps / taps.sum(), atol=1e-10)
    assert found.gain == pytest.approx(float(taps.sum()), rel=1e-9)
    again = psf.from_pair(scene, seen, size, align=False, strength=strength)
    assert float(again.psf.min()) >= 0


@pytest.mark.parametrize(("noise", "worst"), [(0.0, 1e-3), (0.001, 0.06), (0.01, 0.3)])
def test_a_pair_gives_the_psf_within_its_error(noise, worst):
    truth = torch.from_numpy(np.pad(shake(), 2))
    scores = []
    for seed in range(3):
        seen = 2 * blur(photograph(), shake(), noise=noise, seed=seed) + 0.3
        found = psf.from_pair(photograph(), seen, 15, align=False, non_negative=False)
        scores.append((found.psf - truth) / found.uncertainty.clamp(min=1e-12))
        assert found.shift == (0, 0)
        assert found.gain == pytest.approx(2.0, rel=0.02)
        assert found.offset == pytest.approx(0.3, abs=0.02)
        if noise:
            assert found.noise == pytest.approx(2 * noise, rel=0.1)
        light = psf.from_pair(photograph(), seen, 15, align=False)
        assert float(light.psf.min()) >= 0
        assert float((light.psf - truth).norm()) <= float((found.psf - truth).norm()) + 1e-9
        assert float((light.psf - truth).abs().max()) < worst * float(truth.max())
    if noise:
        assert 0.6 < float(torch.stack(scores).square().mean().sqrt()) < 1.4


@pytest.mark.parametrize("move", [(0, 0), (4, -7), (-12, 3)])
def test_a_pair_may_be_shifted(move):
    scene = np.asarray(data.camera()[100:260, 150:310] / 255.0)
    seen = blur(scene, psf.gaussian(1.3), noise=0.001, seed=0, boundary="circular")
    moved = seen[20 - move[0] : 140 - move[0], 20 - move[1] : 140 - move[1]]
    found = psf.from_pair(scene[20:140, 20:140], moved, 11)
    assert found.shift == move
    assert float((found.psf - psf.gaussian(1.3, 11)).abs().max()) < 0.08 * float(found.psf.max())


def test_a_pair_keeps_a_lopsided_psf_where_it_is_if_told_so():
    kernel = np.zeros((9, 9))
    kernel[1, 6:9], kernel[2, 7] = 1, 2
    kernel /= kernel.sum()
    seen = blur(photograph(), kernel, noise=0.001, seed=0)
    kept = psf.from_pair(photograph(), seen, 9, align=False)
    assert float((kept.psf - torch.from_numpy(kernel)).abs().max()) < 0.05
    centred = psf.from_pair(photograph(), seen, 9)
    centring = psf.centring(centred.psf)
    assert max(abs(centring.rows), abs(centring.columns)) <= 0.55
    # The centre of mass lies 2.6 rows above and 3 columns right of the centre.
    assert centred.shift == (-3, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sharp": np.ones((60, 60))}, "sharp is constant"),
        ({"blurred": np.ones((40, 40))}, "blurred is constant"),
        ({"blurred": np.ones((70, 40))}, "blurred is 70 x 40 pixels"),
        ({"sharp": np.ones((60, 60, 3))}, "sharp is"),
        ({"size": 8}, "size is 8"),
        ({"size": (5, 4)}, "size is 4"),
        ({"size": 103}, "size is 103x103"),
        ({"size": 59}, "overlap"),
        ({"strength": 0}, "strength is 0"),
        ({"blurred": np.random.default_rng(1).random((60, 60))}, "one scene"),
    ],
)
def test_pairs_are_refused_in_one_line(change, says):
    scene = photograph(60)
    given = {"sharp": scene, "blurred": blur(scene, psf.gaussian(1.0), boundary="reflect"), "size": 9} | change
    with pytest.raises(ArgumentError, match=r"^psf\.from_pair: ") as caught:
        psf.from_pair(given.pop("sharp"), given.pop("blurred"), given.pop("size"), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
