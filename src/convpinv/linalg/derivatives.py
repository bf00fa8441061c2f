r"""Derivatives of the pseudo-inverse by the data, the weight and the damping: reverse, forward, of any order.

With ``x = P y``, the incoming gradient g, ``u = Pᴴ g``, ``r = y − A x`` and ``M = (AᴴA + damp² I)⁻¹``:

- by y: ``u``;
- by the weight, damp > 0: ``W(M g, r) − W(x, u)``, where ``W(image, output)`` is the gradient of
  ``Re⟨output, A(weight) image⟩`` by the weight;
- by the weight, damp = 0, constant rank: ``W(P u, r) − W(x, u) + W(g − Aᴴ u, Pᴴ x)`` (Golub and Pereyra, SIAM J. Numer.
  Anal. 10, 1973);
- by damp: ``−2·damp·Re⟨M g, x⟩``, with ``M = P Pᴴ`` on the range where damp = 0.

Each formula is made of the same pieces again: the pseudo-inverse, the convolution, W. So the derivative of a
derivative comes by itself, and nothing of an iteration is ever recorded. The adjoint of the pseudo-inverse is the
pseudo-inverse of the adjoint: one implementation serves both, with the two arguments of W exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv.linalg.convolution import Convolution
from convpinv.linalg.correlation import weight_gradient
from convpinv.linalg.inverse import Inverse
from convpinv.linalg.precision import in_full_precision
from convpinv.linalg.source import is_tracked, refuse_batched


class _Application(torch.autograd.Function):
    """The pseudo-inverse applied: linear in the data, and dependent on weight and damping as the head of the file says.

    What it computes is the plain tensors' affair, so weight and damping are there for their derivatives alone.
    """

    @staticmethod
    def forward(batch: Tensor, weight: Tensor | None, damp: Tensor | None, inverse: Inverse) -> Tensor:
        """Apply."""
        return inverse.run(batch)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the formulas need: nothing, where only the data are differentiated by."""
        batch, weight, damp, ctx.inverse = inputs
        ctx.set_materialize_grads(False)
        ctx.is_linear = weight is None and damp is None
        kept = (None,) * 4 if ctx.is_linear else (batch, output, weight, damp)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Adjoint state by the data; by weight and damping the formulas at the head of the file."""
        incoming, inverse = gradients[0], ctx.inverse
        if incoming is None:
            return None, None, None, None
        data, value, weight, damp = ctx.saved_tensors
        forced = apply(incoming, weight, damp, inverse.H)
        if not _asks_for_more(ctx):
            return forced, None, None, None
        return forced, *_Point(data, value, weight, damp, inverse).gradients(incoming, forced), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        """Pictures are independent: one more axis of them is a larger batch. There is one weight and one damping."""
        batch, weight, damp, inverse = inputs
        for name, dimension in zip(("weight", "damp"), in_dims[1:3], strict=True):
            if dimension is not None:
                refuse_batched(name)
        moved = batch.movedim(in_dims[0], 0)
        value = apply(moved.flatten(0, 1), weight, damp, inverse)
        return value.unflatten(0, (info.batch_size, -1)), 0


class _ForwardApplication(_Application):
    """The same with forward mode, which torch.compile would not take."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Linear in the data; by weight and damping the formulas of the backward pass, transposed."""
        data, value, weight, damp = ctx.saved_tensors
        parts = []
        if tangents[0] is not None:
            parts.append(apply(tangents[0], weight, damp, ctx.inverse))
        if tangents[1] is not None or tangents[2] is not None:
            parts.append(_Point(data, value, weight, damp, ctx.inverse).tangent(tangents[1], tangents[2]))
        return sum(parts[1:], start=parts[0])


def _asks_for_more(ctx: Any) -> bool:
    """Whether the backward pass that runs will use a gradient by weight or damping.

    ``needs_input_grad`` says what might be used, the engine what will be: a gradient by the data alone should cost one
    application, and succeed where those by the weight could not be given.
    """
    if torch.compiler.is_compiling():
        return any(ctx.needs_input_grad[1:3])
    # An edge for each tensor among the inputs, the data first.
    nodes = [node for node, _ in ctx.next_functions[1:]]
    return any(node is not None and torch._C._will_engine_execute_node(node) for node in nodes)


def apply(batch: Tensor, weight: Tensor | None, damp: Tensor | None, inverse: Inverse) -> Tensor:
    """Apply a pseudo-inverse to a batch, differentiably where that may be asked for.

    Parameters
    ----------
    batch : Tensor
        (B, C, H, W) on the side that ``inverse`` takes.
    weight, damp : Tensor or None
        :meth:`Source.tied` values to differentiate by.
    inverse : Inverse
        What was prepared.
    """
    if not is_tracked(batch, weight, damp):
        return inverse.run(batch)
    kind = _Application if torch.compiler.is_compiling() else _ForwardApplication
    value = kind.apply(batch, weight, damp, inverse)
    assert isinstance(value, Tensor)
    return value


@dataclass(frozen=True)
class _Point:
    """Where derivatives are taken: data y, value x, and the maps there, each differentiable in its turn."""

    data: Tensor
    value: Tensor
    weight: Tensor | None
    damp: Tensor | None
    inverse: Inverse

    @in_full_precision
    def gradients(self, incoming: Tensor, forced: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients by weight and damping, where ``forced`` is that by the data."""
        left, residual = incoming - self._back(forced), self.data - self._image(self.value)
        pairs = [(self.value, -forced)]
        if self._is_plain:
            resolved = left / self._squared_damp
            pairs.append((resolved, residual))
            slope = _inner(resolved, self.value)
        elif self.inverse.damp:
            # M g = P u + N² g/damp² and r = damp² (Pᴴ x + N'² y/damp²), with N = I − P A and N' = I − A P.
            resolved, returned = self._solve(torch.cat([forced, residual])).chunk(2)
            forced_value, forced_left = self._solve_back(torch.cat([self.value, left])).chunk(2)
            pairs.append((resolved, residual))
            left = left - self._back(forced_left)
            slope = _inner(forced, forced_value) + _inner(resolved + left / self._squared_damp, returned)
            pairs.append((left, forced_value + (residual - self._image(returned)) / self._squared_damp))
        else:
            forced_value = self._solve_back(self.value)
            pairs += [(self._solve(forced), residual), (left, forced_value)]
            slope = _inner(forced, forced_value)
        weight = None
        if self.weight is not None:
            # W is bilinear, and sums over the batch: one call for all pairs.
            images, outputs = (torch.cat(side) for side in zip(*pairs, strict=True))
            if self.inverse.is_adjoint:
                images, outputs = outputs, images
            weight = weight_gradient(images, outputs, self.inverse.operator.geometry)
        return weight, None if self.damp is None else -2.0 * self.damp * slope

    @in_full_precision
    def tangent(self, weight: Tensor | None, damp: Tensor | None) -> Tensor:
        """Tangent of the value for tangents of weight and damping."""
        residual = self.data - self._image(self.value)
        total = torch.zeros_like(self.value)
        if self._is_plain:
            if weight is not None:
                image, back = self._maps(weight)
                total = total + self._leave(back(residual)) / self._squared_damp - self._solve(image(self.value))
            if damp is not None:
                assert self.damp is not None
                total = total - 2.0 * self.damp * damp * self._leave(self.value) / self._squared_damp
            return total
        forced_value = self._solve_back(self.value)
        returned = self._solve(residual) if self.inverse.damp else None
        if damp is not None:
            assert self.damp is not None
            resolved = self._solve(forced_value)
            if returned is not None:
                resolved = resolved + self._leave(returned) / self._squared_damp
            total = total - 2.0 * self.damp * damp * resolved
        if weight is not None:
            image, back = self._maps(weight)
            total = total + self._solve(self._solve_back(back(residual)) - image(self.value))
            if returned is None:
                total = total + self._leave(back(forced_value))
            else:
                forced_value = forced_value + (residual - self._image(returned)) / self._squared_damp
                total = total + self._leave(self._leave(back(forced_value)))
        return total

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self.data.device

    @property
    def _is_plain(self) -> bool:
        return self.inverse.damp > 0.0 and not self.inverse.is_weakly_damped

    @property
    def _squared_damp(self) -> Tensor | float:
        return self.inverse.damp**2 if self.damp is None else self.damp.square()

    def _leave(self, batch: Tensor) -> Tensor:
        """``x − Aᴴ Pᴴ x``, which is ``x − P A x``: what the pseudo-inverse does not give back."""
        return batch - self._back(self._solve_back(batch))

    def _solve(self, batch: Tensor) -> Tensor:
        return apply(batch, self.weight, self.damp, self.inverse)

    def _solve_back(self, batch: Tensor) -> Tensor:
        return apply(batch, self.weight, self.damp, self.inverse.H)

    def _image(self, batch: Tensor) -> Tensor:
        return self._maps(self.weight)[0](batch)

    def _back(self, batch: Tensor) -> Tensor:
        return self._maps(self.weight)[1](batch)

    def _maps(self, weight: Tensor | None) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The convolution that is inverted, with the given weight, and its adjoint."""
        convolution = self.inverse.operator
        if weight is not None:
            convolution = Convolution(weight, convolution.geometry)
        maps = convolution._apply, convolution._apply_adjoint
        return (maps[1], maps[0]) if self.inverse.is_adjoint else maps


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """``Re⟨left, right⟩`` over the whole batch."""
    product = left.conj() * right
    return (product.real if product.is_complex() else product).sum()
