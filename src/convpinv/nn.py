"""Modules shaped like those of ``torch.nn``."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import IntegerPair
from convpinv.linalg.current import CurrentPinv, Operator, apply_without_bias
from convpinv.linalg.operator import Conv2dOperator

__all__ = ["ConvPinv2d"]


@final
class ConvPinv2d(torch.nn.Module):
    r"""Pseudo-inverse of a live ``torch.nn.Conv2d`` or ``torch.nn.ConvTranspose2d``, tied to its weight and bias.

    .. math:: x = A^+ (y - b)

    where the layer computes ``A x + b``. It has no weight of its own: it reads the layer's at every call.

    Parameters
    ----------
    conv : torch.nn.Conv2d or torch.nn.ConvTranspose2d
        The layer to be inverted; parametrizations (spectral normalisation, for instance) are followed.
    input_size : int or (int, int)
        (H, W) of the layer's input, in pixels: the size of what this module returns.
    damp : float or torch.nn.Parameter
        As in :meth:`Conv2dOperator.pinv`. A parameter without axes is learned; it must stay at least 0, as the
        exponential or the softplus of another one does (``torch.nn.utils.parametrize``).
    atol, rtol, solver, tol, max_iter
        As in :meth:`Conv2dOperator.pinv`.

    Raises
    ------
    ArgumentError
        When made: for another module, sizes that do not fit, a solver that refuses. When called: for data that do not
        fit, and a weight that is not finite.
    ConvergenceError, GradientError
        When called or differentiated, as :class:`~convpinv.PinvOperator` does.

    Notes
    -----
    **Shapes.** y is (B, C, H', W') or (C, H', W') as the layer gives it, the result has the layer's input shape. Dtypes
    as for :class:`~convpinv.Conv2dOperator`: half precision is computed in float32 and comes back in y's dtype, inside
    ``torch.autocast`` too.

    **When it prepares.** Where gradients by the weight or by ``damp`` may flow (grad mode is on and one of them
    requires a gradient), at every call: that is the graph. Else once, and again when weight, damping, dtype, device or
    geometry differ from what was prepared for. The weight is compared entry by entry at each call, so optimizer
    steps, ``load_state_dict``, ``.data`` and parametrizations are all noticed; on an accelerator the comparison waits
    for the stream. ``training`` plays no part. In ``torch.nn.DataParallel`` each replica prepares at each call.

    **Whose the weight is.** The layer's. ``conv`` is a submodule, so ``.to(...)``, ``.parameters()`` and
    ``copy.deepcopy`` reach it, and in a model that holds the layer elsewhere too each parameter still appears once.
    ``state_dict()`` has no key of it (only ``damp``, where that is a parameter): save the model that holds the layer.
    ``load_state_dict`` asks for none. Nothing prepared is saved, copied or pickled.

    Differentiable by y, weight, bias and damping, to any order. Cost: that of :meth:`Conv2dOperator.pinv` where it
    prepares, else that of the prepared pseudo-inverse and some 0.3 ms (measured on a CPU), the bias included.

    Examples
    --------
    >>> import torch, convpinv
    >>> encoder = torch.nn.Conv2d(3, 12, 4, stride=2, padding=1, padding_mode="circular", dtype=torch.float64)
    >>> decoder = convpinv.nn.ConvPinv2d(encoder, 32)
    >>> decoder
    ConvPinv2d(
      (12, 16, 16) → (3, 32, 32), damp=0.0, solver=fourier
      (conv): Conv2d(3, 12, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1), padding_mode=circular)
    )
    >>> x = torch.rand(5, 3, 32, 32, dtype=torch.float64)
    >>> bool(torch.allclose(decoder(encoder(x)), x))                     # 12 numbers for 12: nothing is lost
    True
    """

    def __init__(
        self,
        conv: torch.nn.Module,
        input_size: IntegerPair,
        damp: float | torch.nn.Parameter = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.input_size = input_size
        self._options: dict[str, Any] = {
            "atol": atol,
            "rtol": rtol,
            "solver": solver,
            "tol": tol,
            "max_iter": max_iter,
        }
        self._current = CurrentPinv()
        with arguments.called("ConvPinv2d", "y"):
            self.damp = arguments.fixed_or_learned("ConvPinv2d", "damp", damp)
            operator = self._operator()
            self._planned = operator.plan(**self._all_options()).solver.name
        self._shapes = f"{operator.out_shape} → {operator.in_shape}"
        self.register_state_dict_post_hook(_leave_out_conv)
        self.register_load_state_dict_pre_hook(_fill_in_conv)

    def forward(self, y: Tensor) -> Tensor:
        """``A⁺ (y − b)`` with the layer's weight and bias of this moment."""
        with arguments.called("ConvPinv2d", "y"):
            pinv = self._current.of(self._operator(), self._all_options())
            return apply_without_bias(pinv, y, self.conv.bias)  # pyright: ignore[reportArgumentType]

    def extra_repr(self) -> str:
        """Shapes, damping, and the solver that was planned when the module was made."""
        damp = "learned" if isinstance(self.damp, Tensor) else self.damp
        cut = "".join(f", {name}={self._options[name]}" for name in ("atol", "rtol") if self._options[name] is not None)
        return f"{self._shapes}, damp={damp}{cut}, solver={self._planned}"

    def _operator(self) -> Operator:
        return Conv2dOperator.from_module(self.conv, self.input_size)

    def _all_options(self) -> dict[str, Any]:
        return {"damp": self.damp, **self._options}


def _leave_out_conv(module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Take the layer's keys out of a state that was gathered: they are saved where the layer lives."""
    for key in [key for key in state if key.startswith(f"{prefix}conv.")]:
        del state[key]


def _fill_in_conv(module: torch.nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Let the layer load what it holds, where a state says nothing of it."""
    held = module.get_submodule("conv").state_dict(prefix=f"{prefix}conv.", keep_vars=True)
    for key, value in held.items():
        state.setdefault(key, value)
