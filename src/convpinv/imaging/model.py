"""How the picture came about: a blur on a grid, seen through a window.

The grid holds the picture in its upper left corner. Where the border is unknown, the grid is larger than the picture
by the reach of the PSF; as the grid is periodic, the rows above the picture are the last rows of the grid. A circular
blur on that grid, looked at in the window only, *is* the valid convolution of the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.linalg import Conv2dOperator, boundary_source, fast_size

UNKNOWN = "unknown"
# Forward differences down and to the right, as (row, column, value) about the centre.
DOWN = ((0, 0, -1.0), (1, 0, 1.0))
RIGHT = ((0, 0, -1.0), (0, 1, 1.0))


def taps_before(taps: int) -> int:
    """Return where the centre k // 2 of a PSF of k taps lies once it is flipped: k − 1 − k // 2."""
    return taps - 1 - taps // 2


@dataclass(frozen=True)
class BlurModel:
    """A blur by ``psf`` (h, w) of pictures (H, W), with the border as ``boundary`` says, on the ``grid``.

    For the loop alone ``psf`` may be (C, h, w), one a channel of pictures (C, H, W); the operators take one PSF.
    """

    psf: Tensor
    picture: tuple[int, int]
    grid: tuple[int, int]
    boundary: str

    @staticmethod
    def build(psf: Tensor, picture: tuple[int, int], boundary: str, gap: tuple[int, int] | None = None) -> BlurModel:
        """Choose the grid: the picture for a circular border, else the picture and the reach of the PSF.

        With a ``gap`` it exceeds the picture by just that, along the axes where such a grid is fast.
        """
        if boundary == Boundary.CIRCULAR:
            return BlurModel(psf, picture, picture, boundary)
        gaps = (None, None) if gap is None else gap
        rows, columns = (grid_length(n, k, g) for n, k, g in zip(picture, psf.shape[-2:], gaps, strict=True))
        return BlurModel(psf, picture, (rows, columns), boundary)

    def flipped_psf(self) -> Tensor:
        """Return the PSF as a weight (1, 1, h, w) of torch's correlation: flipped, once and here."""
        return self.psf.flip(-2, -1)[None, None]

    def blur(self) -> Conv2dOperator:
        """Return the blur on the grid, (1, grid) to (1, grid)."""
        return Conv2dOperator(self.flipped_psf(), self.grid, padding="same", padding_mode="circular")

    def camera(self) -> Conv2dOperator:
        """Return the blur as the boundary has it: scene to picture; the scene is larger if the border is unknown."""
        weight = self.flipped_psf()
        if self.boundary == UNKNOWN:
            rows, columns = (n + k - 1 for n, k in zip(self.picture, self.psf.shape, strict=True))
            return Conv2dOperator(weight, (rows, columns))
        return Conv2dOperator(weight, self.picture, padding="same", padding_mode=self.boundary)

    def camera_again(self) -> tuple[Conv2dOperator, tuple[int, int]]:
        """Return the blur of a restored picture, and at which of its pixels what is seen begins.

        Of an unknown border it is the part whose whole surroundings are in the picture.
        """
        if self.boundary != UNKNOWN:
            return self.camera(), (0, 0)
        height, width = (taps_before(k) for k in self.psf.shape)
        return Conv2dOperator(self.flipped_psf(), self.picture), (height, width)

    def seen_of_scene(self, scene: Tensor) -> Tensor:
        """Cut the picture out of the scene that :meth:`camera` looks at."""
        if self.boundary != UNKNOWN:
            return scene
        top, left = (taps_before(k) for k in self.psf.shape)
        return scene[..., top : top + self.picture[0], left : left + self.picture[1]]

    def differences(self) -> Conv2dOperator:
        """Return the two differences of a picture with a known boundary, (1, H, W) to (2, H, W); 0 across its edges.

        The border costs nothing: forward differences meet it below and at the right alone, and what they saw there (the
        step into darkness, above all) made a picture another one than its mirror image, by 0.34 of its range.
        """
        weight = self.psf.new_zeros((2, 1, 3, 3))
        for output, taps in enumerate((DOWN, RIGHT)):
            for row, column, value in taps:
                weight[output, 0, 1 + row, 1 + column] = value
        return Conv2dOperator(weight, self.picture, padding="same", padding_mode=Boundary.REPLICATE)

    @property
    def boundary_is_known(self) -> bool:
        """Whether the boundary says what lies outside the picture, on a grid that is larger than it."""
        return self.boundary not in (UNKNOWN, Boundary.CIRCULAR)

    def window(self, on_grid: Tensor) -> Tensor:
        """Cut the picture out of the grid."""
        return on_grid[..., : self.picture[0], : self.picture[1]]

    def embedded(self, picture: Tensor) -> Tensor:
        """Put a picture on the grid, zero elsewhere."""
        rows, columns = (m - n for m, n in zip(self.grid, self.picture, strict=True))
        return torch.nn.functional.pad(picture, (0, columns, 0, rows))

    def extended(self, picture: Tensor) -> Tensor:
        """Continue a picture over the grid: straight lines from each edge to the opposite one."""
        for axis in (-2, -1):
            missing = self.grid[axis] - self.picture[axis]
            if missing:
                share = torch.arange(1, missing + 1, dtype=picture.dtype, device=picture.device) / (missing + 1)
                share = share[:, None] if axis == -2 else share
                last, first = picture.narrow(axis, picture.shape[axis] - 1, 1), picture.narrow(axis, 0, 1)
                picture = torch.cat([picture, last + (first - last) * share], axis)
        return picture

    def transfer(self) -> Tensor:
        """Return |K|² at the grid's frequencies, on the half plane of ``rfft2``."""
        rows, columns = (m - k for m, k in zip(self.grid, self.psf.shape, strict=True))
        padded = torch.nn.functional.pad(self.psf.to(torch.float64), (0, columns, 0, rows))
        return squared_magnitude(torch.fft.rfft2(padded))

    def difference_transfer(self) -> Tensor:
        """Return |D|² at the same frequencies."""
        return difference_transfer(self.grid, self.psf.device)


def grid_length(length: int, taps: int, gap: int | None = None) -> int:
    """Return the length of a grid that holds a picture and the reach of its PSF, along one axis."""
    if gap is not None and gap >= taps - 1 and fast_size(length + gap) == length + gap:
        return length + gap
    return fast_size(length + taps - 1)


def squared_magnitude(spectrum: Tensor) -> Tensor:
    """Return |z|² of complex numbers; by way of ``abs`` and its root it takes half as long again."""
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


def difference_powers(grid: tuple[int, int], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return 4 sin²(ω↓/2) and 4 sin²(ω→/2), the powers of the two differences along a grid's axes, as ``rfft2``'s."""
    rows = torch.fft.fftfreq(grid[0], dtype=torch.float64, device=device)
    columns = torch.fft.rfftfreq(grid[1], dtype=torch.float64, device=device)
    return 4 * torch.sin(math.pi * rows).square(), 4 * torch.sin(math.pi * columns).square()


def difference_transfer(grid: tuple[int, int], device: torch.device | str) -> Tensor:
    """Return their sum |D|² = 4 sin²(ω↓/2) + 4 sin²(ω→/2), of a grid's half plane."""
    rows, columns = difference_powers(grid, device)
    return rows[:, None] + columns


@dataclass(frozen=True)
class BorderRule:
    """What a known boundary says about the grid outside the picture, axis by axis.

    ``source[i]`` is the row (column) of the picture that grid row (column) i repeats, −1 where it is zero, and −2
    where the blur never looks and anything goes.
    """

    rows: Tensor
    columns: Tensor

    @staticmethod
    def of(model: BlurModel) -> BorderRule | None:
        """Return the rule, or None where nothing is known (or there is nothing outside)."""
        if not model.boundary_is_known:
            return None
        rows, columns = (
            torch.tensor(_sources(n, k, m, model.boundary), device=model.psf.device)
            for n, k, m in zip(model.picture, model.psf.shape[-2:], model.grid, strict=True)
        )
        return BorderRule(rows, columns)

    def nearest(self, grid: Tensor) -> Tensor:
        """Return the grid nearest to the given one that obeys the rule: the mean of all copies of a pixel."""
        rows_free, columns_free = self.rows == -2, self.columns == -2
        result = self._averaged(self._averaged(grid, self.rows, -2), self.columns, -1)
        free = rows_free[:, None] | columns_free
        return torch.where(free, grid, result)

    @staticmethod
    def _averaged(grid: Tensor, source: Tensor, axis: int) -> Tensor:
        known = torch.nonzero(source >= 0)[:, 0]
        size = int(source.max()) + 1
        shape = list(grid.shape)
        shape[axis] = size
        total = grid.new_zeros(shape).index_add_(axis, source[known], grid.index_select(axis, known))
        count = torch.bincount(source[known], minlength=size).to(grid.dtype)
        mean = total / (count[:, None] if axis == -2 else count)
        copied = mean.index_select(axis, source.clamp(min=0))
        zero = source < 0
        return copied.masked_fill(zero[:, None] if axis == -2 else zero, 0.0)


def _sources(size: int, taps: int, grid: int, boundary: str) -> list[int]:
    """Return :class:`BorderRule`'s sources along one axis."""
    # A correlation with the flipped PSF reads this far before and after a pixel.
    before, after = taps_before(taps), taps // 2
    sources = []
    for index in range(grid):
        position = index if index < size + after else index - grid
        if position < -before:
            sources.append(-2)
        else:
            sources.append(boundary_source(position, size, Boundary(boundary)))
    return sources
