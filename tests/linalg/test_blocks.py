"""The solver of blocks: the laws on pictures larger than the response, its certificate, and when it is chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import convpinv
from convpinv import Conv2dOperator, SolverRefusedError
from convpinv.linalg import Solution, halo_within, sums_outside
from convpinv.linalg.solvers import block_plan, blocks
from convpinv.testing import check_adjoint, check_operator, check_penrose, random_images

# What the cut of the response may leave out of an answer in double precision, with the rounding of all else.
TOLERANCE = 1e-11
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
# Cin, Cout, groups, taps, dilation, size: even taps, sides that are prime, more outputs than inputs and fewer.
CASES = (
    (1, 1, 1, (3, 3), 1, (40, 54)),
    (1, 1, 1, (2, 4), 1, (47, 53)),
    (1, 1, 1, (3, 2), 2, (52, 47)),
    (2, 3, 1, (3, 3), 1, (29, 34)),
    (3, 2, 1, (3, 3), 1, (34, 29)),
    (4, 2, 2, (2, 3), 1, (31, 30)),
)


Case = tuple[int, int, int, tuple[int, int], int, tuple[int, int]]


def operator_of(case: Case, dtype: torch.dtype) -> Conv2dOperator:
    """One tap near a well-conditioned channel matrix and the others small: the response ends after some ten pixels."""
    inputs, outputs, groups, taps, dilation, size = case
    generator = torch.Generator().manual_seed(2)
    kind = torch.complex128 if dtype.is_complex else torch.float64
    weight = 0.02 * torch.randn(outputs, inputs // groups, *taps, generator=generator, dtype=kind)
    weight[:, :, taps[0] // 2, taps[1] // 2] += torch.eye(outputs, inputs // groups, dtype=kind)
    if groups > 1:
        weight[1, :, taps[0] // 2, taps[1] // 2] += torch.tensor([0.7, 0.5], dtype=kind)
    return Conv2dOperator(
        weight.to(dtype), size, padding="same", dilation=dilation, groups=groups, padding_mode="circular"
    )


def blur(size: int | tuple[int, int], sigma: float = 1.0, dtype: torch.dtype = torch.float32) -> Conv2dOperator:
    weight = convpinv.psf.gaussian(sigma).to(dtype)[None, None]
    return Conv2dOperator(weight, size, padding="same", padding_mode="circular")


@pytest.mark.parametrize("damp", [0.0, 0.3])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("side", [40, 192], ids=["many blocks", "one block"])
def test_agrees_with_the_whole_picture_in_double(
    side: int, dtype: torch.dtype, case: Case, damp: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks smaller than the picture read around its border, and the last ones are cut off.
    monkeypatch.setattr(block_plan, "BLOCK_SIDES", (side,))
    operator = operator_of(case, dtype)
    pinv = operator.pinv(damp=damp, solver="blocks")
    plan = block_plan.plan_blocks(pinv.plan.problem)
    assert (max(plan.counts) == 1) == (side == 192), plan.counts
    precise = operator.to(torch.complex128 if dtype.is_complex else torch.float64).pinv(damp=damp, solver="fourier")
    bound = TOLERANCE if torch.finfo(dtype).eps < 1e-10 else 5e-6
    y, x = random_images(operator.out_shape, operator, batch=3), random_images(operator.in_shape, operator, batch=3)
    for found, expected in ((pinv(y), precise(y.to(precise.dtype))), (pinv.H(x), precise.H(x.to(precise.dtype)))):
        assert found.dtype == dtype
        assert float((found - expected).norm() / expected.norm()) < bound


@pytest.mark.parametrize("damp", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_every_law_by_the_dense_matrix(dtype: torch.dtype, damp: float) -> None:
    operator = operator_of((1, 1, 1, (2, 3), 1, (28, 31)), dtype)
    check_operator(operator, operator.pinv(damp=damp, solver="blocks"), damp=damp, tol=TOLERANCE)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_penrose_and_adjoint(case: Case) -> None:
    operator = operator_of(case, torch.float64)
    pinv = operator.pinv(solver="blocks")
    check_penrose(operator, pinv, TOLERANCE)
    check_adjoint(pinv, TOLERANCE)


def test_a_broken_solver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = operator_of(CASES[0], torch.float64)
    honest = blocks.Blocks.apply

    def sabotaged(self: blocks.Blocks, state: blocks.BlockState, batch: Tensor) -> Solution:
        solution = honest(self, state, batch)
        solution.value.mul_(1.01)
        return solution

    monkeypatch.setattr(blocks.Blocks, "apply", sabotaged)
    with pytest.raises(AssertionError, match="A⁺"):
        check_penrose(operator, operator.pinv(solver="blocks"))
    with pytest.raises(AssertionError, match="⟨Ax, y⟩"):
        check_adjoint(operator.pinv(solver="blocks"))


def test_the_laws_need_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "DOUBLE_TOLERANCE", 1e-3)
    operator = operator_of(CASES[0], torch.float64)
    with pytest.raises(AssertionError, match="A⁺"):
        check_penrose(operator, operator.pinv(solver="blocks"), TOLERANCE)


@pytest.mark.parametrize("limit", [1e-2, 1e-4, 1e-6])
def test_what_is_left_out_is_what_the_plan_says(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "DOUBLE_TOLERANCE", limit)
    operator = blur((90, 101), dtype=torch.float64)
    pinv, whole = operator.pinv(damp=0.1, solver="blocks"), operator.pinv(damp=0.1, solver="fourier")
    impulse = torch.zeros(1, 90, 101, dtype=torch.float64)
    impulse[0, 40, 7] = 1.0
    norm = float(torch.fft.rfft2(whole(impulse)).abs().max())
    left_out = float((pinv(impulse) - whole(impulse)).abs().sum()) / norm
    promised = block_plan.plan_blocks(pinv.plan.problem).left_out
    assert left_out == pytest.approx(promised, rel=1e-3)
    assert promised <= limit
    assert f"at most {promised:.1e} of the norm" in pinv.explain()


# torch's own: forward mode loads decompositions that it scripts.
@pytest.mark.filterwarnings("ignore:`torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_derivatives_of_first_and_second_order(dtype: torch.dtype) -> None:
    operator = operator_of((1, 1, 1, (3, 3), 1, (24, 26)), dtype)
    weight = operator.weight.detach().requires_grad_()
    y = random_images(operator.out_shape, operator, batch=1).requires_grad_()
    damp = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def solved(weight: Tensor, y: Tensor, damp: Tensor) -> Tensor:
        operator = Conv2dOperator(weight, (24, 26), padding="same", padding_mode="circular")
        return operator.pinv(damp=damp, solver="blocks")(y)

    assert torch.autograd.gradcheck(solved, (weight, y, damp), fast_mode=True, atol=1e-5)
    assert torch.autograd.gradgradcheck(solved, (weight, y, damp), fast_mode=True, atol=1e-4)
    tangent = torch.func.jvp(lambda data: solved(weight, data, damp), (y,), (torch.ones_like(y),))[1]
    assert torch.allclose(tangent, solved(weight, torch.ones_like(y), damp))
    pinv = Conv2dOperator(weight, (24, 26), padding="same", padding_mode="circular").pinv(damp=0.4, solver="blocks")
    stack = torch.stack([y.detach(), 2 * y.detach()])
    assert torch.allclose(torch.func.vmap(pinv)(stack), torch.stack([pinv(y), 2 * pinv(y)]))


def test_strided_and_empty_batches() -> None:
    operator = blur((80, 84), dtype=torch.float64)
    pinv = operator.pinv(damp=0.5, solver="blocks")
    y = torch.rand(2, 1, 84, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mT
    assert torch.equal(pinv(y), pinv(y.contiguous()))
    assert pinv(y[:0]).shape == (0, 1, 80, 84)
    assert pinv(y[0]).shape == (1, 80, 84)


# Chosen where it is faster, and never where it would be less exact.


def test_chosen_for_large_pictures_and_awkward_sides() -> None:
    for size, solver in ((4096, "blocks"), (1024, "fourier"), (1021, "blocks"), (509, "fourier"), (2040, "fourier")):
        assert blur(size, sigma=2.0).plan(damp=0.1).solver.name == solver, size
    plan = str(blur(1021, sigma=2.0).plan(damp=0.1))
    assert "solver   Blocks (overlap-save), 1 x 1 blocks of 1152 x 1152, halo" in plan
    assert "refused  Fourier: blocks of 1152 x 1152 take less time and memory than the picture as a whole" in plan


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_plan, "LEAST_PIXELS", 1)
    monkeypatch.setattr(block_plan, "LEAST_PIXELS_AWKWARD", 1)


@pytest.mark.usefixtures("everything_is_large")
def test_the_automatic_choice_is_as_exact_as_fourier() -> None:
    operator = blur((640, 600))
    y = random_images(operator.out_shape, operator)
    pinv = operator.pinv(damp=0.2)
    assert pinv.plan.solver.name == "blocks"
    exact = blur((640, 600), dtype=torch.float64).pinv(damp=0.2, solver="fourier")(y.double())
    errors = [float((p(y) - exact).norm() / exact.norm()) for p in (pinv, operator.pinv(damp=0.2, solver="fourier"))]
    assert errors[0] < 1e-6
    assert errors[0] < 2 * errors[1] + 1e-7


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("operator", "options"),
    [
        (blur(640, dtype=torch.float64), {"damp": 0.2}),
        (blur(640), {"damp": 1e-3}),
        (blur(640), {"damp": 0.2, "rtol": 1e-3}),
        (blur(640, sigma=2.0), {}),
        (blur(640, sigma=8.0), {"damp": 0.02}),
        (Conv2dOperator(torch.ones(1, 1, 4, 4), 640, padding="same", padding_mode="circular"), {"rtol": 1e-2}),
        (Conv2dOperator(torch.rand(1, 1, 2, 2), 640, stride=2, padding_mode="circular"), {"damp": 0.5}),
    ],
    ids=["double", "weak damp", "damp and rtol", "singular", "long response", "cut", "stride"],
)
def test_not_chosen(operator: Conv2dOperator, options: dict[str, Any]) -> None:
    assert operator.plan(**options).solver.name == "fourier"


@pytest.mark.parametrize(
    ("operator", "options", "reason"),
    [
        (Conv2dOperator(torch.rand(1, 1, 3, 3), 40, padding=1), {"damp": 1.0}, "circular boundaries only"),
        (Conv2dOperator(torch.rand(1, 1, 2, 2), 40, stride=2, padding_mode="circular"), {}, "the stride is not 1"),
        (blur(12), {"damp": 1.0}, "under the 16 of the smallest block"),
        (blur(600, dtype=torch.float64), {"damp": 0.2, "atol": 0.1}, "a threshold of your own"),
        (blur(600), {"damp": 1e-3}, "damp is below 0.01 of the largest singular value"),
        (blur(600, sigma=2.0), {}, "pixels away"),
        (blur(40, sigma=2.0), {"damp": 0.1}, "lies more than 19 pixels away"),
        (Conv2dOperator(torch.rand(1, 1, 1, 300), 600, padding="same", padding_mode="circular"), {}, "longer than 256"),
        (
            Conv2dOperator(torch.tensor([[[[0.2, 1.0, 0.2]]]]), 64, padding="same", padding_mode="circular"),
            {"rtol": 0.5},
            "may lie below the rank threshold",
        ),
    ],
)
def test_named_it_says_why_not(operator: Conv2dOperator, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(SolverRefusedError, match=f"Blocks refuses: .*{reason}.*; solver='.*' serves"):
        operator.pinv(solver="blocks", **options)


def test_unprepared_plan_says_why_not() -> None:
    assert "refused when it prepares" in str(blur(40, sigma=2.0).plan(damp=0.1, solver="blocks"))


def test_sums_outside_squares() -> None:
    response = torch.rand(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = torch.minimum(torch.arange(16), 16 - torch.arange(16))
    rings = torch.maximum(distance[:, None], distance)
    expected = [float(response[rings > halo].sum()) for halo in range(9)]
    assert sums_outside(response.clone()).tolist() == pytest.approx(expected)


def test_the_grid_grows_until_the_response_ends_within_a_quarter() -> None:
    asked: list[int] = []

    def sums(size: int) -> Tensor:
        asked.append(size)
        return 0.9 ** torch.arange(size // 2 + 1, dtype=torch.float64)

    halo, left = halo_within(sums, support=3, limit=1e-6, largest=1024)
    assert (halo, asked) == (132, [256, 1024])
    assert 0.9e-6 < left <= 1e-6
    assert halo_within(sums, support=3, limit=1e-6, largest=100)[0] == 100
    assert halo_within(sums, support=200, limit=1e-2, largest=1024)[0] == 44
    assert asked[-1] == 1024
