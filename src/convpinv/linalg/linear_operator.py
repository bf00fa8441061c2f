"""What every linear operator of this package shares: shapes, application, the adjoint, the dense matrix."""

from __future__ import annotations

import abc
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.linalg.precision import in_full_precision

# Columns of the dense matrix that are computed at once: bounds the memory of to_dense by about 64 pictures' worth.
_DENSE_CHUNK = 256


class LinearOperator(abc.ABC):
    """A linear map between pictures (C, H, W), with its adjoint.

    Subclasses give the shapes and the two maps on checked batches (B, C, H, W); everything else follows.
    """

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    @property
    @abc.abstractmethod
    def H(self) -> LinearOperator:
        """Adjoint (conjugate transpose): ⟨A x, y⟩ = ⟨x, Aᴴ y⟩."""

    @abc.abstractmethod
    def _apply(self, batch: Tensor) -> Tensor:
        """Apply to a checked batch (B, C, H, W)."""

    @property
    @abc.abstractmethod
    def _call_name(self) -> str:
        """Name by which error messages call this operator."""

    @property
    def _spreads_what_is_not_finite(self) -> bool:
        """Whether one number of an image that is not finite leaves no pixel finite of the planes that read it."""
        return False

    @property
    def each_channel_alone(self) -> bool:
        """Whether pictures of any number of channels pass, because one channel goes in and one comes out."""
        return self.in_shape[0] == self.out_shape[0] == 1

    def __call__(self, image: Tensor) -> Tensor:
        """Apply to one image (C, H, W) or to a batch (..., C, H, W)."""
        return self._through(image, self._apply)

    @in_full_precision
    def _through(self, image: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Check an image, run something on it as a batch (B, C, H, W), and give the result its layout and dtype."""
        call, name, by_result = self._call_name, "its argument", self._spreads_what_is_not_finite
        checked = arguments.images(
            call, name, image, self.in_shape, self.dtype, self.device, self.each_channel_alone, by_result
        )
        channels = self.in_shape[0]
        leading = image.shape[:-2] if self.each_channel_alone else (*image.shape[:-3], self.out_shape[0])
        if image.numel() == 0:  # an empty batch, which FFTs refuse
            return image.new_zeros(*leading, *self.out_shape[1:])
        result = run(checked.reshape(-1, channels, *image.shape[-2:]))
        if by_result:
            # A pixel a plane instead of a pass over the image, which costs up to a tenth of the two FFTs.
            arguments.finite_image(call, name, checked, result[..., 0, 0])
        return result.reshape(*leading, *result.shape[-2:]).to(image.dtype)

    def __matmul__(self, image: Tensor) -> Tensor:
        """``A @ x`` is ``A(x)``."""
        return self(image)

    @in_full_precision
    def to_dense(self) -> Tensor:
        """Matrix (prod(out_shape), prod(in_shape)) of this operator; row-major pictures. For small operators."""
        size = prod(self.in_shape)
        columns = []
        for start in range(0, size, _DENSE_CHUNK):
            stop = min(start + _DENSE_CHUNK, size)
            basis = torch.zeros(stop - start, size, dtype=self.dtype, device=self.device)
            basis[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
            columns.append(self._apply(basis.reshape(-1, *self.in_shape)).reshape(stop - start, -1))
        return torch.cat(columns).mT

    def __repr__(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({self.in_shape} → {self.out_shape}, {name}, {self.device})"
