"""What a preparation is made from: its values beneath the transforms of torch.func, and the derivatives back to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from convpinv import arguments

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Source:
    """A tensor that a pseudo-inverse was prepared from, and the values that it had then.

    Attributes
    ----------
    tensor : Tensor
        What gradients flow to.
    values : Tensor
        What the preparation saw.
    refusal : str or None
        Why no gradient can be given, if so.
    """

    name: str
    tensor: Tensor
    values: Tensor
    version: int | None
    refusal: str | None

    @staticmethod
    def of(name: str, tensor: Tensor, values: Tensor, refusal: str | None = None) -> Source:
        """Remember a tensor as it is now."""
        plain = arguments.beneath_transforms(tensor)
        # Tensors made in inference mode count no versions, and torch forbids to differentiate by them.
        uncounted = torch.compiler.is_compiling() or plain.is_inference()
        return Source(name, tensor, values, None if uncounted else plain._version, refusal)

    @property
    def is_differentiated(self) -> bool:
        """Whether a derivative by the tensor may be asked for."""
        return is_tracked(self.tensor)

    def tied(self) -> Tensor:
        """Return the values that were prepared for, with the derivatives of the tensor."""
        if torch.compiler.is_compiling():
            # A graph cannot raise: where check() would, the gradient is NaN.
            unchanged = (self.tensor.detach() == self.values).all() & (self.refusal is None)
            gate = torch.where(unchanged, 1.0, torch.nan).to(self.values.dtype)
            return self.values + gate * (self.tensor - self.tensor.detach())
        result = _Tie.apply(self.tensor, self)
        assert isinstance(result, Tensor)
        return result

    def check(self) -> None:
        """Raise where a derivative by the tensor would not be the one of what was prepared."""
        if self.refusal is not None:
            raise arguments.GradientError(
                f"PinvOperator: no derivative by the {self.name} is given where {self.refusal}"
            )
        plain = arguments.beneath_transforms(self.tensor)
        changed = self.version is not None and plain._version != self.version
        # What is written through .data counts no version; off the CPU the comparison would stall the stream.
        if not changed and plain.device.type == "cpu":
            changed = not torch.equal(plain.detach().to(self.values.dtype), self.values.to(plain.device))
        if changed:
            raise arguments.GradientError(
                f"PinvOperator: the {self.name} was changed after pinv(); a derivative by it needs a new pinv()"
            )


class _Tie(torch.autograd.Function):
    """The prepared values, standing for the tensor that they were taken from.

    Saving these instead of the tensor lets gradients by the data alone be taken after the tensor has changed; only a
    derivative that passes through here is refused then.
    """

    @staticmethod
    def forward(tensor: Tensor, source: Source) -> Tensor:
        """Return a copy: the values are the state's own."""
        return source.values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Source], output: Tensor) -> None:
        """Keep the source, which is no tensor."""
        ctx.source = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass on, if the tensor is still the same."""
        ctx.source.check()
        tensor = ctx.source.tensor
        return gradients[0].to(device=tensor.device, dtype=tensor.dtype), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Pass on, if the tensor is still the same."""
        ctx.source.check()
        values = ctx.source.values
        return tangents[0].to(device=values.device, dtype=values.dtype, copy=True)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Refuse: pinv() saw one tensor."""
        refuse_batched(inputs[1].name)


class _Beneath(torch.autograd.Function):
    """Runs a preparation on plain tensors: what is computed inside a transform of torch.func is wrapped by it.

    The forward pass of a node is the one place that torch promises to be beneath all transforms.
    """

    @staticmethod
    def forward(weight: Tensor, prepare: Callable[[Tensor], Any], keep: Callable[[Any], None]) -> Tensor:
        """Leave the result beside the graph."""
        keep(prepare(weight.detach().clone()))
        return weight.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        """Nothing flows: :meth:`Source.tied` carries the derivatives."""
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Nothing flows here either."""
        return tangents[0].new_zeros(())

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
        """Refuse: one preparation is for one weight."""
        refuse_batched("weight")


def beneath(weight: Tensor, prepare: Callable[[Tensor], _Result]) -> _Result:
    """Prepare from a copy of a weight's values, out of reach of autograd and of the transforms of torch.func."""
    if torch.compiler.is_compiling():
        with torch.no_grad():
            return prepare(weight.detach().clone())
    # The usual case: binding the arguments of a node alone takes 40 µs.
    if not torch._C._are_functorch_transforms_active():
        with torch.no_grad():
            return prepare(weight.detach().clone())
    results: list[_Result] = []
    _Beneath.apply(weight, prepare, results.append)  # a list itself would be taken apart, and copied
    return results[0]


def is_tracked(*tensors: Tensor | None) -> bool:
    """Whether autograd, forward mode or a transform of torch.func watches one of the tensors."""
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return True
    if torch.compiler.is_compiling():
        return False
    return any(
        arguments.beneath_transforms(tensor) is not tensor or forward_ad.unpack_dual(tensor).tangent is not None
        for tensor in given
    )


def refuse_batched(name: str) -> NoReturn:
    """Raise where vmap maps over what was prepared for."""
    arguments.fail("pinv", name, "batched by torch.func.vmap", arguments.ONE_PREPARATION)
