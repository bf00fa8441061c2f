"""Conv2dOperator: what ``torch.nn.Conv2d`` does to one picture, as a linear operator."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.arguments import IntegerPair
from convpinv.linalg import svd
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.geometry import Axis, Geometry
from convpinv.linalg.linear_operator import LinearOperator
from convpinv.linalg.pinv import PinvOperator, prepare_pinv


@final
class Conv2dOperator(LinearOperator):
    r"""The convolution of ``torch.nn.Conv2d``, without bias, as a linear operator on pictures of one size.

    .. math:: (A x)_{o,i,j} = \sum_{c,t,u} k_{o,c,t,u}\; \tilde x_{c,\; s_1 i - p_1 + d_1 t,\; s_2 j - p_2 + d_2 u}

    where x̃ is the picture padded as ``padding_mode`` says: a cross-correlation, as everywhere in torch.

    Parameters
    ----------
    weight : Tensor
        Kernel (Cout, Cin/groups, kH, kW); float32, float64, complex64 or complex128, on any device. Finite.
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
    each channel alone.

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
        self.in_shape = convolution.in_shape
        self.out_shape = convolution.out_shape
        self.dtype = convolution.dtype
        self.device = convolution.device

    @property
    def weight(self) -> Tensor:
        """The kernel (Cout, Cin/groups, kH, kW), shared with whoever gave it."""
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

    def pinv(
        self,
        damp: float = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
        applications: int = 1,
    ) -> PinvOperator:
        r"""Moore-Penrose pseudo-inverse of this operator, prepared once to be applied often.

        .. math:: A^+ y = \arg\min_x \|A x - y\|^2 + \mathrm{damp}^2 \|x\|^2

        the shortest one where several x do equally well. Singular values at or below ``max(atol, rtol·σ₁)`` count as
        zero, σ₁ being the largest of the whole operator.

        Parameters
        ----------
        damp : float
            As in LSQR: the inverse of a singular value σ becomes σ/(σ² + damp²). In units of σ, at least 0.
        atol, rtol : float, optional
            Rank threshold, torch's words. Default where both are None: ``rtol = 4·ε·log2(H·W)``, with ε of the dtype;
            0 where atol is given.
        solver : "auto", "fourier", "separable", "dense" or "krylov"
            ``"auto"`` takes the first that serves at a sensible cost; :meth:`PinvOperator.explain` says which and why.
        tol : float, optional
            Relative residual at which iterations stop (default 1e-10 in double precision, 1e-6 in single). Where the
            error of the answer can be bounded by the residual, it is too: to 1000·tol in double, 10·tol in single.
        max_iter : int, optional
            Iterations before giving up (default 2000).
        applications : int
            How often you will apply it: a direct solver that is dear to prepare may pay.

        Returns
        -------
        PinvOperator
            Call it on outputs (B, Cout, H', W'); ``.H`` is its adjoint, ``.explain()`` the plan.

        Raises
        ------
        ArgumentError
            Negative or non-finite numbers, an unknown solver.
        SolverRefusedError
            The named solver cannot serve this operator; the message ends in one that can.
        ConvergenceError
            When applied: the iterations ended before their tolerance. ``.solve(y)`` returns the state instead.

        Notes
        -----
        The kernel's values are those of the moment: later changes of ``weight`` do not reach what is prepared.
        Gradients flow by y, to any order. Golub and Van Loan, *Matrix Computations*, 4th ed., section 5.5; damping
        as in Paige and Saunders, *LSQR*, ACM TOMS 8 (1982).

        Examples
        --------
        >>> import torch, convpinv
        >>> A = convpinv.Conv2dOperator(torch.tensor([[[[0.2, 0.6, 0.2]]]]), (8, 8), padding="same",
        ...                             padding_mode="circular")
        >>> x = torch.rand(1, 8, 8)
        >>> bool(torch.allclose(A.pinv()(A(x)), x, atol=1e-5))
        True
        """
        return prepare_pinv(self.convolution, damp, atol, rtol, solver, tol, max_iter, applications)

    def svdvals(self) -> Tensor:
        """Singular values of the operator, largest first; see :func:`convpinv.linalg.svd.svdvals`."""
        return svd.svdvals(self.convolution)

    def norm(self) -> float:
        """Largest singular value: the spectral norm; see :func:`convpinv.linalg.svd.svdvals`."""
        return float(self.svdvals()[0])

    def cond(self) -> float:
        """Ratio of the largest to the smallest singular value; infinite where one is 0."""
        return svd.cond(self.convolution)

    def matrix_rank(self, atol: float | None = None, rtol: float | None = None) -> int:
        """Number of singular values above ``max(atol, rtol·σ₁)``; defaults as for :meth:`pinv`."""
        return svd.matrix_rank(self.convolution, atol, rtol)

    @property
    def _call_name(self) -> str:
        return "Conv2dOperator"

    def _apply(self, batch: Tensor) -> Tensor:
        return self.convolution._apply(batch)


@final
class AdjointOperator(LinearOperator):
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
        self.in_shape = operator.out_shape
        self.out_shape = operator.in_shape
        self.dtype = operator.dtype
        self.device = operator.device

    @property
    def H(self) -> Conv2dOperator:
        """The convolution whose adjoint this is."""
        return self._operator

    def pinv(
        self,
        damp: float = 0.0,
        atol: float | None = None,
        rtol: float | None = None,
        solver: str = "auto",
        tol: float | None = None,
        max_iter: int | None = None,
        applications: int = 1,
    ) -> PinvOperator:
        """Pseudo-inverse, by ``(Aᴴ)⁺ = (A⁺)ᴴ``; arguments as for :meth:`Conv2dOperator.pinv`."""
        return self._operator.pinv(damp, atol, rtol, solver, tol, max_iter, applications).H

    def svdvals(self) -> Tensor:
        """Singular values: those of the convolution."""
        return self._operator.svdvals()

    def norm(self) -> float:
        """Largest singular value: that of the convolution."""
        return self._operator.norm()

    def cond(self) -> float:
        """Condition number: that of the convolution."""
        return self._operator.cond()

    def matrix_rank(self, atol: float | None = None, rtol: float | None = None) -> int:
        """Rank: that of the convolution."""
        return self._operator.matrix_rank(atol, rtol)

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
        return self._operator.convolution._apply_adjoint(batch)


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
