"""Every solver on every cell of the grid, against the dense oracle; and the grid itself, counted and sabotaged."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

import convpinv
from cells import (
    BOUNDARIES,
    CELLS,
    CHANNELS,
    DTYPES,
    KERNELS,
    PADDINGS,
    PRECISE_CELLS,
    SOLVERS,
    STRIDES,
    Cell,
    oracle,
)
from convpinv.linalg import Solution
from convpinv.linalg.solvers import choose
from convpinv.linalg.solvers.base import Solver
from convpinv.testing import check_adjoint, check_penrose, random_images

DAMPS = (0.0, 0.3)
# What each refusal of the grid may say. A cell that is not served gives one of these reasons; none is passed over.
REASONS = {
    "fourier": ("the DFT diagonalises circular boundaries only", "does not divide", "of a full turn"),
    # Nothing on a grid of pictures this small: test_blocks.py has pictures that are larger than the response.
    "blocks": (
        "the DFT diagonalises circular boundaries only",
        "does not divide",
        "of a full turn",
        "smallest block",
        "stride",
    ),
    "separable": ("rank 1",),
    "dense": (),
    "border": (),
    "krylov": (),
}
# Singular operators at damp = 0: the border solver has no threshold, and what lies outside the range costs ε/base².
UNDAMPED_BORDER = 1e-9
SERVING = tuple(solver for solver in SOLVERS if solver != "blocks")


def bound(cell: Cell, solver: str, damp: float) -> float:
    """Relative error that rounding explains: 100·ε·κ, and at most what still tells right from wrong."""
    values = oracle(cell).values[0]
    condition = float(values / damp) if damp else oracle(cell).condition
    rounding = 100 * torch.finfo(cell.dtype).eps * max(condition, 10.0)
    # An iteration that stops at a relative residual of tol is off by up to tol·κ², in the normal equations.
    stopping = 10 * tolerance(cell) * max(condition, 10.0) ** 2 if solver == "krylov" else 0.0
    left_over = UNDAMPED_BORDER if solver == "border" and not damp else 0.0
    return min(rounding + stopping + left_over, 2e-2)


def tolerance(cell: Cell) -> float:
    """Where Krylov stops on the grid."""
    return 1e-12 if torch.finfo(cell.dtype).eps < 1e-10 else 1e-6


def compare(cell: Cell, solver: str, damp: float) -> float:
    """Largest relative error of ``P`` and ``P.H`` against the oracle; a refusal passes through as its exception."""
    operator = cell.operator()
    pinv = operator.pinv(damp=damp, solver=solver, tol=tolerance(cell) if solver == "krylov" else None)
    inverse = oracle(cell).inverse(damp)
    x, y = random_images(operator.in_shape, operator, seed=1), random_images(operator.out_shape, operator, seed=2)
    errors = []
    for ours, expected in (
        (pinv(y), y.flatten(1).to(inverse.dtype) @ inverse.mT),
        (pinv.H(x), x.flatten(1).to(inverse.dtype) @ inverse.conj()),
    ):
        assert ours.dtype == cell.dtype
        errors.append(float((ours.flatten(1) - expected).norm() / expected.norm()))
    return max(errors)


@pytest.mark.parametrize("damp", DAMPS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
def test_agrees_with_the_dense_oracle(dtype: torch.dtype, boundary: str, solver: str, damp: float) -> None:
    served = 0
    for cell in CELLS:
        if cell.dtype != dtype or cell.boundary != boundary:
            continue
        try:
            error = compare(cell, solver, damp)
        except convpinv.SolverRefusedError as refusal:
            unexplained = not any(reason in str(refusal) for reason in REASONS[solver])
            if unexplained:
                pytest.fail(f"{cell}: {refusal}")
            continue
        assert error <= bound(cell, solver, damp), f"{cell}: {error:.1e} over {bound(cell, solver, damp):.1e}"
        served += 1
    assert served == SERVED[solver](boundary), "cells served by this solver at this boundary"


# Cells that a solver serves, of the 108 of each boundary and dtype. Fourier: circular pictures whose outputs make a
# full turn (42), and the boxes whose blocks tile the picture, which no boundary touches (6). Separable: the kernels
# that are products (36), and "deficient" with one input channel, which is a single column (6).
PER_DTYPE = len(KERNELS) * len(STRIDES) * len(CHANNELS) * len(PADDINGS)
SERVED = {
    "fourier": lambda boundary: 42 if boundary == "circular" else 6,
    "blocks": lambda boundary: 0,
    "separable": lambda boundary: 42,
    "dense": lambda boundary: PER_DTYPE,
    "border": lambda boundary: PER_DTYPE,
    "krylov": lambda boundary: PER_DTYPE,
}


def test_the_grid_is_whole() -> None:
    counts = Counter((cell.boundary, cell.dtype) for cell in CELLS)
    assert set(counts) == {(boundary, dtype) for boundary in BOUNDARIES for dtype in DTYPES}
    assert set(counts.values()) == {PER_DTYPE}
    assert len(CELLS) == PER_DTYPE * len(BOUNDARIES) * len(DTYPES) == 1728
    assert set(SOLVERS) == set(choose.NAMES), "a new solver joins the grid"


def test_the_grid_holds_what_it_claims() -> None:
    ranks: Counter[str] = Counter()
    for cell in CELLS:
        values, rtol = oracle(cell).values, oracle(cell).rtol
        ranks[cell.kernel] += bool((values <= rtol * values[0]).any())
    assert ranks["null"] > 50, "exact zeros in the spectrum"
    assert ranks["deficient"] > 90, "rank-deficient channels"
    assert all(oracle(cell).gap > 2 for cell in CELLS), "no rank of the grid hangs on a rounding"


@pytest.mark.parametrize("solver", SERVING)
def test_a_broken_solver_turns_the_grid_red(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("separable", "circular", (1, 1), (1, 1, 1), "around", torch.float64)
    cell = dataclasses.replace(cell, kernel="random") if solver == "fourier" else cell
    kind = type(next(entry for entry in choose.SOLVERS if entry.name == solver))
    if solver == "fourier":
        assert compare(cell, solver, 0.0) <= bound(cell, solver, 0.0)
    honest = kind.apply

    def sabotaged(self: Solver, state: object, batch: torch.Tensor) -> Solution:
        solution = honest(self, state, batch)
        return dataclasses.replace(solution, value=solution.value * 1.01)

    monkeypatch.setattr(kind, "apply", sabotaged)
    assert compare(cell, solver, 0.0) > 100 * bound(cell, solver, 0.0)
    operator = cell.operator()
    with pytest.raises(AssertionError, match="A⁺"):
        check_penrose(operator, operator.pinv(solver=solver))
    with pytest.raises(AssertionError, match="⟨Ax, y⟩"):
        check_adjoint(operator.pinv(solver=solver))


# Krylov's laws need some twenty solves a cell: every fifth cell (coprime to all factors of the grid) is enough there,
# since each cell's values are compared with the oracle above.
PENROSE_STEP = {"fourier": 1, "separable": 1, "dense": 1, "border": 5, "krylov": 5}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("solver", SERVING)
def test_penrose_adjoint_and_scaling(solver: str, boundary: str) -> None:
    cells = [cell for cell in PRECISE_CELLS if cell.boundary == boundary][:: PENROSE_STEP[solver]]
    checked = 0
    for cell in cells:
        operator = cell.operator()
        try:
            pinv = operator.pinv(solver=solver, tol=1e-12 if solver == "krylov" else None)
        except convpinv.SolverRefusedError:
            continue  # the reason is asserted above, on the same cells
        tol = 1e-12 * oracle(cell).condition ** 2 + 1e-8
        check_adjoint(operator)
        check_adjoint(pinv, tol)
        check_penrose(operator, pinv, tol)
        y = random_images(operator.out_shape, operator, seed=3)
        expected = pinv(y)
        atol = 1e-6 * float(expected.abs().max())
        for factor in (1e-5, 1e5):
            other = cell.operator(factor).pinv(solver=solver, tol=1e-12 if solver == "krylov" else None)
            assert torch.allclose(other(y) * factor, expected, rtol=1e-5, atol=atol), (
                f"{cell}: kernel scaled by {factor}"
            )
            assert torch.allclose(pinv(y * factor) / factor, expected, rtol=1e-5, atol=atol), (
                f"{cell}: data scaled by {factor}"
            )
        checked += 1
    whole = PENROSE_STEP[solver] == 1
    assert checked == (2 * SERVED[solver](boundary) if whole else len(cells))
