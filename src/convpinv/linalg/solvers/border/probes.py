"""Whether factors serve an undamped operator: tried on pictures whose answer is known, since residuals do not tell.

A part in the null space leaves no residual, and neither does a singular value that was taken for zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from convpinv.linalg import structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.solvers.base import batch_norm
from convpinv.linalg.solvers.border.refinement import Refined

# Error of a probe beyond which factors count as useless.
PROBE_ERROR = 1e-8
# Pictures tried at once, and steps of the power iterations.
PICTURES, STEPS = 3, 4


def is_inverse(solve: Callable[[Tensor, bool], Tensor], operator: Convolution, cut: float) -> bool:
    """Tell whether ``solve(data, adjoint)`` inverts a square operator, and none of its singular values is to be cut."""
    pictures = _random(operator.in_shape, operator)
    back = solve(operator._apply(pictures), False)
    forth = solve(operator._apply_adjoint(pictures.reshape(-1, *operator.out_shape)), True).reshape(pictures.shape)
    worst = max(_error(back, pictures), _error(forth, pictures))
    if not worst <= PROBE_ERROR:
        return False
    # Power steps on the inverse find its norm to a few per cent, or less of it: never more.
    vector, growth = pictures.reshape(-1, *operator.out_shape), 0.0
    for _ in range(STEPS):
        image = solve(vector / _column(batch_norm(vector)), False)
        vector = solve(image / _column(batch_norm(image)), True)
        growth = float(batch_norm(vector).max())
    return growth * cut * _norm(operator) < 1.0


def serves_all(solve: Callable[[Tensor, bool], Refined[Tensor]], operator: Convolution, cut: float) -> bool:
    """Tell whether every singular value of an operator is either solved for or below the cut.

    What ``I − P A`` leaves of a picture, in the smaller of the two spaces, is the null space and what was dropped. If A
    sees it above the cut, something was dropped that should not have been.
    """
    wide = structure.is_wide(operator)
    shape = operator.out_shape if wide else operator.in_shape
    image, lift = operator._apply, operator._apply_adjoint
    if wide:
        image, lift = lift, image
    pictures = _random(shape, operator)
    refined = solve(image(pictures), wide)
    size = batch_norm(refined.value)
    error = refined.error / torch.where(size > 0, size, 1.0)
    if not bool((error <= PROBE_ERROR).all()):
        return False

    def dropped(vector: Tensor) -> Tensor:
        # Twice: the first time leaves the error of P on what it serves.
        for _ in range(2):
            vector = vector - solve(image(vector), wide).value
        return vector

    start, vector = pictures, dropped(pictures)
    threshold = cut * _norm(operator)
    for _ in range(STEPS):
        length = batch_norm(vector)
        # What is left of the last digits only is rounding, in all directions.
        left = length > PROBE_ERROR * batch_norm(start)
        if not bool(left.any()):
            return True
        vector = torch.where(_column(left), vector / _column(torch.where(left, length, 1.0)), 0.0)
        sight = image(vector)
        if float(batch_norm(sight).max()) >= threshold:
            return False
        # Among what was dropped, towards what is seen best.
        start = lift(sight / _column(batch_norm(sight).clamp(min=torch.finfo(torch.float64).tiny)))
        vector = dropped(start)
    return True


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def _norm(operator: Convolution) -> float:
    """Lower bound of σ₁, close to it after some power steps."""
    vector = _random(operator.in_shape, operator)
    for _ in range(2 * STEPS):
        size = batch_norm(vector)
        if not bool((size > 0).any()):
            return 1.0
        vector = vector / _column(torch.where(size > 0, size, 1.0))
        vector = operator._apply_adjoint(operator._apply(vector))
    return float(batch_norm(vector).max()) ** 0.5


def _error(found: Tensor, truth: Tensor) -> float:
    error = float((batch_norm(found - truth) / batch_norm(truth)).max())
    return error if error == error else float("inf")


def _random(shape: tuple[int, int, int], operator: Convolution) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(PICTURES, *shape, generator=generator, dtype=operator.dtype).to(operator.device)
