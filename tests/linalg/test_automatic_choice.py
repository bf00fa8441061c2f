"""The automatic choice: what takes least of what is sure to serve."""

from __future__ import annotations

import math

import pytest
import torch

import convpinv
from convpinv import Conv2dOperator
from convpinv.testing import random_images
from linalg.matrices import random, unit_operator


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Conv2dOperator(torch.rand(3, 3, 5, 5), 64, padding=2, padding_mode="circular"), "Fourier"),
        (lambda: Conv2dOperator(torch.rand(4, 2, 4, 4), 64, stride=2, padding=1, padding_mode="circular"), "Fourier"),
        (lambda: Conv2dOperator(torch.rand(2, 2, 2, 2), 64, stride=2), "Fourier"),  # blocks tile: no boundary
        (lambda: Conv2dOperator(torch.ones(1, 1, 5, 5), 200, padding=2, padding_mode="reflect"), "Separable"),
        (lambda: Conv2dOperator(torch.rand(1, 1, 3, 3), 16, padding=1), "Dense"),
        (lambda: Conv2dOperator(torch.rand(1, 1, 3, 3), 200), "Krylov"),
    ],
)
def test_automatic_choice(make, expected: str) -> None:
    text = make().pinv(damp=0.1).explain()
    assert text.startswith(f"solver   {expected}")


def test_automatic_choice_leaves_slow_decompositions_to_those_who_ask() -> None:
    operator = Conv2dOperator(torch.rand(1, 1, 3, 3), 40, padding=1)
    assert "Dense: by estimate 1.1 s for one application, " in operator.pinv(damp=0.1).explain()
    assert operator.pinv().explain().startswith("solver   Dense")  # undamped: exact is worth the wait
    assert operator.pinv(damp=0.1, rtol=1e-3).explain().startswith("solver   Dense")  # only it can cut
    tall = Conv2dOperator(torch.ones(1, 1, 3, 1), (3000, 8))
    assert "Separable: by estimate 5.9 s for one application, " in tall.pinv(damp=0.1).explain()


def test_weakly_damped_toeplitz_goes_direct_and_strongly_damped_iterates() -> None:
    operator = Conv2dOperator(torch.full((1, 1, 9, 9), 1 / 81) + 0.01 * random(1, 1, 9, 9).float(), 200)
    assert operator.plan(damp=0.1).solver.name == "krylov"
    assert operator.plan(damp=1e-5).solver.name == "border"


def test_what_is_chosen_takes_least_of_what_is_sure() -> None:
    # Well-conditioned without damping, and the symbol says so: iterating takes a fraction of factoring.
    wide = Conv2dOperator(random(2, 3, 3, 3), 160)
    assert wide.plan().solver.name == "krylov"
    assert wide.pinv().solve(random_images(wide.out_shape, wide)).status is convpinv.Status.CONVERGED
    # Many applications pay for factors, and for a decomposition.
    same = unit_operator(random(1, 1, 5, 5), 28, "zeros", 2)
    chosen = [same.plan(damp=0.03, applications=count).solver.name for count in (1, 10_000)]
    assert chosen == ["border", "dense"]
    # A few iterations are not enough of them, and nothing is left at a tolerance of 0.
    assert same.plan(damp=0.3, max_iter=3, applications=10**400).solver.name == "dense"
    assert same.plan(damp=0.3, tol=0.0).solver.name == "border"
    # Without damping a square symbol may vanish between the samples: nothing but a decomposition is sure.
    assert same.plan().solver.name == "dense"


def test_the_symbol_is_asked_on_the_side_that_is_iterated_on() -> None:
    # Fewer outputs than inputs in pixels, not in channels: K Kᴴ is singular however well-conditioned KᴴK is.
    window = torch.hann_window(13, periodic=False, dtype=torch.float64)[1:-1]
    operator = Conv2dOperator(random(2, 1, 11, 11) * torch.outer(window, window), 28)
    assert operator.plan().solver.name == "dense"
    assert operator.plan().problem.conditioning.condition == math.inf


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damp", [1e-14, 1e-9, 1e-7, 1e-5, 1e-3])
def test_the_automatic_choice_serves_weakly_damped_operators(seed: int, damp: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    channels = ((1, 2), (2, 1), (1, 1), (2, 3))[seed % 4]
    operator = Conv2dOperator(
        torch.rand(*channels, 3, 3, generator=generator, dtype=torch.float64), 14, padding=2 * (seed // 4)
    )
    damp *= float(operator.norm())
    y = random_images(operator.out_shape, operator)
    expected = operator.pinv(damp=damp, solver="dense")(y)
    assert (operator.pinv(damp=damp)(y) - expected).norm() <= 1e-6 * expected.norm()
