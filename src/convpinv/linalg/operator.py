"""Conv2dOperator: what ``torch.nn.Conv2d`` does to one picture, as a linear operator."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import IntegerPair
from convpinv.linalg import clipping
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.invertible import InvertibleOperator


@final
class Conv2dOperator(InvertibleOperator):
    r"""The convolution of ``torch.nn.Conv2d``, without bias, as a linear operator on pictures of one size.

    .. math:: (A x)_{o,i,j} = \sum_{c,t,u} k_{o,c,t,u}\; \tilde x_{c,\; s_1 i - p_1 + d_1 t,\; s_2 j - p_2 + d_2 u}

    where x̃ is the picture padded as ``padding_mode`` says: a cross-correlation, as everywhere in torch.

    Parameters
    ----------
    weight : Tensor
        Kernel (Cout, Cin/groups, kH, kW); float32, float64, complex64 or complex128, on any device. Finite. One in
        float16 or bfloat16 becomes float32: the operator then is float32.
    input_size : int or (int, int)
        (H, W) of the pictures, in pixels.
    stride, dilation : int or (int, int)
        As in ``torch.nn.Conv2d``, at least 1.
    padding : int, (int, int), "same" or "valid"
        Pixels added on each side; ``"same"`` (stride 1) puts the odd pixel of an even kernel after the picture.
    groups : int
        Channel groups that do not mix.
    padding_mode : "zeros", "circular", "reflect" or "replicate"
        What is read outside the picture. ``"reflect"`` does not repeat the edge pixel.

    Raises
    ------
    ArgumentError
        One line that names the argument, what it was and what it may be: shapes that do not fit, a kernel larger
        than the padded picture, more padding than the mode allows, entries that are not finite, unknown words.

    Notes
    -----
    Applying costs what the convolution costs, by FFT where the kernel has many taps. ``A(x)`` is differentiable by
    the picture and by the weight. Where Cin = Cout = 1, ``A`` takes pictures of any number of channels and treats
    each channel alone. A float32 operator takes pictures in float16 and bfloat16 too, computes them in float32 and
    gives them back in their own dtype; ``torch.autocast`` does not reach inside.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.ones(1, 1, 3, 3), (8, 10), padding=1)
    >>> A.in_shape, A.out_shape
    ((1, 8, 10), (1, 8, 10))
    >>> x = torch.rand(1, 8, 10)
    >>> bool(torch.allclose(A(x), torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3), padding=1), atol=1e-6))
    True
    """

    def __init__(
        self,
        weight: Tensor,
        input_size: IntegerPair,
        stride: IntegerPair = 1,
        padding: IntegerPair | str = 0,
        dilation: IntegerPair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        call = "Conv2dOperator"
        weight, groups = arguments.kernel(call, weight, groups)
        outputs, inputs, height, width = weight.shape
        size = arguments.integer_pair(call, "input_size", input_size, 1)
        strides = arguments.integer_pair(call, "stride", stride, 1)
        dilations = arguments.integer_pair(call, "dilation", dilation, 1)
        mode = arguments.boundary(call, "padding_mode", padding_mode)
        pads = arguments.padding(call, padding, (height, width), strides, dilations)
        rows, columns = (
            Axis(size[k], (height, width)[k], strides[k], dilations[k], *pads[k], boundary=mode) for k in (0, 1)
        )
        rows.check(call, "rows")
        columns.check(call, "columns")
        self._wrap(Convolution(weight, Geometry(rows, columns, inputs * groups, outputs, groups)))

    @classmethod
    def _of(cls, convolution: Convolution) -> Conv2dOperator:
        """Wrap a checked convolution, whose geometry may be one that Conv2d's own arguments cannot say."""
        operator = cls.__new__(cls)
        operator._wrap(convolution)
        return operator

    def _wrap(self, convolution: Convolution) -> None:
        self.convolution = convolution
        self._is_adjoint = False
        self.in_shape = convolution.in_shape
        self.out_shape = convolution.out_shape
        self.dtype = convolution.dtype
        self.device = convolution.device

    @property
    def weight(self) -> Tensor:
        """The kernel (Cout, Cin/groups, kH, kW), shared with whoever gave it unless that one was in half precision."""
        return self.convolution.weight

    @property
    def geometry(self) -> Geometry:
        """Sizes, stride, padding, dilation, groups and boundary."""
        return self.convolution.geometry

    @staticmethod
    def from_module(module: torch.nn.Module, input_size: IntegerPair) -> Conv2dOperator | AdjointOperator:
        """Operator of a ``torch.nn.Conv2d`` or ``torch.nn.ConvTranspose2d`` on pictures of the given size.

        The bias is not part of the operator: subtract it before a pseudo-inverse. The weight is shared, not copied.

        Parameters
        ----------
        module : torch.nn.Conv2d or torch.nn.ConvTranspose2d
            The layer, with its weight, stride, padding, dilation, groups, padding mode and output padding.
        input_size : int or (int, int)
            (H, W) of the layer's input, in pixels.

        Returns
        -------
        Conv2dOperator or AdjointOperator
            The second for a transposed convolution, which is the adjoint of a convolution.

        Raises
        ------
        ArgumentError
            For any other module, and for sizes that the layer cannot take.

        Examples
        --------
        >>> import torch, convpinv
        >>> layer = torch.nn.ConvTranspose2d(4, 2, 3, stride=2, bias=False)
        >>> A = convpinv.Conv2dOperator.from_module(layer, (5, 6))
        >>> A.in_shape, A.out_shape
        ((4, 5, 6), (2, 11, 13))
        """
        call = "Conv2dOperator.from_module"
        if isinstance(getattr(module, "weight", None), torch.nn.UninitializedParameter):
            arguments.fail(call, "module", f"a {type(module).__name__} without a weight yet", "run it once first")
        if isinstance(module, torch.nn.ConvTranspose2d):
            return _transposed(call, module, arguments.integer_pair(call, "input_size", input_size, 1))
        if not isinstance(module, torch.nn.Conv2d):
            name = type(module).__name__ if isinstance(module, torch.nn.Module) else arguments.describe(module)
            arguments.fail(call, "module", name, "it may be a torch.nn.Conv2d or a torch.nn.ConvTranspose2d")
        padding = module.padding if isinstance(module.padding, str) else _pair(module.padding)
        return Conv2dOperator(
            module.weight,
            input_size,
            stride=_pair(module.stride),
            padding=padding,
            dilation=_pair(module.dilation),
            groups=module.groups,
            padding_mode=module.padding_mode,
        )

    @property
    def H(self) -> AdjointOperator:
        """Adjoint: the transposed convolution with the conjugate kernel, folded back over the boundary."""
        return AdjointOperator(self)

    def to(self, *args: torch.device | torch.dtype | str) -> Conv2dOperator:
        """Return the same operator on another device or in another dtype (arguments as for ``Tensor.to``)."""
        weight = arguments.converted_kernel("Conv2dOperator.to", self.weight, args)
        return Conv2dOperator._of(Convolution(weight, self.geometry))

    def detach(self) -> Conv2dOperator:
        """Return the same operator, cut off from the weight's gradient and from later changes of the weight."""
        return Conv2dOperator._of(self.convolution.detach())

    def clip_singular_values(self, maximum: float) -> Tensor:
        """Kernel of the same shape whose convolution has no singular value above a maximum, near the kernel given.

        Rounds of two steps: every matrix ``K(w)`` of the symbol has its singular values clipped, which is exact for a
        circular boundary and makes a kernel as large as the picture; of that the taps of the kernel's own support are
        kept (Sedghi, Gupta and Long, ICLR 2019), which may raise the norm again. The rounds are alternating projections
        between two convex sets; what still stands above after ten of them is scaled down.

        Parameters
        ----------
        maximum : float
            Largest singular value allowed, at least 0.

        Returns
        -------
        Tensor
            The kernel, of the weight's shape, dtype and device, cut off from its gradient; a copy of the weight where
            nothing was above the maximum.

        Raises
        ------
        ArgumentError
            A negative or non-finite maximum.
        ConvergenceError
            As :meth:`norm`.

        Notes
        -----
        The norm of what is returned, as rounded to its dtype, is measured in double precision: exactly for circular
        boundaries, separable kernels and small operators, else by :meth:`norm` with its error bound added. On other
        boundaries the symbol stands for the operator in the clipping; the final norm is still the operator's own.
        Not the nearest such kernel, for which the projections would have to be Dykstra's. Cost: ten decompositions
        of the whole symbol.

        Examples
        --------
        >>> import torch, convpinv
        >>> weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        >>> whole = {"input_size": 16, "padding": 1, "padding_mode": "circular"}
        >>> clipped = convpinv.Conv2dOperator(weight, **whole).clip_singular_values(1.0)
        >>> 0.9 < convpinv.Conv2dOperator(clipped, **whole).norm() <= 1.0
        True
        """
        return clipping.clip_singular_values(self.convolution, maximum)

    @property
    def _call_name(self) -> str:
        return "Conv2dOperator"

    def _apply(self, batch: Tensor) -> Tensor:
        return self.convolution._apply(batch)


@final
class AdjointOperator(InvertibleOperator):
    """Adjoint of a :class:`Conv2dOperator`; a transposed convolution of ``torch.nn`` is one.

    Examples
    --------
    >>> import torch, convpinv
    >>> A = convpinv.Conv2dOperator(torch.rand(2, 1, 3, 3), (6, 6))
    >>> A.H.in_shape == A.out_shape and A.H.H is A
    True
    """

    def __init__(self, operator: Conv2dOperator) -> None:
        self._operator = operator
        self.convolution = operator.convolution
        self._is_adjoint = True
        self.in_shape = operator.out_shape
        self.out_shape = operator.in_shape
        self.dtype = operator.dtype
        self.device = operator.device

    @property
    def H(self) -> Conv2dOperator:
        """The convolution whose adjoint this is."""
        return self._operator

    def to(self, *args: torch.device | torch.dtype | str) -> AdjointOperator:
        """Return the same operator on another device or in another dtype."""
        return self._operator.to(*args).H

    def detach(self) -> AdjointOperator:
        """Return the same operator, cut off from the weight's gradient and from its later changes."""
        return self._operator.detach().H

    @property
    def _call_name(self) -> str:
        return "Conv2dOperator.H"

    def _apply(self, batch: Tensor) -> Tensor:
        return self.convolution._apply_adjoint(batch)


def _transposed(call: str, module: torch.nn.ConvTranspose2d, size: tuple[int, int]) -> AdjointOperator:
    """Transposed convolution as the adjoint of a convolution from its output size back to its input size."""
    weight, groups = arguments.kernel(call, module.weight, module.groups)
    axes = []
    for k in (0, 1):
        stride, padding, dilation = (_pair(value)[k] for value in (module.stride, module.padding, module.dilation))
        extra, taps = _pair(module.output_padding)[k], weight.shape[2 + k]
        out_size = (size[k] - 1) * stride - 2 * padding + dilation * (taps - 1) + extra + 1
        if out_size < 1:
            arguments.fail(call, "input_size", size, f"the layer's padding of {padding} leaves no output there")
        # `padding − extra` after the picture gives back exactly the input's size, for output paddings up to dilation.
        axes.append(Axis(out_size, taps, stride, dilation, padding, padding - extra, arguments.Boundary.ZEROS))
    channels = weight.shape[1] * groups
    geometry = Geometry(axes[0], axes[1], channels, weight.shape[0], groups)
    return AdjointOperator(Conv2dOperator._of(Convolution(weight.conj(), geometry)))


def _pair(value: object) -> tuple[int, int]:
    """Torch stores what it was given, or a pair of it."""
    if isinstance(value, int):
        return value, value
    rows, columns = value  # pyright: ignore[reportGeneralTypeIssues]
    return int(rows), int(columns)
