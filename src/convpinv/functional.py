"""Functions shaped like those of ``torch.nn.functional``."""

from __future__ import annotations

from torch import Tensor

from convpinv import arguments
from convpinv.arguments import IntegerPair
from convpinv.linalg.operator import Conv2dOperator


def conv_pinv2d(
    y: Tensor,
    weight: Tensor,
    input_size: IntegerPair,
    stride: IntegerPair = 1,
    padding: IntegerPair | str = 0,
    dilation: IntegerPair = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    damp: float | Tensor = 0.0,
    atol: float | None = None,
    rtol: float | None = None,
    solver: str = "auto",
) -> Tensor:
    r"""Pseudo-inverse of ``torch.nn.functional.conv2d``: the x that comes nearest to giving y, the shortest such.

    .. math:: A^+ y = \arg\min_x \|A x - y\|^2 + \mathrm{damp}^2 \|x\|^2

    where ``A x = conv2d(pad(x), weight, stride, dilation, groups)``, the padding being that of ``torch.nn.Conv2d``.

    Parameters
    ----------
    y : Tensor
        Data (B, Cout, H', W') or (Cout, H', W'), of the weight's dtype and on its device; finite.
    weight : Tensor
        Kernel (Cout, Cin/groups, kH, kW); float32, float64, complex64 or complex128.
    input_size : int or (int, int)
        (H, W) of the pictures to be found. y alone does not tell it: several sizes may give one output size.
    stride, padding, dilation, groups, padding_mode
        As in ``torch.nn.Conv2d``.
    damp, atol, rtol, solver
        As in :meth:`Conv2dOperator.pinv`.

    Returns
    -------
    Tensor
        (B, Cin, H, W) or (Cin, H, W), dtype and device of y.

    Raises
    ------
    ArgumentError, ConvergenceError, GradientError
        As :meth:`Conv2dOperator.pinv` and what it returns do.

    Notes
    -----
    Prepares and applies. Where one kernel serves many calls, ``Conv2dOperator(...).pinv(...)`` prepares once.
    Differentiable by y, by ``weight`` and by a ``damp`` that is a tensor, to any order. Undamped inverses of blurs
    amplify noise without bound: for pictures that were measured use ``damp``, or :func:`convpinv.deblur`.

    Examples
    --------
    >>> import torch, convpinv
    >>> x, weight = torch.rand(2, 3, 16, 16), torch.rand(3, 3, 5, 5)
    >>> A = convpinv.Conv2dOperator(weight, (16, 16), padding=2, padding_mode="circular")
    >>> found = convpinv.conv_pinv2d(A(x), weight, (16, 16), padding=2, padding_mode="circular")
    >>> found.shape
    torch.Size([2, 3, 16, 16])
    """
    with arguments.called("conv_pinv2d", "y"):
        operator = Conv2dOperator(weight, input_size, stride, padding, dilation, groups, padding_mode)
        return operator.pinv(damp=damp, atol=atol, rtol=rtol, solver=solver)(y)
