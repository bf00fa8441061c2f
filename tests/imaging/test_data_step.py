"""The data step: against the dense system, warm starts, weights, every boundary."""

import pytest
import torch

from convpinv.imaging import psf
from convpinv.imaging.model import UNKNOWN, BlurModel
from convpinv.imaging.priors import DataStep, Observation
from convpinv.imaging.priors.data_step import ITERATIONS

BOUNDARIES = (UNKNOWN, "circular", "zeros", "reflect", "replicate")
KERNEL = psf.motion(5, 30)


def dense_of(function, shape):
    """The matrix of a linear function of one picture, column by column."""
    count = shape[0] * shape[1]
    unit = torch.eye(count, dtype=torch.float64).reshape(count, 1, *shape)
    return function(unit).reshape(count, -1).T


def setup(boundary, dtype=torch.float64, kernel=KERNEL, channels=1):
    generator = torch.Generator().manual_seed(3)
    picture = (11, 9)
    model = BlurModel.build(kernel.to(dtype), picture, boundary)
    data = torch.randn(2, channels, *picture, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.rand(2, 1, *picture, generator=generator, dtype=torch.float64).to(dtype)
    weight[:, :, 2:4] = 0
    weight[:, :, :, 5] = 1
    scene = picture if model.boundary_is_known else model.grid
    centre = torch.randn(2, channels, *scene, generator=generator, dtype=torch.float64).to(dtype)
    return model, data, weight, centre


def camera_matrix(model):
    if model.boundary_is_known:
        return dense_of(model.camera(), model.picture)
    blur = model.blur()
    return dense_of(lambda scene: model.window(blur(scene)), model.grid)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("kernel", [KERNEL, psf.box((2, 4))])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_step_solves_the_dense_system(boundary, kernel, weighted):
    model, data, weight, centre = setup(boundary, kernel=kernel)
    step = DataStep(model, Observation(data, weight if weighted else None))
    matrix = camera_matrix(model)
    for penalty in (1.0, 0.01):
        scene, state = step.solve(centre, penalty, tolerance=1e-10)
        for index in range(2):
            believed = weight[index].reshape(-1) if weighted else torch.ones(data[index].numel(), dtype=data.dtype)
            system = matrix.T @ (believed[:, None] * matrix) + penalty * torch.eye(matrix.shape[1], dtype=data.dtype)
            right = matrix.T @ (believed * data[index].reshape(-1)) + penalty * centre[index].reshape(-1)
            expected = torch.linalg.solve(system, right).reshape(scene[index].shape)
            assert (scene[index] - expected).abs().max() < 1e-8
        again, second = step.solve(centre, penalty, state, tolerance=1e-9)
        assert second.iterations <= 1
        assert (again - scene).abs().max() < 1e-8


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_tolerance_is_met_and_a_batch_gives_what_its_pictures_give(boundary, dtype):
    model, data, weight, centre = setup(boundary, dtype, channels=3)
    penalty = torch.tensor([0.3, 0.003], dtype=dtype).reshape(2, 1, 1, 1)
    together, _ = DataStep(model, Observation(data, weight)).solve(centre, penalty)
    exact, _ = DataStep(model, Observation(data, weight)).solve(centre, penalty, tolerance=1e-5)
    assert (together - exact).square().mean().sqrt() < 3e-3  # estimated by a first-order step
    for index in range(2):
        some = slice(index, index + 1)
        alone, _ = DataStep(model, Observation(data[some], weight[some])).solve(centre[some], penalty[some])
        # Transforms of a batch round otherwise, and the iteration may end a step earlier: within its tolerance.
        assert (alone[0] - together[index]).square().mean().sqrt() < 1e-3


def test_clipped_pixels_count_on_their_measured_side_only():
    model, data, _, centre = setup("circular")
    clipped = torch.zeros_like(data)
    clipped[0, 0, :5], clipped[0, 0, 5:8] = 1, -1
    observation = Observation(data, None, clipped)
    step, blur = DataStep(model, observation), model.blur()
    scene, state = step.solve(centre, 0.1, tolerance=1e-10)
    for _ in range(20):
        scene, state = step.solve(centre, 0.1, state, tolerance=1e-10)
    gap = blur(scene) - data
    force = torch.where(gap * clipped <= 0, gap, 0.0)  # a clipped pixel pulls from the measured side alone
    assert (blur.H(force) + 0.1 * (scene - centre)).abs().max() < 1e-7
    assert bool((gap * clipped > 0.01).any())


@pytest.mark.parametrize("smooth", [False, True])
def test_known_boundaries_are_served_in_double_precision(smooth):
    rough = setup("replicate", torch.float32, psf.gaussian(2))
    exact = setup("replicate", torch.float64, psf.gaussian(2))
    scenes = []
    for model, data, weight, centre in (rough, exact):
        step = DataStep(model, Observation(data, weight), smooth=smooth)
        scene, state = step.solve(centre, 1e-5, tolerance=1e-4)
        assert state.converged
        assert scene.dtype == data.dtype
        scenes.append(scene)
    # In single precision its scenes were 0.02 and more away, of pictures of deviation 1.
    assert (scenes[0] - scenes[1]).abs().max() < 1e-3


def test_what_has_drifted_from_its_goal_has_not_converged():
    model, data, weight, _ = setup("circular", torch.float32, psf.box(5))
    step = DataStep(model, Observation(data, weight))
    centre = torch.zeros_like(data)
    for penalty, converged in ((1e-2, True), (1e-5, True), (1e-9, False)):
        _, state = step.solve(centre, penalty, tolerance=1e-4)
        assert 0 < state.iterations < ITERATIONS
        assert state.converged is converged


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_constant_picture_leaves_its_neighbour_alone(boundary):
    model, data, weight, centre = setup(boundary)
    data[1], centre[1] = 0, 0
    together, state = DataStep(model, Observation(data, weight)).solve(centre, 0.01, tolerance=1e-8)
    alone, _ = DataStep(model, Observation(data[:1], weight[:1])).solve(centre[:1], 0.01, tolerance=1e-8)
    assert state.converged
    assert bool((together[1] == 0).all())
    assert (together[0] - alone[0]).abs().max() < 1e-7


@pytest.mark.parametrize("boundary", ["unknown", "reflect"])
def test_each_picture_has_a_tolerance_of_its_own(boundary):
    model, data, weight, centre = setup(boundary)
    tolerances = torch.tensor([1e-1, 1e-7])
    together, _ = DataStep(model, Observation(data, weight)).solve(centre, 0.01, tolerance=tolerances)
    for index, tolerance in enumerate(tolerances.tolist()):
        some = slice(index, index + 1)
        step = DataStep(model, Observation(data[some], weight[some]))
        alone, _ = step.solve(centre[some], 0.01, tolerance=tolerance)
        assert (together[index] - alone[0]).abs().max() < 1e-7
