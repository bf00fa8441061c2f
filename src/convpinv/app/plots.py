"""The plots of ``convpinv psf`` and ``convpinv inspect``, by matplotlib without a screen."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from convpinv.app.console import MissingExtraError
from convpinv.app.files import TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Deeper nulls than this share one colour: below it lies the rounding of any picture.
_FLOOR = 1e-4
# No screen shows more.
_LARGEST_GRID = 2048


def check(path: str | os.PathLike[str] | None) -> None:
    """Refuse a plot, before any work, that could not be drawn or has no name for one."""
    if path is None:
        return
    if os.path.splitext(path)[1].lower() != ".png":
        raise TargetError(path, "plots are written as PNG; name it .png")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("--plot needs matplotlib: pip install 'convpinv[plot]'") from None


def psf_plot(psf: NDArray[Any], magnitude: NDArray[Any], title: str) -> bytes:
    """Draw a PSF (h, w) beside the magnitude of its transfer function (rows, columns), zero frequency in the middle."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = _figure(title)
    height, width = psf.shape
    extent = (-(width // 2) - 0.5, width - width // 2 - 0.5, height - height // 2 - 0.5, -(height // 2) - 0.5)
    shown = left.imshow(psf, cmap="gray", extent=extent, interpolation="nearest")
    left.set(title="PSF", xlabel="pixels from the centre", ylabel="pixels from the centre")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.colorbar(shown, ax=left, label="share of the light")
    shown = right.imshow(
        magnitude.clip(_FLOOR),
        cmap="magma",
        norm=LogNorm(_FLOOR, 1.0),
        extent=(-0.5, 0.5, 0.5, -0.5),
        interpolation="nearest",
    )
    right.set(title="|transfer function|", xlabel="cycles per pixel, across", ylabel="cycles per pixel, down")
    figure.colorbar(shown, ax=right, label="what passes of each frequency", extend="min")
    return _png(figure)


def spectrum_plot(values: NDArray[Any], cut: float, noise: float, magnitude: NDArray[Any], title: str) -> bytes:
    """Draw the singular values in falling order, with the rank cut and the noise, beside |transfer function|."""
    import numpy as np
    from matplotlib.colors import LogNorm

    figure, (left, right) = _figure(title)
    # A curve of millions of points looks like one of a thousand.
    index = np.unique(np.linspace(0, values.size - 1, 1000).astype(int))
    share = 100 * (index + 1) / values.size
    bottom = max(min(float(values[-1]), noise) / 3, 1e-18)
    left.semilogy(share, np.maximum(values[index], bottom), color="#204a87", label="singular values")
    if noise > 0:
        left.axhline(noise, color="#ce5c00", linestyle="--", label=f"noise {noise:.3g}")
    if cut > bottom:
        left.axhline(cut, color="#555753", linestyle=":", label=f"rank cut {cut:.2g}")
    left.set(title="what passes, frequency by frequency", xlabel="% of all frequencies", ylabel="singular value")
    left.legend(loc="lower left")
    left.grid(alpha=0.3)
    shown = right.imshow(
        magnitude.clip(_FLOOR),
        cmap="magma",
        norm=LogNorm(_FLOOR, 1.0),
        extent=(-0.5, 0.5, 0.5, -0.5),
        interpolation="nearest",
    )
    if 0 < noise < 1:
        rows, columns = magnitude.shape
        grid = [np.arange(n) / n - (n // 2) / n for n in (columns, rows)]
        right.contour(*grid, magnitude, levels=[noise], colors="cyan", linewidths=0.7)
    right.set(
        title="|transfer function|, cyan: the noise", xlabel="cycles per pixel, across", ylabel="cycles per pixel, down"
    )
    figure.colorbar(shown, ax=right, label="what passes of each frequency", extend="min")
    return _png(figure)


def transfer_magnitude(psf: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return |transfer function| of a PSF (h, w), zero frequency in the middle, on a grid of that size or 2048 at most.

    The PSF may be larger than the grid.
    """
    import numpy as np

    rows, columns = (min(length, _LARGEST_GRID) for length in size)
    padded = np.pad(psf, [(0, -psf.shape[0] % rows), (0, -psf.shape[1] % columns)])
    # At the frequencies k / rows a PSF and its copy folded modulo rows have the same transform.
    folded = padded.reshape(-1, rows, padded.shape[1] // columns, columns).sum(axis=(0, 2))
    return np.abs(np.fft.fftshift(np.fft.fft2(folded)))


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no global figure list, no window system, whatever the user's settings say.
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(1, 2)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
