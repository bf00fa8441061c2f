"""Large circular pictures, block by block: the pseudo-inverse cut off where its response has died out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import final

import torch
from torch import Tensor

from convpinv.linalg import spectrum
from convpinv.linalg.solvers.base import Problem, Solution, Solver, UnsuitableError, direct
from convpinv.linalg.solvers.block_plan import LARGEST_BLOCK, BlockPlan, plan_blocks, why_no_blocks
from convpinv.linalg.solvers.fourier import Fourier, FourierState


@dataclass(frozen=True)
class BlockState:
    """The pseudo-inverse of a block, one state a group, and how far the block reaches beyond what it answers for."""

    groups: tuple[FourierState, ...]
    halo: int


@final
class Blocks(Solver):
    """Overlap-save: each block is read with a halo, solved as a periodic picture, and its halo thrown away.

    The periodic solution of a block is wrong only as far from its edge as the response reaches. Reads wrap around the
    picture's border, as the operator does. (Oppenheim and Schafer, *Discrete-Time Signal Processing*, section 8.7.)
    """

    name = "blocks"
    title = "Blocks (overlap-save)"

    def refuses(self, problem: Problem) -> str | None:
        """Anything but stride 1 on a full turn of a periodic picture, and thresholds that would cut."""
        return why_no_blocks(problem)

    def forecast(self, problem: Problem) -> None:
        """Nothing takes less than these FFTs, where Fourier gives way to them."""

    def describe(self, problem: Problem) -> str:
        """Name the blocks, the halo, and what the halo leaves out."""
        try:
            plan = plan_blocks(problem)
        except UnsuitableError as reason:
            return f"refused when it prepares: {reason}"
        rows, columns = plan.block
        return (
            f"{plan.counts[0]} x {plan.counts[1]} blocks of {rows} x {columns}, halo {plan.halo}; what is left out is "
            f"at most {plan.left_out:.1e} of the norm; two FFTs a block to apply"
        )

    def prepare(self, problem: Problem) -> BlockState:
        """Compute the response on a small grid, cut it at the halo, and transform it on the grid of a block."""
        plan = plan_blocks(problem)
        inverse = _block_symbol(plan).to(problem.operator.dtype.to_complex())
        is_scalar = inverse.shape[1:3] == (1, 1)
        factors = inverse[:, 0, 0] if is_scalar else spectrum.matrices_of(inverse).contiguous()
        states = tuple(FourierState(factors[group : group + 1], (1, 1), plan.block) for group in range(len(factors)))
        return BlockState(states, plan.halo)

    def apply(self, state: BlockState, batch: Tensor) -> Solution:
        """Read, solve and keep the middle of each block."""
        return direct(_in_blocks(state, batch, is_adjoint=False))

    def adjoint(self, state: BlockState, batch: Tensor) -> Solution:
        """The same with the adjoint of each block: its response is as long."""
        return direct(_in_blocks(state, batch, is_adjoint=True))


def _block_symbol(plan: BlockPlan) -> Tensor:
    """Transform of the cut response on the grid of a block: (G, n, m, F_h, F_w)."""
    response = plan.response
    offsets = torch.arange(-plan.halo, plan.halo + 1, device=response.device)
    source = offsets % response.shape[-1]
    rows, columns = (offsets % side for side in plan.block)
    placed = response.new_zeros(*response.shape[:3], *plan.block)
    placed[..., rows[:, None], columns] = response[..., source[:, None], source]
    return spectrum.transform(placed)


def _in_blocks(state: BlockState, batch: Tensor, is_adjoint: bool) -> Tensor:
    solver, halo, block = Fourier(), state.halo, state.groups[0].coarse
    run = solver.adjoint if is_adjoint else solver.apply
    inverse = state.groups[0].inverse
    outputs, inputs = (1, 1) if inverse.ndim == 3 else inverse.shape[-2:]
    if is_adjoint:
        outputs, inputs = inputs, outputs
    pictures, _, *size = batch.shape
    value = batch.new_empty(pictures, outputs * len(state.groups), *size)
    steps = [side - 2 * halo for side in block]
    # Small blocks go several at a time, until together they are as many pixels as a large one.
    together = max(1, LARGEST_BLOCK**2 // (max(inputs, outputs) * block[0] * block[1]))
    places = list(product(range(pictures), range(0, size[0], steps[0]), range(0, size[1], steps[1])))
    buffer = batch.new_empty(min(together, len(places)), inputs, *block)
    for group, factors in enumerate(state.groups):
        source = batch[:, group * inputs : (group + 1) * inputs]
        target = value[:, group * outputs : (group + 1) * outputs]
        for start in range(0, len(places), together):
            part = places[start : start + together]
            for index, (picture, top, left) in enumerate(part):
                _read_around(source[picture], buffer[index], top - halo, left - halo)
            solved = run(factors, buffer[: len(part)]).value
            for index, (picture, top, left) in enumerate(part):
                place = target[picture, :, top : top + steps[0], left : left + steps[1]]
                place.copy_(solved[index, :, halo : halo + place.shape[-2], halo : halo + place.shape[-1]])
    return value


def _read_around(picture: Tensor, block: Tensor, top: int, left: int) -> None:
    """Copy a block (C, B_h, B_w) out of a periodic picture (C, H, W), from a corner that may lie outside it."""
    rows = _pieces(top, block.shape[-2], picture.shape[-2])
    columns = _pieces(left, block.shape[-1], picture.shape[-1])
    for (row, source_row, height), (column, source_column, width) in product(rows, columns):
        target = block[:, row : row + height, column : column + width]
        target.copy_(picture[:, source_row : source_row + height, source_column : source_column + width])


def _pieces(start: int, length: int, size: int) -> list[tuple[int, int, int]]:
    """Split ``length`` places of a periodic axis into runs: (place in the block, place on the axis, length)."""
    pieces = []
    done = 0
    while done < length:
        source = (start + done) % size
        run = min(length - done, size - source)
        pieces.append((done, source, run))
        done += run
    return pieces
