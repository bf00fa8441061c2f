"""Functions shaped like those of ``torch.nn.functional``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from convpinv import arguments
from convpinv.arguments import IntegerPair
from convpinv.linalg.kernel_batch import pinv_each
from convpinv.linalg.one_shot import solve_as_before
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
        Data (B, Cout, H', W') or (Cout, H', W'), of the weight's dtype and on its device; finite. For a batch of N
        kernels (N, Cout, H', W'), one picture a kernel, or (N, B, Cout, H', W'). In float16 or bfloat16 it is computed
        in float32.
    weight : Tensor
        Kernel (Cout, Cin/groups, kH, kW), or a batch of them (N, Cout, Cin/groups, kH, kW), ``y[n]`` to be inverted
        with ``weight[n]``; float32, float64, complex64 or complex128, or half precision, which is taken to float32.
    input_size : int or (int, int)
        (H, W) of the pictures to be found. y alone does not tell it: several sizes may give one output size.
    stride, padding, dilation, groups, padding_mode
        As in ``torch.nn.Conv2d``; the same for all kernels of a batch.
    damp, atol, rtol, solver
        As in :meth:`Conv2dOperator.pinv`.

    Returns
    -------
    Tensor
        (B, Cin, H, W) or (Cin, H, W); for a batch of kernels (N, Cin, H, W) or (N, B, Cin, H, W). Dtype and device
        of y. Where Cin = Cout = 1, y may have any number of channels, each alone.

    Raises
    ------
    ArgumentError, ConvergenceError, GradientError
        As :meth:`Conv2dOperator.pinv` and what it returns do.

    Notes
    -----
    Prepares and applies. Where one kernel serves many calls, ``Conv2dOperator(...).pinv(...)`` prepares once.
    Differentiable by y, by ``weight`` and by a ``damp`` that is a tensor, to any order. Undamped inverses of blurs
    amplify noise without bound: for pictures that were measured use ``damp``, or :func:`convpinv.deblur`.

    A batch of kernels gives what N calls give: the rank threshold is relative to the largest singular value of each
    kernel, so scaling one of them scales its own answer and no other, and ``damp`` is the same number for all. One
    solve does it for circular boundaries and separable kernels: 16 one-channel kernels at 64² in float32 took 2.1 ms
    instead of 11 ms on one CPU core, and as long as 16 calls where preparing is mostly decompositions (three channels
    and more at 64² and above). Elsewhere the kernels are taken one after the other.

    Examples
    --------
    >>> import torch, convpinv
    >>> x, weight = torch.rand(2, 3, 16, 16), torch.rand(3, 3, 5, 5)
    >>> A = convpinv.Conv2dOperator(weight, (16, 16), padding=2, padding_mode="circular")
    >>> found = convpinv.conv_pinv2d(A(x), weight, (16, 16), padding=2, padding_mode="circular")
    >>> found.shape
    torch.Size([2, 3, 16, 16])

    A blur of its own for each of five pictures:

    >>> blurs, y = torch.rand(5, 1, 1, 3, 3), torch.rand(5, 3, 16, 16)
    >>> convpinv.conv_pinv2d(y, blurs, 16, padding="same", padding_mode="circular", damp=0.1).shape
    torch.Size([5, 3, 16, 16])
    """
    call = "conv_pinv2d"
    sizes = (input_size, stride, padding, dilation, groups)
    found = solve_as_before(y, weight, sizes, (padding_mode, solver), (damp, atol, rtol))
    if found is not None:
        return found

    def convolution(kernel: Tensor) -> Conv2dOperator:
        return Conv2dOperator(kernel, input_size, stride, padding, dilation, groups, padding_mode)

    options: dict[str, Any] = {"damp": damp, "atol": atol, "rtol": rtol, "solver": solver}
    with arguments.called(call, "y"):
        if isinstance(weight, Tensor) and weight.ndim == 5:
            return pinv_each(weight, y, call, convolution, options)
        return convolution(weight).pinv(**options)(y)


def conv_pinv1d(
    y: Tensor,
    weight: Tensor,
    input_size: int,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    damp: float | Tensor = 0.0,
    atol: float | None = None,
    rtol: float | None = None,
    solver: str = "auto",
) -> Tensor:
    r"""Pseudo-inverse of ``torch.nn.functional.conv1d``: the signal that comes nearest to giving y, the shortest such.

    .. math:: A^+ y = \arg\min_x \|A x - y\|^2 + \mathrm{damp}^2 \|x\|^2

    where ``A x = conv1d(pad(x), weight, stride, dilation, groups)``, the padding being that of ``torch.nn.Conv1d``.
    It is :func:`conv_pinv2d` on pictures one row high.

    Parameters
    ----------
    y : Tensor
        Data (B, Cout, L') or (Cout, L'), of the weight's dtype and on its device; finite. For a batch of N kernels
        (N, Cout, L') or (N, B, Cout, L').
    weight : Tensor
        Kernel (Cout, Cin/groups, k), or a batch of them (N, Cout, Cin/groups, k); dtypes as for :func:`conv_pinv2d`.
    input_size : int
        L, the length of the signals to be found, in samples.
    stride, padding, dilation, groups, padding_mode
        As in ``torch.nn.Conv1d``.
    damp, atol, rtol, solver
        As in :meth:`Conv2dOperator.pinv`.

    Returns
    -------
    Tensor
        (B, Cin, L) or (Cin, L); for a batch of kernels (N, Cin, L) or (N, B, Cin, L). Dtype and device of y.

    Raises
    ------
    ArgumentError, ConvergenceError, GradientError
        As :meth:`Conv2dOperator.pinv` and what it returns do; in a kernel that does not fit, "columns" are samples.

    Notes
    -----
    Differentiable by y, by ``weight`` and by a ``damp`` that is a tensor, to any order. A kernel from one channel to
    one is always separable: exact on signals of up to 4096 samples, whatever the boundary.

    Examples
    --------
    >>> import torch, convpinv
    >>> x, weight = torch.rand(2, 1, 50, dtype=torch.float64), torch.tensor([[[1.0, 4.0, 1.0]]], dtype=torch.float64)
    >>> y = torch.nn.functional.conv1d(x, weight, padding=1)
    >>> bool(torch.allclose(convpinv.conv_pinv1d(y, weight, 50, padding=1), x))
    True
    """
    call = "conv_pinv1d"
    with arguments.called(call, "y"):
        length = arguments.single_integer(call, "input_size", input_size, 1)
        steps = (1, arguments.single_integer(call, "stride", stride, 1))
        dilations = (1, arguments.single_integer(call, "dilation", dilation, 1))
        pads = padding if isinstance(padding, str) else (0, arguments.single_integer(call, "padding", padding, 0))
        row = arguments.signal_kernel(call, weight)

        def convolution(kernel: Tensor) -> Conv2dOperator:
            return Conv2dOperator(kernel, (1, length), steps, pads, dilations, groups, padding_mode)

        options: dict[str, Any] = {"damp": damp, "atol": atol, "rtol": rtol, "solver": solver}
        if row.ndim == 5:
            first = convolution(row[0])
            pictures = arguments.signals(call, "y", y, first.out_shape, len(row), first.each_channel_alone)
            return pinv_each(row, pictures, call, convolution, options).squeeze(-2)
        operator = convolution(row)
        pictures = arguments.signals(call, "y", y, operator.out_shape, None, operator.each_channel_alone)
        return operator.pinv(**options)(pictures).squeeze(-2)
