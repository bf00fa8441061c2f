"""Projections on the null space and on the range: the laws that make them projections, and the dense matrix."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import convpinv
from convpinv import AdjointOperator, Conv2dOperator
from convpinv.testing import conv2d_operators, random_images

CUT = 1e-6


def kernel(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=dtype)


def check(operator: Conv2dOperator | AdjointOperator, tolerance: float = 1e-8) -> None:
    x, x2 = random_images(operator.in_shape, operator)
    y, y2 = random_images(operator.out_shape, operator, seed=1)
    pinv = operator.pinv(rtol=CUT)
    unseen, seen = pinv.project_null(x), pinv.project_range(y)
    assert torch.allclose(unseen, operator.project_null(x, rtol=CUT), atol=tolerance)
    assert torch.allclose(seen, operator.project_range(y, rtol=CUT), atol=tolerance)
    assert torch.allclose(pinv.project_null(unseen), unseen, atol=tolerance)  # idempotent
    assert torch.allclose(pinv.project_range(seen), seen, atol=tolerance)
    for left, right, projected, project in ((x, x2, unseen, pinv.project_null), (y, y2, seen, pinv.project_range)):
        first = torch.vdot(projected.flatten(), right.flatten())  # self-adjoint
        second = torch.vdot(left.flatten(), project(right).flatten())
        assert abs(first - second) <= tolerance * left.norm() * right.norm()
    matrix = operator.to_dense()
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    # Directions that are cut count as null: A shrinks them to the threshold at least.
    assert operator(unseen).norm() <= (CUT * scale + tolerance) * x.norm()
    assert torch.allclose(operator.pinv(rtol=CUT)(y - seen), torch.zeros_like(x), atol=tolerance / CUT * 1e-2)
    _, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = right[values > CUT * values[0]]
    expected = x.flatten() - kept.mH @ (kept @ x.flatten())
    assert torch.allclose(unseen.flatten(), expected, atol=tolerance)


OPERATORS: dict[str, tuple[Tensor, Any, dict[str, Any]]] = {
    "circular, deficient": (kernel(1, 3, 3, 3).repeat(3, 1, 1, 1), 8, {"padding": 1, "padding_mode": "circular"}),
    "downsampling": (torch.ones(1, 1, 4, 4, dtype=torch.float64) / 16, 12, {"stride": 4}),
    "separable": (torch.ones(1, 1, 3, 5, dtype=torch.float64), (9, 10), {"padding": 1, "padding_mode": "reflect"}),
    "zeros": (kernel(2, 3, 3, 3), 8, {"padding": 1}),
    "groups": (kernel(2, 2, 3, 3), (9, 8), {"groups": 2, "padding_mode": "replicate", "padding": 1}),
    "complex": (kernel(1, 2, 3, 3, dtype=torch.complex128), 8, {}),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_projections(name: str) -> None:
    weight, size, options = OPERATORS[name]
    operator = Conv2dOperator(weight, size, **options)
    check(operator)
    check(operator.H)


@given(conv2d_operators())
@settings(max_examples=60, deadline=None)
def test_any_projection(operator: Conv2dOperator) -> None:
    check(operator, 1e-7)
    check(operator.H, 1e-7)


def test_projections_by_iteration() -> None:
    operator = Conv2dOperator(kernel(1, 1, 3, 3), (14, 15))
    x = random_images(operator.in_shape, operator)
    unseen = operator.project_null(x, solver="krylov")
    assert torch.allclose(unseen, operator.project_null(x, solver="dense"), atol=1e-7)
    assert operator(unseen).norm() <= 1e-7 * x.norm()


def test_single_precision_batches_and_gradients() -> None:
    operator = Conv2dOperator(kernel(2, 1, 3, 3).float(), 8, stride=2)
    x = random_images(operator.in_shape, operator, batch=3).requires_grad_()
    unseen = operator.project_null(x)
    assert unseen.dtype == torch.float32
    assert unseen.shape == x.shape
    (gradient,) = torch.autograd.grad(unseen.square().sum() / 2, x)
    assert torch.allclose(gradient, unseen.detach(), atol=1e-4)  # self-adjoint and idempotent
    every_channel = Conv2dOperator(torch.ones(1, 1, 2, 2), 8, stride=2)
    assert every_channel.project_null(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_a_kernel_that_learns_gets_its_whole_gradient_or_an_error() -> None:
    weight = kernel(1, 1, 3, 3).requires_grad_()
    x = torch.rand(1, 8, 8, dtype=torch.float64)

    def energy(taps: Tensor) -> Tensor:
        return Conv2dOperator(taps, 8).project_null(x).square().sum()

    try:
        (gradient,) = torch.autograd.grad(energy(weight), weight)
    except convpinv.KernelGradientError:
        return
    step = kernel(1, 1, 3, 3) * 1e-5
    difference = (energy(weight.detach() + step) - energy(weight.detach() - step)) / 2
    assert float((gradient * step).sum()) == pytest.approx(float(difference), rel=1e-3)


def test_refusals() -> None:
    operator = Conv2dOperator(kernel(1, 1, 3, 3), 8)
    damped = operator.pinv(damp=0.1)
    for call, value in ((damped.project_null, torch.rand(1, 8, 8)), (damped.H.project_range, torch.rand(1, 8, 8))):
        with pytest.raises(convpinv.ArgumentError, match=r"damp is 0\.1 in this pseudo-inverse; only an undamped"):
            call(value.double())
    with pytest.raises(convpinv.ArgumentError, match=r"^project_null: x is"):
        operator.project_null(torch.rand(1, 6, 6, dtype=torch.float64))
    with pytest.raises(convpinv.ArgumentError, match=r"^project_range: y is"):
        operator.project_range(torch.rand(1, 8, 8, dtype=torch.float64))


def test_the_example_runs_and_meets_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(Path(__file__).resolve().parents[2] / "examples" / "null_space_correction.py"))
    example["main"]()
    printed = capsys.readouterr().out
    misfits = [float(number) for number in re.findall(r"‖y‖ = (\S+);", printed)]
    gains = re.findall(r"pseudo-inverse  (\S+) dB; corrected (\S+) dB", printed)
    assert len(misfits) == len(gains) == 2
    assert max(misfits) < 1e-11
    assert all(float(after) > float(before) + 1 for before, after in gains)
