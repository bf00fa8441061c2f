"""Richardson and Lucy: the textbook's step, the laws of the cost, and that it helps where photons are few."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data, restoration

from convpinv import Conv2dOperator
from convpinv.arguments import ArgumentError, ConvergenceWarning
from convpinv.imaging import blur, deblur, estimate_noise, psf, richardson_lucy
from convpinv.imaging.poisson_em import Photons, _Step, minimised

# A hand that shook: a bent path of uneven speed, as measured kernels are.
SHAKE = psf.from_array(
    np.array(
        [
            [0, 0, 0, 0, 0, 0, 2, 3, 1],
            [0, 0, 0, 0, 0, 3, 2, 0, 0],
            [0, 0, 0, 0, 4, 1, 0, 0, 0],
            [0, 0, 0, 2, 5, 0, 0, 0, 0],
            [0, 0, 0, 1, 6, 1, 0, 0, 0],
            [0, 0, 0, 0, 3, 3, 0, 0, 0],
            [0, 0, 0, 0, 1, 4, 1, 0, 0],
            [1, 2, 1, 0, 0, 2, 2, 0, 0],
            [0, 1, 2, 3, 2, 1, 0, 0, 0],
        ]
    )
)


def photograph(size=128):
    return data.camera()[130 : 130 + size, 190 : 190 + size] / 255.0


def case(kernel, peak, scene=None, seed=0):
    """Return counts, and the scene under them."""
    scene = photograph() if scene is None else scene
    clean = blur(scene, kernel).clip(0)
    top, left = (k - 1 - k // 2 for k in kernel.shape)
    truth = scene[top : top + clean.shape[0], left : left + clean.shape[1]]
    return np.random.default_rng(seed).poisson(peak * clean).astype(float), truth


def psnr(picture, truth, peak):
    return -10 * math.log10(np.mean((np.clip(picture / peak, 0, 1) - truth) ** 2))


def photons(counts, kernel, boundary="unknown", background=0.0, weights=None):
    seen = torch.as_tensor(counts, dtype=torch.float64)
    return Photons.build(seen, torch.ones_like(seen) if weights is None else weights, background, kernel, boundary)


def test_the_blur_and_its_adjoint_are_the_valid_convolution():
    counts, _ = case(SHAKE, 50, photograph(40))
    model = photons(counts, SHAKE)
    scene = torch.rand(model.grid, dtype=torch.float64)
    dense = Conv2dOperator(SHAKE.flip(-2, -1)[None, None], tuple(n + 8 for n in counts.shape))
    top, left = (k - 1 - k // 2 for k in SHAKE.shape)
    cut = torch.roll(scene, (top, left), (0, 1))[: counts.shape[0] + 8, : counts.shape[1] + 8]
    assert torch.allclose(model.blurred(scene), dense(cut[None])[0])
    picture = torch.rand(counts.shape, dtype=torch.float64)
    assert torch.allclose((model.blurred(scene) * picture).sum(), (scene * model.sent_back(picture)).sum())


@pytest.mark.parametrize("boundary", ["unknown", "zeros", "circular"])
def test_plain_steps_are_the_textbooks_on_a_dense_matrix(boundary):
    """x ← x · Aᵀ(w y / (A x + b)) / Aᵀ w, with A written out."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(20.0, (9, 11)).astype(float)
    weights = rng.random((9, 11))
    kernel = psf.from_array(rng.random((3, 4)))
    model = photons(counts, kernel, boundary, 2.0, torch.from_numpy(weights))
    count = model.grid[0] * model.grid[1]
    units = torch.eye(count, dtype=torch.float64).reshape(count, *model.grid)
    dense = torch.stack([model.blurred(unit).flatten() for unit in units], 1).numpy()
    inside = np.ones(model.grid)
    if boundary == "zeros":
        inside[9:] = 0
        inside[:, 11:] = 0
    dense = dense * inside.flatten()
    scene = np.random.default_rng(1).random(count) + 0.5
    expected = scene.copy()
    expected = expected * inside.flatten()
    w, y = weights.flatten(), counts.flatten()
    step = _Step(model, 0.0)
    found = torch.from_numpy(expected.copy()).reshape(model.grid)
    for _ in range(5):
        expected = np.where(
            dense.T @ w > 1e-3,
            expected * (dense.T @ (w * y / (dense @ expected + 2.0))) / np.maximum(dense.T @ w, 1e-3),
            expected,
        )
        found, _ = step(found)
    assert found.flatten().numpy() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**31), st.floats(-4, 1), st.floats(0, 30), st.floats(0, 1), st.sampled_from(["unknown", "zeros"])
)
def test_every_step_lowers_the_cost_and_stays_positive(seed, exponent, background, hidden, boundary):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.choice([0.05, 2.0, 300.0]) * rng.random((14, 17)) + background)
    weights = torch.from_numpy((rng.random((14, 17)) >= 0.9 * hidden).astype(float))
    if not bool((weights * torch.from_numpy(counts)).sum() > 0):
        return
    step = _Step(photons(counts, SHAKE, boundary, background, weights), 10**exponent)
    scene = step.photons.first_scene(step.sensitivity)
    costs = []
    for _ in range(25):
        scene, cost = step(scene)
        costs.append(cost)
        assert bool(torch.isfinite(scene).all())
        assert bool((scene >= 0).all())
    assert all(later <= former + 1e-9 * abs(former) for former, later in itertools.pairwise(costs))


def test_the_accelerated_iteration_ends_where_plain_steps_end():
    counts, _ = case(SHAKE, 100, photograph(48))
    model = photons(counts, SHAKE)
    step = _Step(model, 0.03)
    plain = model.first_scene(step.sensitivity)
    lowest = math.inf
    for _ in range(1500):
        plain, lowest = step(plain)
    run = minimised(model, 0.03, 600, None)
    assert run.converged
    _, reached = step(run.scene)
    start = step(model.first_scene(step.sensitivity))[1]
    assert reached - lowest < 0.01 * (start - lowest)
    assert run.steps < 300


@pytest.mark.parametrize("peak", [30, 100, 500, 2000])
@pytest.mark.parametrize("kernel", [SHAKE, psf.gaussian(1.5)], ids=["shake", "gaussian"])
def test_it_beats_the_usual_implementation_at_its_best(kernel, peak):
    counts, truth = case(kernel, peak)
    pad = max(kernel.shape)
    padded = np.pad(counts, pad, "reflect") / peak
    usual = max(
        psnr(restoration.richardson_lucy(padded, kernel.numpy(), n, clip=False)[pad:-pad, pad:-pad] * peak, truth, peak)
        for n in (3, 6, 10, 20, 50)
    )
    result = richardson_lucy(counts, kernel, full_output=True)
    assert psnr(result.image, truth, peak) > usual + (1.2 if kernel is SHAKE else 0.15)
    assert psnr(result.image, truth, peak) > psnr(counts, truth, peak) + 2
    assert psnr(result.image, truth, peak) > psnr(deblur(counts, kernel), truth, peak) - 0.3
    assert result.report.status == "converged"
    assert result.report.gain == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("peak", [30, 500])
def test_plain_steps_stop_near_their_best(peak):
    counts, truth = case(psf.gaussian(1.5), peak)
    best = max(
        psnr(richardson_lucy(counts, psf.gaussian(1.5), gain=1.0, strength=0, iterations=n), truth, peak)
        for n in (1, 2, 3, 5, 8, 12, 20, 40)
    )
    result = richardson_lucy(counts, psf.gaussian(1.5), gain=1.0, strength=0, full_output=True)
    assert psnr(result.image, truth, peak) > best - 0.25
    assert "held out" in result.report.stopping_rule


def test_plain_steps_conserve_the_light():
    counts, _ = case(SHAKE, 30)
    for iterations in (1, 7):
        report = richardson_lucy(counts, SHAKE, gain=1.0, strength=0, iterations=iterations, full_output=True).report
        assert report.flux == pytest.approx(1.0, abs=1e-9)
        assert report.iterations == iterations
    assert richardson_lucy(counts, SHAKE, gain=1.0, full_output=True).report.flux == pytest.approx(1.0, abs=0.02)


def test_units_scale_and_background_is_subtracted():
    counts, _ = case(psf.gaussian(1.5), 200)
    exact = richardson_lucy(counts, psf.gaussian(1.5), gain=1.0)
    scaled = richardson_lucy(7.0 * counts, psf.gaussian(1.5), gain=7.0)
    assert scaled == pytest.approx(7.0 * exact, rel=1e-6, abs=1e-6)
    shifted = counts + 50.0
    noise = estimate_noise(shifted, model="poisson-gaussian")
    lifted = richardson_lucy(shifted, psf.gaussian(1.5), gain=noise, background=50.0)
    assert np.abs(lifted - exact).mean() < 0.05 * exact.mean()
    told = richardson_lucy(shifted, psf.gaussian(1.5), full_output=True).report.warnings
    assert any("black level" in warning for warning in told)


def test_read_noise_counts():
    counts, truth = case(psf.gaussian(1.5), 60)
    noisy = counts + np.random.default_rng(5).normal(0, 6, counts.shape)
    kernel = psf.gaussian(1.5)
    known = richardson_lucy(noisy, kernel, gain=estimate_noise(noisy, model="poisson-gaussian"), full_output=True)
    ignored = richardson_lucy(noisy, kernel, gain=1.0)
    assert psnr(known.image, truth, 60) > psnr(ignored, truth, 60)
    assert known.report.deviance == pytest.approx(1.0, abs=0.2)


def test_what_was_not_seen_is_filled_from_its_surroundings():
    counts, truth = case(SHAKE, 300)
    hidden = np.random.default_rng(3).random(counts.shape) < 0.5
    holes = np.where(hidden, np.nan, counts)
    by_nan = richardson_lucy(holes, SHAKE, full_output=True)
    garbage = np.where(hidden, 1e6, counts)
    by_mask = richardson_lucy(garbage, SHAKE, mask=~hidden)
    assert by_mask == pytest.approx(by_nan.image)
    assert psnr(by_nan.image, truth, 300) > psnr(richardson_lucy(counts, SHAKE), truth, 300) - 2.5
    assert by_nan.report.gain == pytest.approx(1.0, abs=0.25)
    block = np.ones(counts.shape)
    block[40:60, 50:70] = 0  # larger than the PSF: the middle sends no light anywhere
    filled = richardson_lucy(counts, SHAKE, gain=1.0, mask=block)
    assert np.isfinite(filled).all()
    assert filled[48:52, 58:62].max() < counts.max()


def test_zeros_and_darkness_give_no_nan():
    nothing = richardson_lucy(np.zeros((20, 24)), SHAKE, full_output=True)
    assert not nothing.image.any()
    assert np.isfinite(nothing.report.deviance)
    star = np.zeros((40, 40))
    star[20, 20] = 1000.0
    for strength in (None, 0, 0.1):
        found = richardson_lucy(star, psf.gaussian(1.2), gain=1.0, strength=strength, iterations=50, full_output=True)
        assert np.isfinite(found.image).all()
        assert (found.image >= 0).all()
    dark = richardson_lucy(star - 5.0, psf.gaussian(1.2), gain=1.0, background=2.0, iterations=30, full_output=True)
    assert np.isfinite(dark.image).all()


def test_a_dark_sky_of_whole_counts_with_dead_pixels():
    # Nothing varies in most of it: every level of brightness has the variance 0.
    rng = np.random.default_rng(0)
    sky = np.zeros((48, 48))
    sky[rng.integers(8, 40, 6), rng.integers(8, 40, 6)] = 500
    counts = rng.poisson(blur(sky, "motion:length=7", boundary="zeros").clip(0)).astype(float)
    seen = rng.random(counts.shape) > 0.02
    restored = richardson_lucy(counts, "motion:length=7", mask=seen)
    assert np.isfinite(restored).all()
    assert np.square(restored - sky).mean() < 0.2 * np.square(counts - sky).mean()


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 3), (1, 3)), ((4, 12), (1, 1)), ((20, 20), (5, 5)), ((62, 62), (5, 5))]
)
def test_a_constant_picture_is_given_back(shape, size):
    for level, gain in ((0.3, 1.0), (100.0, 10.0)):
        kernel = psf.gaussian(0.7) if size == (5, 5) else np.ones(size)
        restored = richardson_lucy(np.full(shape, level), kernel, gain=gain, boundary="circular")
        assert np.allclose(restored, level, rtol=1e-3)


def test_kinds_layouts_and_reports():
    counts, _ = case(SHAKE, 100, photograph(48))
    colour = np.stack([counts, counts, 2 * counts], -1)
    result = richardson_lucy(colour.astype(np.uint16), SHAKE, gain=1.0, full_output=True)
    assert (result.image.shape, result.image.dtype) == (colour.shape, np.float32)
    assert len(result.report.flux) == 3
    json.dumps(result.report.to_dict(), allow_nan=False)
    tensor = torch.from_numpy(colour).permute(2, 0, 1)[None].float()
    same = richardson_lucy(tensor, SHAKE.float().expand(3, -1, -1), gain=1.0)
    assert (same.shape, same.dtype) == (tensor.shape, torch.float32)
    assert torch.allclose(same[0].permute(1, 2, 0), torch.from_numpy(result.image), atol=1e-2)
    noise = estimate_noise(colour, model="poisson-gaussian")
    gains = richardson_lucy(colour, SHAKE, gain=noise, iterations=3, full_output=True).report.gain
    assert gains == pytest.approx((1, 1, 2), rel=0.3)
    calls = []
    richardson_lucy(counts, SHAKE, gain=1.0, iterations=6, strength=0, progress=lambda *at: calls.append(at))
    assert calls[-1] == (6, 6)


def test_says_when_steps_ran_out():
    counts, _ = case(SHAKE, 100, photograph(48))
    with pytest.warns(ConvergenceWarning, match=r"^richardson_lucy: stopped after 4 iterations"):
        richardson_lucy(counts, SHAKE, gain=1.0, iterations=4)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("psf", {"psf": np.ones((60, 3))}),
        ("iterations", {"iterations": 0}),
        ("strength", {"strength": -1.0}),
        ("boundary", {"boundary": "reflect"}),
        ("background", {"background": math.nan}),
        ("gain", {"gain": 0.0}),
        ("mask", {"mask": np.zeros((20, 20))}),
        ("mask", {"mask": np.full((20, 20), 2.0)}),
        ("mask", {"mask": np.ones((20, 21))}),
        ("image", {"image": np.full((20, 20), np.nan)}),
        ("image", {"image": np.full((20, 20), np.inf)}),
        ("progress", {"progress": 3}),
    ],
)
def test_refuses(named, arguments):
    with pytest.raises(ArgumentError, match=rf"^richardson_lucy: {named} is "):
        richardson_lucy(**{"image": np.ones((20, 20)), "psf": SHAKE, **arguments})
