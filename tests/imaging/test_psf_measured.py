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
