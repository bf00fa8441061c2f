"""Krylov at the size of a picture: iterations, residual, agreement with SciPy, batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import convpinv
from convpinv import Conv2dOperator, Status
from convpinv.linalg import structure
from convpinv.linalg.solvers import conjugate_gradients, krylov
from convpinv.linalg.solvers.krylov import Krylov
from convpinv.testing import random_images


def shake(size: int = 25) -> torch.Tensor:
    """A camera-shake kernel: a smooth path drawn with a pen of one pixel."""
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    path = torch.stack([12 + 9 * (t - 0.5) + 3 * torch.sin(5 * t), 12 + 8 * torch.sin(2.2 * t - 1.1)])
    grid = torch.arange(size, dtype=torch.float64)
    rows = torch.exp(-0.5 * ((grid[:, None] - path[0]) / 0.8) ** 2)
    columns = torch.exp(-0.5 * ((grid[:, None] - path[1]) / 0.8) ** 2)
    kernel = rows @ columns.mT
    return kernel / kernel.sum()


@pytest.mark.parametrize(("damp_squared", "most"), [(1e-2, 25), (1e-3, 45)])
def test_valid_motion_256(damp_squared: float, most: int) -> None:
    operator = Conv2dOperator(shake()[None, None], (256, 256))
    y = random_images(operator.out_shape, operator, batch=1)
    solution = operator.pinv(damp=damp_squared**0.5, solver="krylov", tol=1e-9).solve(y)
    assert solution.status is Status.CONVERGED
    assert solution.residual <= 1e-9
    assert solution.iterations <= most


@pytest.mark.parametrize(("damp_squared", "most"), [(1e-2, 25), (1e-3, 45)])
@pytest.mark.parametrize("angle", [30.0, 45.0, 77.0])
def test_valid_line_256(angle: float, damp_squared: float, most: int) -> None:
    operator = Conv2dOperator(convpinv.psf.motion(25, angle)[None, None], (256, 256))
    y = random_images(operator.out_shape, operator, batch=1)
    solution = operator.pinv(damp=damp_squared**0.5, solver="krylov", tol=1e-9).solve(y)
    assert solution.status is Status.CONVERGED
    assert solution.iterations <= most


@pytest.mark.parametrize("shape", [(9, 1), (1, 9)])
@pytest.mark.parametrize("channels", [(1, 1, 1), (3, 2, 1), (4, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_frame_along_one_axis_is_solved_exactly(
    shape: tuple[int, int],
    channels: tuple[int, int, int],
    dtype: torch.dtype,
    stride: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(krylov, "DAMP_FOR_SINGLE", math.inf)  # all of it in double precision
    inputs, outputs, groups = channels
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(outputs, inputs // groups, *shape, generator=generator, dtype=dtype)
    along = (stride, 1) if shape[1] == 1 else (1, stride)
    operator = Conv2dOperator(weight, (32, 36), stride=along, groups=groups)
    problem = operator.pinv(damp=0.1, solver="krylov").plan.problem
    system = Krylov().prepare(problem).outputs
    if system is None:
        pytest.fail("wide operators are solved on the data side")
    if system.elimination is None:
        pytest.fail("a damped valid convolution is solved by elimination")
    assert len(system.elimination.strips) == 1
    y = random_images(operator.out_shape, operator)
    found, iterations = system.correct(system.multiply(y), torch.zeros(len(y)), 100)
    assert iterations == 0
    assert (found - y).norm() <= 1e-8 * y.norm()


@pytest.mark.parametrize("channels", [(1, 1, 1), (3, 2, 1), (4, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("damp", [0.3, 0.05, 5e-3])
def test_the_frame_is_solved_to_what_is_asked(
    damp: float, stride: int, channels: tuple[int, int, int], dtype: torch.dtype
) -> None:
    inputs, outputs, groups = channels
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(outputs, inputs // groups, 5, 4, generator=generator, dtype=dtype)
    operator = Conv2dOperator(weight / weight.norm(), (21, 27), stride=stride, groups=groups)
    system = Krylov().prepare(operator.pinv(damp=damp, solver="krylov").plan.problem).outputs
    if system is None or system.elimination is None:
        pytest.fail("a wide damped valid convolution is solved by elimination on the data side")
    assert len(system.elimination.strips) == 2
    y = random_images(operator.out_shape, operator)
    y = y / y.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    for goal in (1e-2, 1e-5):
        found, _ = system.correct(y, torch.full((len(y),), goal, dtype=torch.float64), 1000)
        left = (system.multiply(found) - y).flatten(1).norm(dim=1)
        assert bool((left <= goal + 10 * system.elimination.least).all())


@pytest.mark.parametrize(("shape", "taps"), [((8, 2), (3, 2)), ((7, 1), (3, 1)), ((2, 9), (2, 4)), ((3, 3), (2, 2))])
@pytest.mark.parametrize("seed", range(4))
def test_grids_of_few_columns(shape: tuple[int, int], taps: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    operator = Conv2dOperator(torch.randn(1, 1, *taps, generator=generator, dtype=torch.float64), shape)
    y = random_images(operator.out_shape, operator)
    found = operator.pinv(damp=0.005, solver="krylov")(y)
    expected = operator.pinv(damp=0.005, solver="dense")(y)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("damp", [1e20, 1e40, 1e100])
def test_damping_beyond_single_precision(damp: float) -> None:
    operator = Conv2dOperator(torch.ones(1, 1, 3, 3, dtype=torch.float64), 20)
    y = random_images(operator.out_shape, operator)
    found = operator.pinv(damp=damp, solver="krylov")(y) * damp
    assert (found - operator.H(y) / damp).norm() <= 1e-8 * (operator.H(y) / damp).norm()


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("damp", [0.02, 1.0])
def test_corrections_in_single_precision_reach_what_double_does(
    damp: float, dtype: torch.dtype, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(3), dtype=dtype)
    operator = Conv2dOperator(weight / weight.norm(), (40, 36), padding=padding)
    scales = torch.tensor([1.0, 0.0, 1e-20, 1e12]).reshape(4, 1, 1, 1)
    y = random_images(operator.out_shape, operator, batch=4) * scales.to(dtype)
    for scale in (1.0, 1e-15, 1e15):
        scaled = Conv2dOperator(weight / weight.norm() * scale, (40, 36), padding=padding)
        pinv = scaled.pinv(damp=damp * scale, solver="krylov", tol=1e-11)
        outcome = pinv.solve(y)
        assert outcome.status is Status.CONVERGED
        assert outcome.residual <= 1e-11
        with monkeypatch.context() as patch:
            patch.setattr(krylov, "DAMP_FOR_SINGLE", math.inf)
            expected = scaled.pinv(damp=damp * scale, solver="krylov", tol=1e-11)(y)
        alone = torch.cat([pinv(picture[None]) for picture in y])
        bound = 1e-8 if torch.finfo(dtype).eps < 1e-10 else 1e-6
        for found in (outcome.value, alone):
            error = (found - expected).flatten(1).norm(dim=1)
            assert bool((error <= bound * expected.flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("wrong", [0.0, 1e6, math.nan])
def test_where_elimination_wins_nothing_iterations_go_on(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Conv2dOperator(shake()[None, None], (64, 64))
    y = random_images(operator.out_shape, operator, batch=1)
    monkeypatch.setattr(krylov.Elimination, "solve", lambda elimination, transformed, *_: (wrong * transformed, 1))
    outcome = operator.pinv(damp=0.03, solver="krylov", tol=1e-9).solve(y)
    assert outcome.status is Status.CONVERGED
    assert outcome.residual <= 1e-9


def test_agrees_with_lsmr() -> None:
    operator = Conv2dOperator(shake()[None, None], (96, 80))
    y = random_images(operator.out_shape, operator, batch=1)[0]
    damp = 1e-3**0.5

    def apply(vector: np.ndarray) -> np.ndarray:
        return operator(torch.from_numpy(vector.reshape(operator.in_shape))).numpy().ravel()

    def adjoint(vector: np.ndarray) -> np.ndarray:
        return operator.H(torch.from_numpy(vector.reshape(operator.out_shape))).numpy().ravel()

    shape = (int(np.prod(operator.out_shape)), int(np.prod(operator.in_shape)))
    linear = scipy.sparse.linalg.LinearOperator(shape, matvec=apply, rmatvec=adjoint, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    expected = scipy.sparse.linalg.lsmr(linear, y.numpy().ravel(), damp=damp, atol=1e-13, btol=1e-13, maxiter=4000)[0]
    found = operator.pinv(damp=damp, solver="krylov")(y).numpy().ravel()
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_preconditioner_pays(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(krylov, "DAMP_FOR_SINGLE", math.inf)  # corrections begin anew, and take some more
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 3, 3, generator=generator, dtype=torch.float64)
    operator = Conv2dOperator(weight, 64, stride=stride, padding=1)
    y = random_images(operator.out_shape, operator)
    solution = operator.pinv(damp=0.5, solver="krylov", tol=1e-9).solve(y)
    assert solution.status is Status.CONVERGED
    forward, back = (operator, operator.H) if structure.is_wide(operator.convolution) else (operator.H, operator)
    right = y if structure.is_wide(operator.convolution) else operator.H(y)
    system = conjugate_gradients.System(lambda u: forward(back(u)) + 0.25 * u, lambda r: r, tolerance=1e-9)
    plain = conjugate_gradients.solve(system, right, 2000)
    assert solution.iterations <= plain.iterations / 2


def test_undamped_valid_is_the_exact_pseudo_inverse() -> None:
    weight = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[0, 0, 1, 1] += 6.0
    operator = Conv2dOperator(weight, 80)
    pinv = operator.pinv(solver="krylov")
    y = random_images(operator.out_shape, operator)
    x = pinv(y)
    assert (operator(x) - y).norm() <= 1e-8 * y.norm()  # full row rank: the data are met
    assert (pinv(operator(x)) - x).norm() <= 1e-8 * x.norm()  # and x is the shortest that meets them


def test_each_picture_of_a_batch_stops_alone() -> None:
    operator = Conv2dOperator(shake()[None, None], 64)
    y = random_images(operator.out_shape, operator, batch=3)
    y[1] = 0.0
    y[2] *= 1e12
    pinv = operator.pinv(damp=0.05, solver="krylov")
    together = pinv(y)
    assert together[1].abs().max() == 0
    for index in (0, 2):
        alone = pinv(y[index])
        assert (together[index] - alone).norm() <= 1e-8 * alone.norm()


def test_single_precision_is_solved_in_double() -> None:
    weight = shake()[None, None]
    y = random_images((1, 40, 40), Conv2dOperator(weight, 64), batch=1)
    exact = Conv2dOperator(weight.float().double(), 64).pinv(damp=1e-2, solver="krylov")(y.float().double())
    single = Conv2dOperator(weight.float(), 64).pinv(damp=1e-2, solver="krylov")(y.float())
    assert single.dtype == torch.float32
    assert (single - exact).norm() <= 1e-5 * exact.norm()


def test_inconsistent_systems_are_reported() -> None:
    diagonal = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    right = torch.ones(1, 3, dtype=torch.float64)
    system = conjugate_gradients.System(lambda u: diagonal * u, lambda r: r, tolerance=1e-10)
    outcome = conjugate_gradients.solve(system, right, 5000)
    assert outcome.status is Status.STAGNATED
    assert 3**-0.5 <= outcome.residual <= 1.0  # never the runaway iterate
    consistent = conjugate_gradients.solve(system, diagonal[None] * right, 50)
    assert consistent.status is Status.CONVERGED
    assert torch.allclose(consistent.value, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))


def small_damping(dtype: torch.dtype) -> list[tuple[float, float]]:
    """Dampings relative to σ₁, and what 100·ε·(σ₁/damp) or the iteration's own accuracy allows."""
    eps = torch.finfo(dtype).eps
    floor = 1e-4 if eps > 1e-10 else 1e-6
    return [(ratio, max(100 * eps / ratio, floor)) for ratio in (1e-1, 1e-2, 1e-3, 1e-4)]


@pytest.mark.parametrize("solver", ["krylov", "dense", "fourier"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("repeated", [True, False])
def test_small_damping_is_right_or_raises(solver: str, dtype: torch.dtype, repeated: bool) -> None:
    weight = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype).repeat(3, 1, 1, 1)
    if not repeated:
        weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    mode = "circular" if solver == "fourier" else "zeros"
    operator = Conv2dOperator(weight, 8, padding=1, padding_mode=mode)
    precise = operator.to(torch.complex128 if dtype.is_complex else torch.float64)
    u, s, vh = torch.linalg.svd(precise.to_dense(), full_matrices=False)
    y, x = random_images(operator.out_shape, operator), random_images(operator.in_shape, operator)
    served = 0
    for ratio, allowed in small_damping(dtype):
        damp = float(s[0]) * ratio
        inverse = (vh.mH * torch.where(s > 1e-12 * s[0], s / (s**2 + damp**2), 0.0)) @ u.mH
        pinv = operator.pinv(damp=damp, solver=solver)
        for call, expected in (
            (pinv, y.flatten(1).to(inverse.dtype) @ inverse.mT),
            (pinv.H, x.flatten(1).to(inverse.dtype) @ inverse.conj()),
        ):
            solution = call.solve(y if call is pinv else x)
            if solution.status.is_success:
                served += 1
                assert (solution.value.flatten(1) - expected).norm() <= allowed * expected.norm(), (ratio, call)
    assert served >= 4, "the two stronger dampings at least are served"


@pytest.mark.parametrize("damp", [0.0, 0.05])
@pytest.mark.parametrize("most", [1, 3])
def test_no_more_iterations_than_are_allowed(most: int, damp: float) -> None:
    operator = Conv2dOperator(shake()[None, None], (64, 64))
    y = random_images(operator.out_shape, operator, batch=1)
    outcome = operator.pinv(damp=damp, solver="krylov", tol=1e-12, max_iter=most).solve(y)
    assert outcome.iterations <= most
    assert outcome.status is Status.MAX_ITERATIONS


@pytest.mark.parametrize("boundary", ["reflect", "replicate"])
def test_undamped_answers_are_right_or_refused(boundary: str) -> None:
    """Square operators of condition 1e3 to 1e6: a residual of 1e-10 alone left errors of 1 to 5 % unsaid."""
    told = {True: 0, False: 0}
    for seed in range(4):
        weight = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        operator = Conv2dOperator(weight, 12, padding="same", padding_mode=boundary)
        y = operator(torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(9), dtype=torch.float64))
        expected = torch.linalg.lstsq(operator.to_dense(), y.flatten()[:, None], driver="gelsd").solution.reshape(
            y.shape
        )
        outcome = operator.pinv(solver="krylov").solve(y)
        error = float((outcome.value - expected).norm() / expected.norm())
        told[outcome.status.is_success] += 1
        assert error < 1e-3 or not outcome.status.is_success, (seed, error)
    assert told[True] >= 2, told


def test_undamped_answers_in_single_precision_are_as_good() -> None:
    """The residual allowed, 1e-6, left 3 % of error here."""
    operator = Conv2dOperator(convpinv.psf.gaussian(1.2)[None, None].float(), 16)
    x = torch.randn(operator.in_shape, generator=torch.Generator().manual_seed(1))
    y = operator(x)
    expected = torch.linalg.pinv(operator.to_dense().double()) @ y.double().flatten()
    found = operator.pinv(solver="krylov")(y).double().flatten()
    assert float((found - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("seed", [50, 58])
def test_singular_values_that_count_as_zero_are_not_waited_for(seed: int) -> None:
    """Rounding to single precision leaves some that double precision sees: what belongs to them is not missing."""
    generator = torch.Generator().manual_seed(seed)
    operator = Conv2dOperator(torch.randn(1, 1, 3, 3, generator=generator), (12, 11), padding=1, padding_mode="reflect")
    y = operator(torch.randn(operator.in_shape, generator=generator))
    expected = torch.linalg.pinv(operator.to_dense().double(), rtol=3.4e-6) @ y.double().flatten()
    outcome = operator.pinv(solver="krylov").solve(y)
    assert outcome.status.is_success
    assert float((outcome.value.double().flatten() - expected).norm() / expected.norm()) < 1e-3


def test_a_budget_that_ends_says_what_is_known_of_the_error() -> None:
    profile = torch.exp(-(torch.arange(-2.0, 3.0, dtype=torch.float64) ** 2) / 4)
    operator = Conv2dOperator((profile[:, None] * profile)[None, None], (8, 10), padding=2)
    y = operator(torch.randn(3, 1, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    for most in (1000, 1200):  # the first within the second round's first system, the other within its second
        outcome = operator.pinv(solver="krylov", max_iter=most).solve(y)
        assert outcome.status is Status.INACCURATE
        assert outcome.iterations <= most
        assert 1e-4 < outcome.residual < 1e-2


def test_an_answer_whose_error_stays_too_large_is_called_inaccurate() -> None:
    """Few iterations: the residual meets its tolerance, what near-zero singular values hide does not."""
    weight = torch.randn(1, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    operator = Conv2dOperator(weight, 16, padding="same", padding_mode="reflect")
    y = operator(torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    pinv = operator.pinv(solver="krylov", max_iter=500)
    outcome = pinv.solve(y)
    assert outcome.status is convpinv.Status.INACCURATE
    assert outcome.residual > 1e-4
    with pytest.raises(convpinv.ConvergenceError, match="not to the accuracy, with an error of about"):
        pinv(y)
    # Who asks for less is given less: a loose tolerance is not overruled.
    assert operator.pinv(solver="krylov", tol=1e-3).solve(y).iterations < 200
