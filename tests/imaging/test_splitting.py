"""The loop against an independent solver: the whole cost, written down from scratch, by SciPy's L-BFGS-B."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from skimage import data

from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, psf
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.priors import (
    Constraint,
    HyperLaplacian,
    Observation,
    Problem,
    Schedule,
    SquaredDifferences,
    TotalVariation,
    gradient,
    minimise,
)
from convpinv.imaging.priors.splits import DifferenceSplit

KERNEL = psf.motion(5, 30)
PICTURE = (10, 9)
# Far beyond what a picture needs: the fixed point itself is tested.
LONG = Schedule(fewest=3000, most=3000)
ROUNDED = 1e-3


def steps(scene):
    return np.stack([np.roll(scene, -1, -2) - scene, np.roll(scene, -1, -1) - scene])


def total_cost(scene, kernel, observed, weight, clipped, sparse, strength):
    """Return the cost of a scene (C, grid) and its gradient, in NumPy alone; |D x| is rounded off near 0."""
    height, width = kernel.shape
    padded = np.zeros(scene.shape[-2:])
    padded[:height, :width] = kernel
    transfer = np.fft.fft2(np.roll(padded, (-(height // 2), -(width // 2)), (0, 1)))
    rows, columns = observed.shape[-2:]
    gap = np.fft.ifft2(transfer * np.fft.fft2(scene)).real[:, :rows, :columns] - observed
    counts = weight * (gap * clipped <= 0)
    force = np.zeros_like(scene)
    force[:, :rows, :columns] = counts * gap
    slope = np.fft.ifft2(transfer.conj() * np.fft.fft2(force)).real
    value = 0.5 * np.sum(counts * gap**2)
    change = steps(scene)
    if sparse:
        length = np.sqrt(np.sum(change**2, (0, 1)) + ROUNDED**2)
        value += strength * np.sum(length - ROUNDED)
        pull = change / length
    else:
        value += 0.5 * strength * np.sum(change**2)
        pull = change
    down, right = strength * pull
    slope += np.roll(down, 1, -2) - down + np.roll(right, 1, -1) - right
    return value, slope


def reference(shape, low, high, **cost):
    start = np.clip(np.zeros(shape), low, high)
    result = minimize(
        lambda flat: (lambda pair: (pair[0], pair[1].ravel()))(total_cost(flat.reshape(shape), **cost)),
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(low, high)] * start.size,
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50},
    )
    return result.x.reshape(shape), result.fun


@pytest.mark.parametrize("boundary", [UNKNOWN, "circular"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "weighted", "clipped", "bounded", "everything"])
def test_the_fixed_point_is_the_minimum(kind, channels, sparse, boundary):
    rng = np.random.default_rng(5)
    model = BlurModel.build(KERNEL.double(), PICTURE, boundary)
    observed = rng.normal(size=(channels, *PICTURE)) + np.linspace(-2, 2, PICTURE[1])
    weight, clipped, low, high = np.ones_like(observed), np.zeros_like(observed), -np.inf, np.inf
    if kind in ("weighted", "everything"):
        weight = rng.random(observed.shape) * (rng.random(observed.shape) > 0.2)
    if kind in ("clipped", "everything"):
        clipped = np.where(observed > 1, 1.0, np.where(observed < -1.5, -1.0, 0.0))
    if kind in ("bounded", "everything"):
        low, high = -1.0, 1.2
    strength = 0.1
    bounds = [
        None if math.isinf(end) else torch.full((1, channels, 1, 1), end, dtype=torch.float64) for end in (low, high)
    ]
    problem = Problem(
        model,
        Observation(
            torch.from_numpy(observed)[None],
            None if kind not in ("weighted", "everything") else torch.from_numpy(weight)[None],
            None if kind not in ("clipped", "everything") else torch.from_numpy(clipped)[None],
        ),
        TotalVariation() if sparse else SquaredDifferences(),
        torch.tensor([strength]).double(),
        Constraint.of(model, *bounds),
        LONG,
    )
    restored = minimise(problem).planes[0].numpy()
    cost = {
        "kernel": KERNEL.numpy(),
        "observed": observed,
        "weight": weight,
        "clipped": clipped,
        "sparse": sparse,
        "strength": strength,
    }
    scene, _ = reference((channels, *model.grid), low, high, **cost)
    expected = scene[:, : PICTURE[0], : PICTURE[1]]
    assert restored.min() >= low
    assert restored.max() <= high
    # Where a picture is not determined by its cost (nothing seen, next to no pull) the two may differ.
    assert np.abs(restored - expected).max() < (0.06 if sparse else 1e-3)
    assert np.sqrt(np.mean((restored - expected) ** 2)) < (0.02 if sparse else 2e-4)


@pytest.mark.parametrize("boundary", ["zeros", "reflect", "replicate"])
def test_a_known_boundary_is_met_and_its_border_costs_nothing(boundary):
    observed = np.random.default_rng(2).random(PICTURE) + 0.5
    model = BlurModel.build(KERNEL.double(), PICTURE, boundary)
    count = observed.size
    pixels = np.eye(count).reshape(count, *PICTURE)
    camera = model.camera()(torch.from_numpy(pixels)[:, None]).reshape(count, count).numpy().T
    inner = np.concatenate([np.diff(pixels, axis=axis).reshape(count, -1) for axis in (1, 2)], 1).T
    strength = 0.05
    system = camera.T @ camera + strength * inner.T @ inner
    expected = np.linalg.solve(system, camera.T @ observed.ravel()).reshape(PICTURE)
    data, weight = Observation(torch.from_numpy(observed)[None, None]), torch.tensor([strength]).double()
    assert np.abs(gradient(model, data, weight).planes[0, 0].numpy() - expected).max() < 2e-3
    problem = Problem(model, data, SquaredDifferences(), weight, Constraint.of(model), Schedule(fewest=600, most=600))
    assert np.abs(minimise(problem).planes[0, 0].numpy() - expected).max() < 2e-3


@pytest.mark.parametrize("forgets", [True, False])
def test_what_the_differences_want_outlives_a_growing_penalty(forgets):
    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(2, 1, 6, 7, generator=generator, dtype=torch.float64)
    split = DifferenceSplit(TotalVariation(), scene.new_empty(2, 2, 6, 7), scene.new_empty(2, 1, 6, 7), None, forgets)
    threshold = torch.tensor([0.3, 0.8], dtype=torch.float64).reshape(2, 1, 1, 1)
    for _ in range(2):
        split.advance(scene, threshold, 1.5, 0.1)
    wanted, dual = split.point * split.factor, split.point * (1 - split.factor)
    split.rescale(2.0)
    assert torch.allclose(split.point * split.factor, wanted)
    assert torch.allclose(split.point * (1 - split.factor), dual if forgets else dual / 2)


def test_the_first_steps_bring_the_cost_down():
    blurred = blur(data.camera()[130:190, 190:250] / 255.0, KERNEL, noise=0.01, seed=0)
    unit = torch.from_numpy((blurred - blurred.mean()) / blurred.std())[None, None]
    model = BlurModel.build(KERNEL.double(), blurred.shape, "circular")
    costs = []
    for count in (1, 3, 10, 40, 160):
        plan = Schedule(fewest=count, most=count)
        strength = torch.tensor([0.01]).double()
        restored = minimise(Problem(model, Observation(unit), TotalVariation(), strength, None, plan)).planes[0]
        arrays = unit[0].numpy(), np.ones_like(unit[0].numpy()), np.zeros_like(unit[0].numpy())
        costs.append(total_cost(restored.numpy(), KERNEL.numpy(), *arrays, True, 0.01)[0])
    assert all(later <= earlier * (1 + 1e-4) for earlier, later in itertools.pairwise(costs))
    assert costs[-2] < costs[-1] * 1.01


def psnr(picture, truth):
    return -10 * math.log10(np.mean((np.clip(picture, 0, 1) - truth) ** 2))


def scene_and_blurred(noise=0.01, colour=False, boundary="valid", kernel=KERNEL):
    scene = (data.astronaut()[40:130, 170:260] if colour else data.camera()[130:220, 190:280]) / 255.0
    blurred = blur(scene, kernel, noise=noise, seed=0, boundary=boundary)
    if boundary != "valid":
        return scene, blurred
    top, left = (k - 1 - k // 2 for k in kernel.shape)
    return scene[top : top + blurred.shape[0], left : left + blurred.shape[1]], blurred


@pytest.mark.parametrize("exponent", [0.4, 0.5, 2 / 3, 0.8, 1.0])
@pytest.mark.parametrize("boundary", ["unknown", "circular", "zeros", "reflect", "replicate"])
def test_the_hyper_laplacian_restores_under_every_boundary(exponent, boundary):
    scene, blurred = scene_and_blurred(boundary="valid" if boundary == "unknown" else boundary)
    result = deblur(blurred, KERNEL, prior="hyperlaplacian", exponent=exponent, boundary=boundary, full_output=True)
    assert psnr(result.image, scene) > psnr(blurred, scene) + 3
    assert result.report.status == "converged"
    if exponent == 1:
        assert np.array_equal(result.image, deblur(blurred, KERNEL, boundary=boundary))


def test_the_continuation_is_worth_its_steps():
    kernel = psf.motion(11, 30)
    scene, blurred = scene_and_blurred(kernel=kernel)
    model = BlurModel.build(kernel.double(), blurred.shape, UNKNOWN)
    mean, scale = blurred.mean(), blurred.std()
    unit = torch.from_numpy((blurred - mean) / scale)[None, None]
    result = deblur(blurred, kernel, prior="hyperlaplacian", full_output=True)
    strength = torch.tensor([result.report.strength / scale ** (4 / 3)]).double()
    held = minimise(Problem(model, Observation(unit), HyperLaplacian(2 / 3), strength)).planes[0, 0].numpy()
    assert psnr(result.image, scene) > psnr(held * scale + mean, scene) + 0.3


def test_strength_of_the_hyper_laplacian_is_in_units_of_the_picture():
    _, blurred = scene_and_blurred()
    chosen = deblur(blurred, KERNEL, prior="hyperlaplacian", full_output=True)
    strength = chosen.report.strength
    again = deblur(blurred, KERNEL, prior="hyperlaplacian", strength=strength)
    assert np.abs(again - chosen.image).max() < 1e-6
    larger = deblur(255 * blurred, KERNEL, prior="hyperlaplacian", full_output=True)
    assert larger.report.strength == pytest.approx(strength * 255 ** (4 / 3), rel=1e-6)


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_colours_that_share_their_edges_are_better_together(noise):
    scene, blurred = scene_and_blurred(noise, colour=True)
    together, apart = deblur(blurred, KERNEL), deblur(blurred, KERNEL, coupled=False)
    assert psnr(together, scene) > psnr(apart, scene) + 0.15
    assert np.array_equal(together, deblur(blurred, KERNEL, coupled=True))
    grey = blurred[..., 0]
    assert np.allclose(apart[..., 0], deblur(grey, KERNEL), atol=1e-9)
    both = deblur(torch.from_numpy(np.stack([blurred, 3 * blurred[::-1]])).permute(0, 3, 1, 2), KERNEL)
    assert np.allclose(both[0].permute(1, 2, 0), together, atol=1e-9)
    two = blurred[..., :2]
    assert np.array_equal(deblur(two, KERNEL), deblur(two, KERNEL, coupled=False))
    report = deblur(blurred, KERNEL, full_output=True).report
    assert len(set(report.strength)) == 1
    assert "channels" in report.strength_rule


def test_coupled_channels_may_have_a_psf_each():
    kernels = torch.zeros(3, 7, 7, dtype=torch.float64)
    kernels[0, 3], kernels[1, :, 3] = 1 / 7, 1 / 7
    kernels[2, range(7), range(7)] = 1 / 7
    scene = data.astronaut()[40:130, 170:260] / 255.0
    blurred = blur(scene, kernels, noise=0.01, seed=0)
    truth = scene[3:-3, 3:-3]
    assert psnr(deblur(blurred, kernels), truth) > psnr(deblur(blurred, kernels, coupled=False), truth) + 0.15


@pytest.mark.parametrize("prior", ["tv", "gradient", "hyperlaplacian"])
@pytest.mark.parametrize("boundary", ["unknown", "circular", "zeros", "reflect", "replicate"])
def test_bounds_hold_and_help(prior, boundary):
    scene, _ = scene_and_blurred()
    scene = np.clip(2 * scene - 0.5, 0, 1)
    blurred = blur(scene, KERNEL, noise=0.01, seed=0, boundary="valid" if boundary == "unknown" else boundary)
    if boundary == "unknown":
        top, left = (k - 1 - k // 2 for k in KERNEL.shape)
        scene = scene[top : top + blurred.shape[0], left : left + blurred.shape[1]]
    options = {"prior": prior, "boundary": boundary, "clip": False}
    free = deblur(blurred, KERNEL, **options)
    for bounds in ((0.0, 1.0), (0.0, None), (None, 1)):
        low, high = (-math.inf if bounds[0] is None else bounds[0], math.inf if bounds[1] is None else bounds[1])
        result = deblur(blurred, KERNEL, bounds=bounds, **options)
        assert result.min() >= low
        assert result.max() <= high
        assert free.min() < low or free.max() > high
        assert psnr(result, scene) > psnr(free, scene) - 0.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bounds": (1, 0)}, r"bounds is \(1, 0\)"),
        ({"bounds": 3}, "bounds is 3"),
        ({"bounds": (0, 1), "prior": "tikhonov"}, "bounds is given; prior 'tikhonov'"),
        ({"bounds": (0, 1), "prior": "none"}, "bounds is given; prior 'none'"),
        ({"exponent": 0, "prior": "hyperlaplacian"}, "exponent is 0"),
        ({"exponent": 1.5, "prior": "hyperlaplacian"}, "exponent is 1.5; .*'gradient'"),
        ({"coupled": 1}, "coupled is 1"),
    ],
)
def test_refuses_in_one_line(change, says):
    picture = np.random.default_rng(0).random((9, 9))
    with pytest.raises(ArgumentError, match=f"^deblur: {says}"):
        deblur(picture, "gaussian:sigma=0.5", **change)
