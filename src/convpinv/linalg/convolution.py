"""The convolution as a linear map: a checked kernel on a checked geometry. This is what solvers see."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from convpinv.linalg.correlation import Correlator, fold, pad
from convpinv.linalg.geometry import Geometry
from convpinv.linalg.linear_operator import LinearOperator


@final
class Convolution(LinearOperator):
    """A kernel (Cout, Cin/G, kH, kW) on a geometry: the map, its adjoint, and nothing of pseudo-inverses.

    Everything is checked already: :class:`~convpinv.Conv2dOperator` is the door, and wraps one of these.
    """

    def __init__(self, weight: Tensor, geometry: Geometry) -> None:
        self.weight = weight
        self.geometry = geometry
        self.in_shape = geometry.in_shape
        self.out_shape = geometry.out_shape
        self.dtype = weight.dtype
        self.device = weight.device
        self._kept: tuple[int, Correlator] | None = None

    @property
    def H(self) -> AdjointConvolution:
        """Adjoint: the transposed convolution with the conjugate kernel, folded back over the boundary."""
        return AdjointConvolution(self)

    def to(self, dtype: torch.dtype) -> Convolution:
        """Return the same map in another dtype."""
        return Convolution(self.weight.to(dtype), self.geometry)

    def detach(self) -> Convolution:
        """Return the same map, cut off from the weight's gradient and from later changes of the weight."""
        return Convolution(self.weight.detach().clone(), self.geometry)

    @property
    def _call_name(self) -> str:
        return "Conv2dOperator"

    def _prepared_correlator(self) -> Correlator:
        # The kernel's transform is kept only while it can be told to be current: a kernel that learns must not meet a
        # graph that was freed, nor one that was changed in place the transform of its former values.
        # In a graph of torch.compile keeping would be a side effect; in a transform of torch.func what is computed
        # belongs to the transform and must not outlive it.
        if torch.compiler.is_compiling() or self.weight.requires_grad:
            return Correlator(self.weight, self.geometry)
        if self.weight.is_inference() or torch.is_inference_mode_enabled():
            return Correlator(self.weight, self.geometry)
        version = self.weight._version
        if self._kept is None or self._kept[0] != version:
            correlator = Correlator(self.weight, self.geometry)
            if correlator.is_transformed:
                return correlator
            self._kept = version, correlator
        return self._kept[1]

    def _apply(self, batch: Tensor) -> Tensor:
        return self._prepared_correlator().apply(pad(batch, self.geometry))

    def _apply_adjoint(self, batch: Tensor) -> Tensor:
        return fold(self._prepared_correlator().adjoint(batch), self.geometry)


@final
class AdjointConvolution(LinearOperator):
    """Adjoint of a :class:`Convolution`."""

    def __init__(self, convolution: Convolution) -> None:
        self._convolution = convolution
        self.in_shape = convolution.out_shape
        self.out_shape = convolution.in_shape
        self.dtype = convolution.dtype
        self.device = convolution.device

    @property
    def H(self) -> Convolution:
        """The convolution whose adjoint this is."""
        return self._convolution

    @property
    def _call_name(self) -> str:
        return "Conv2dOperator.H"

    def _apply(self, batch: Tensor) -> Tensor:
        return self._convolution._apply_adjoint(batch)
