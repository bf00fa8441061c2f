"""The restoration of a part of a picture that is too large to be restored at once.

Parts are restored as one picture would be: with one noise, strength, mean, scale and PSF (:mod:`.agreement`), and with
enough surroundings (:mod:`.reach`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging import choosing, regularization
from convpinv.imaging.agreement import Agreement, largest_power, restored_together, task_of
from convpinv.imaging.grid import GridBlur
from convpinv.imaging.inpaint import filled
from convpinv.imaging.material import Material, Unit
from convpinv.imaging.model import UNKNOWN, BlurModel, grid_length
from convpinv.imaging.report import Job
from convpinv.imaging.solving import solve_apart
from convpinv.linalg import fast_size

__all__ = ["PartRestorer", "border_gap", "window_length"]


class PartRestorer:
    """Restores parts of a picture by an agreement.

    A part is the minimiser of :func:`convpinv.deblur` for its window, at the scale and with the numbers of the whole
    picture; without the picture's border, without gaps and by a quadratic prior, the convolution with the response of
    :func:`convpinv.imaging.reach`, two transforms.

    Parameters
    ----------
    agreement
        What holds for all parts.
    device
        Where to compute.
    gap
        By how many rows and columns the grid of the whole picture exceeds it, as :func:`border_gap` tells. Windows that
        join both of its ends, of a length that :func:`window_length` returned for that, are restored with the same
        unknown strip between them.

    Examples
    --------
    >>> import torch
    >>> from convpinv import imaging
    >>> picture = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    >>> agreement = imaging.agree(picture, "gaussian:sigma=1", prior="gradient", strength=0.1, noise=0.01)
    >>> halo = agreement.reach(tolerance=0.01).halo
    >>> restorer = imaging.PartRestorer(agreement)
    >>> window = picture[0, 0, 40 - halo : 80 + halo, 40 - halo : 80 + halo].numpy()
    >>> restorer(window, inside=True)[halo:-halo, halo:-halo].shape
    (40, 40)
    """

    def __init__(self, agreement: Agreement, device: str = "cpu", gap: tuple[int, int] | None = None) -> None:
        self.agreement = agreement
        self._gap = gap
        self.device = torch.device(device)
        # What is drawn towards: darkness where there is darkness outside, as in deblur.
        dark = agreement.boundary == Boundary.ZEROS
        self._centre = tuple(0.0 if dark else mean for mean in agreement.mean)

    def prepare(self, size: tuple[int, int], dtype: Any = "float32") -> tuple[Tensor, ...]:
        """Return what serves all parts of a size (h, w) and dtype that lie inside: a filter a channel, or nothing.

        Only a quadratic prior has one: its response, as half a spectrum, as large as the window.
        """
        agreement = self.agreement
        if agreement.prior not in regularization.LINEAR:
            return ()
        found: dict[tuple[int, float], Tensor] = {}
        keys = [(channel % len(agreement.kernels), strength) for channel, strength in enumerate(agreement.strength)]
        for index, strength in keys:
            if (index, strength) not in found:
                found[index, strength] = self._filter(index, strength, size, np.dtype(dtype) == np.float64)
        return tuple(found[key] for key in keys)

    def __call__(self, window: Any, *, inside: bool, prepared: tuple[Tensor, ...] = ()) -> Any:
        """Restore one part with its surroundings.

        Parameters
        ----------
        window
            Array (h, w) or (h, w, C), floating; NaN and infinity were not seen.
        inside
            Whether all its edges are surroundings: none is the picture's border.
        prepared
            What :meth:`prepare` returned for windows of this size; made for this one alone if not given.

        Returns
        -------
        numpy.ndarray
            Of the window's shape; right in the core, its surroundings are to be thrown away.
        """
        array = np.asarray(window)
        planes = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        planes = planes[None] if array.ndim == 2 else planes.permute(2, 0, 1)
        finite = torch.isfinite(planes)
        complete = bool(finite.all())
        result = torch.empty(planes.shape, dtype=planes.dtype, device=self.device)
        periodic = inside or self.agreement.boundary == Boundary.CIRCULAR
        for channel, width in restored_together(
            self.agreement.prior, self.agreement.boundary, len(planes), len(self.agreement.kernels)
        ):
            some = slice(channel, channel + width)
            if not complete and not bool(finite[some].any()):
                # Nothing is known here: what the prior leaves of nothing is the mean.
                result[some] = torch.tensor(self.agreement.mean[some]).to(result)[:, None, None]
                continue
            seen = None if complete else finite[some]
            clipped = self._clipped(planes[some])
            if periodic and seen is None and clipped is None and self.agreement.prior in regularization.LINEAR:
                prepared = prepared or self.prepare(array.shape[:2], array.dtype)
                result[channel] = self._filtered(planes[channel], self._centre[channel], prepared[channel])
            else:
                result[some] = self._solved(planes[some], channel, seen, clipped, inside)
        array_of = result.cpu().numpy()
        return array_of[0] if array.ndim == 2 else np.moveaxis(array_of, 0, -1)

    @staticmethod
    def _filtered(plane: Tensor, mean: float, response: Tensor) -> Tensor:
        """Apply the response of a quadratic prior to a plane (h, w) as if it were periodic: two transforms."""
        spectrum = torch.fft.rfft2(plane - mean).mul_(response)
        return torch.fft.irfft2(spectrum, plane.shape).add_(mean)

    def _filter(self, index: int, strength: float, size: tuple[int, int], double: bool) -> Tensor:
        kernel = self.agreement.kernels[index]
        model = BlurModel.build(kernel.to(self.device), size, Boundary.CIRCULAR)
        # In single precision, where the rounding is far below that of the data, whose memory it shares.
        grid = GridBlur.of(model, torch.float64 if double else torch.float32)
        gain = largest_power(kernel[None])
        if self.agreement.prior == "tikhonov":
            grid.power.add_(strength * gain)
        else:
            grid.power.add_(grid.differences, alpha=strength * gain)
        return grid.transfer.conj_physical_().div_(grid.power)

    def _clipped(self, planes: Tensor) -> Tensor | None:
        low, high = self.agreement.clip
        if low is None and high is None:
            return None
        signs = torch.zeros(planes.shape, dtype=torch.int8, device=planes.device)
        if high is not None:
            signs[planes >= high] = 1
        if low is not None:
            signs[planes <= low] = -1
        return signs[None] if bool(signs.any()) else None

    def _solved(
        self, planes: Tensor, channel: int, seen: Tensor | None, clipped: Tensor | None, inside: bool
    ) -> Tensor:
        agreement, width = self.agreement, len(planes)
        some = slice(channel, channel + width)
        # Inside, what lies beyond a window's edge is not known, whatever the picture's border is.
        boundary = UNKNOWN if inside else agreement.boundary
        kernels = agreement.kernels
        own = kernels if len(kernels) in (1, width) else kernels[channel][None]
        weight = None if seen is None else seen.to(planes)[None]
        stack = planes[None] if weight is None else filled(torch.where(seen, planes, 0), weight[0])[None]  # pyright: ignore[reportArgumentType,reportCallIssue]
        if clipped is not None and seen is not None:
            clipped[0][~seen] = 0
        job = Job(
            agreement.prior,
            boundary,
            agreement.strength[channel],
            False,
            torch.finfo(planes.dtype).eps,
            None,
            None,
            finds_clipping=False,
        )
        sigma = torch.tensor(agreement.noise[some], dtype=torch.float64, device=planes.device)[None]
        material = Material(stack, own.to(planes), sigma, weight, clipped)
        # The unit scale is that of the whole picture, so that the tolerances are the same everywhere.
        centre = torch.tensor(self._centre[some], dtype=torch.float64, device=planes.device)
        scale = torch.tensor([agreement.deviation], dtype=torch.float64, device=planes.device)
        centre = centre[None, :, None, None]
        unit = Unit(
            ((stack - centre) / agreement.deviation).to(planes.dtype),
            centre,
            scale,
            torch.zeros(1, dtype=torch.bool, device=planes.device),
        )
        task = task_of(job, material, unit, None if inside else self._gap)
        units = choosing.strength_units(job, scale)
        strength = (agreement.strength[channel] * task.gain / units).clamp(*choosing.STRENGTHS)
        first = None
        if agreement.prior in regularization.DENOISERS:
            first = strength.new_tensor([agreement.first[channel] / agreement.deviation])
        restored = solve_apart(task, strength, first).planes
        return unit.in_units(restored)[0]


def border_gap(length: int, taps: int, boundary: str) -> int:
    """Return by how many pixels the periodic grid on which a picture is restored exceeds it, along one axis.

    >>> border_gap(1000, 25, "unknown"), border_gap(1000, 25, "circular")
    (24, 0)
    """
    return 0 if boundary == Boundary.CIRCULAR else grid_length(length, taps) - length


def window_length(least: int, taps: int, gap: int | None = None) -> int:
    """Return the smallest length, at least ``least``, of a window whose transforms are fast.

    With a ``gap`` the grid exceeds the window by just that: then a window that joins both ends of a picture sees the
    same unknown strip between them as the picture does. 0 is for periodic windows; None is the reach of the PSF.

    >>> window_length(101, 25), window_length(101, 25, gap=0), window_length(101, 25, gap=40)
    (104, 104, 104)
    """
    gap = taps - 1 if gap is None else gap
    grid = fast_size(least + gap)
    while (faster := fast_size(grid)) != grid:  # a larger one may be cheaper than the cheapest near a smaller one
        grid = faster
    return grid - gap
