"""Operators whose derivatives are tested: how a weight is made, its geometry, and who solves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator
from convpinv.testing import random_images

SIZE = (4, 5)
WEIGHTS: dict[str, Callable[..., Tensor]] = {
    "free": lambda weight: weight,
    # A perturbation of the factors stays a product: what the separable solver needs.
    "product": lambda channels, rows, columns: torch.einsum("oc,t,u->octu", channels, rows, columns),
    # All outputs alike: the rank is that of one output, and stays so.
    "repeated": lambda base: base.repeat(3, 1, 1, 1),
    # A difference along the rows: exactly zero at the frequency zero, whatever the factor.
    "difference": lambda base: torch.cat([base, -base], 2),
}


@dataclass(frozen=True)
class Case:
    """One operator of the grid: how its weight is made, its geometry, and who solves."""

    solver: str
    shape: tuple[int, int, int, int]
    options: dict[str, object]
    kind: str = "free"
    damps: tuple[float, ...] = (0.0, 0.4, 0.02)
    tol: float = 1e-13

    def __str__(self) -> str:
        words = "-".join(str(value) for value in self.options.values())
        return f"{self.solver}-{'x'.join(map(str, self.shape))}-{words}-{self.kind}"

    def parameters(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """What the weight is made of."""
        outputs, inputs, rows, columns = self.shape
        shapes = {
            "free": [self.shape],
            "product": [(outputs, inputs), (rows,), (columns,)],
            "repeated": [(outputs // 3, inputs, rows, columns)],
            "difference": [(outputs, inputs, rows // 2, columns)],
        }[self.kind]
        generator = torch.Generator().manual_seed(11)
        return tuple(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)

    def operator(self, parameters: tuple[Tensor, ...]) -> Conv2dOperator:
        return Conv2dOperator(WEIGHTS[self.kind](*parameters), SIZE, **self.options)  # pyright: ignore[reportArgumentType]


SAME = {"padding": "same"}


def inverse_of(case: Case, adjoint: bool) -> Callable[..., Tensor]:
    """The pseudo-inverse as a function of data, damping and the weight's parameters."""

    def run(data: Tensor, damp: Tensor | float, *parameters: Tensor) -> Tensor:
        pinv = case.operator(parameters).pinv(damp=damp, solver=case.solver, tol=case.tol)
        return pinv.H(data) if adjoint else pinv(data)

    return run


def arguments_of(case: Case, damp: float, adjoint: bool, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    parameters = case.parameters(dtype)
    operator = case.operator(parameters)
    data = random_images(operator.in_shape if adjoint else operator.out_shape, operator, 3, 1).requires_grad_()
    damping = torch.tensor(damp, dtype=torch.float64, requires_grad=True) if damp else 0.0
    return data, damping, *parameters
