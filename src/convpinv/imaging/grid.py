"""The blur on the periodic grid as factors of the spectrum: what an iteration needs, in the fewest transforms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.imaging.model import BlurModel, squared_magnitude


@dataclass(frozen=True)
class GridBlur:
    """A blur K on the grid, diagonal there: its ``transfer`` K̂, ``power`` |K̂|² and ``differences`` |D̂|².

    All on the half plane of ``rfft2``.

    What :meth:`BlurModel.blur` is as an operator, in a form that an iteration can take apart: sums are formed in the
    spectrum, and only what is needed at pixels is transformed back.
    """

    size: tuple[int, int]
    transfer: Tensor
    power: Tensor
    differences: Tensor

    @staticmethod
    def of(model: BlurModel, dtype: torch.dtype) -> GridBlur:
        """Prepare the factors in double precision, and keep them in that of the pictures."""
        height, width = model.psf.shape[-2:]
        rows, columns = (m - k for m, k in zip(model.grid, (height, width), strict=True))
        padded = torch.nn.functional.pad(model.psf.to(torch.float64), (0, columns, 0, rows))
        transfer = torch.fft.rfft2(padded.roll((-(height // 2), -(width // 2)), (-2, -1)))
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        return GridBlur(
            model.grid,
            transfer.to(complex_dtype),
            squared_magnitude(transfer).to(dtype),
            model.difference_transfer().to(dtype),
        )

    def transform(self, values: Tensor) -> Tensor:
        """Return the half spectrum of values on the grid."""
        return torch.fft.rfft2(values)

    def back(self, spectrum: Tensor) -> Tensor:
        """Return the values of a half spectrum."""
        return torch.fft.irfft2(spectrum, self.size)

    def blurred(self, spectrum: Tensor) -> Tensor:
        """Return K x at the pixels, from the spectrum of x."""
        return self.back(self.transfer * spectrum)

    def adjoint(self, values: Tensor) -> Tensor:
        """Return the spectrum of Kᴴ u, from u at the pixels."""
        return self.transform(values).mul_(self.transfer.conj())

    def describe(self) -> str:
        """Name the way of solving, for a report."""
        rows, columns = self.size
        return f"solver   alternating directions, a Fourier division by {rows} x {columns} frequencies a step"
