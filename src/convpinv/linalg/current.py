"""The pseudo-inverse of a convolution whose weight may change: prepared anew when it did, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.operator import AdjointOperator, Conv2dOperator
from convpinv.linalg.pinv import PinvOperator
from convpinv.linalg.source import is_tracked

Operator = Conv2dOperator | AdjointOperator


@final
class CurrentPinv:
    """A place for one prepared pseudo-inverse, which serves as long as weight, geometry and damping are the same.

    The weight is compared entry by entry with what was prepared for. Version counters and addresses are cheaper; they
    miss what is written through ``.data``, and take for new what a parametrization computes again. Copies and pickles
    start empty.
    """

    def __init__(self) -> None:
        self._kept: PinvOperator | None = None

    def of(self, operator: Operator, options: dict[str, Any]) -> PinvOperator:
        """Pseudo-inverse of an operator as it is now; a new one where derivatives by weight or damping may flow."""
        damp = options["damp"]
        if is_tracked(operator.convolution.weight, damp if isinstance(damp, Tensor) else None):
            return operator.pinv(**options)
        return _outside_graphs(self._kept_or_new, operator, options)  # pyright: ignore[reportCallIssue]

    def _kept_or_new(self, operator: Operator, options: dict[str, Any]) -> PinvOperator:
        number, _ = arguments.damping("pinv", options["damp"])
        if self._kept is None or not _serves(self._kept, operator, number):
            # What inference mode makes could not be met outside it.
            with torch.inference_mode(False), torch.no_grad():
                self._kept = operator.detach().pinv(**{**options, "damp": number})
        return self._kept

    def __getstate__(self) -> dict[str, None]:
        return {"_kept": None}


@torch.compiler.disable
def _outside_graphs(
    keep: Callable[[Operator, dict[str, Any]], PinvOperator], operator: Operator, options: dict[str, Any]
) -> PinvOperator:
    """Break a graph of ``torch.compile``, which would neither keep nor compare."""
    return keep(operator, options)


def _serves(kept: PinvOperator, operator: Operator, damp: float) -> bool:
    then, now = kept.plan.problem, operator.convolution
    return (
        then.regularization.damp == damp
        and then.operator.geometry == now.geometry
        and then.operator.dtype == now.dtype
        and then.operator.device == now.device
        and torch.equal(then.operator.weight, now.weight)
    )


def apply_without_bias(pinv: PinvOperator, y: Tensor, bias: Tensor | None) -> Tensor:
    """``P (y − b)``, the bias (C,) subtracted in the operator's precision."""
    if bias is None:
        return pinv(y)
    return pinv._through(y, lambda batch: pinv._apply(batch - bias.to(batch.dtype)[:, None, None]))
