"""The plots of ``convpinv psf`` and ``convpinv inspect``, by matplotlib without a screen."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from convpinv.app.files import MissingExtraError, TargetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convpinv.imaging import Resolution

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
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = new_figure(title)
    height, width = psf.shape
    extent = (-(width // 2) - 0.5, width - width // 2 - 0.5, height - height // 2 - 0.5, -(height // 2) - 0.5)
    shown = left.imshow(psf, cmap="gray", extent=extent, interpolation="nearest")
    left.set(title="PSF", xlabel="pixels from the centre", ylabel="pixels from the centre")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.colorbar(shown, ax=left, label="share of the light")
    _transfer(figure, right, magnitude)
    return as_png(figure)


def spectrum_plot(
    values: NDArray[Any], cut: float, noise: float, magnitude: NDArray[Any], title: str, found: Resolution | None = None
) -> bytes:
    """Draw the singular values in falling order, with the rank cut and the noise, beside |transfer function|.

    Below them, if given, what a restoration resolves.
    """
    import numpy as np

    figure, axes = new_figure(title, 1 if found is None else 2)
    left, right = axes[:2]
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
    _transfer(figure, right, magnitude)
    if 0 < noise < 1:
        right.contour(*_frequencies(magnitude), magnitude, levels=[noise], colors="cyan", linewidths=0.7)
    right.set(title="|transfer function|, cyan: the noise")
    if found is not None:
        _resolution(figure, axes[2], axes[3], found)
    return as_png(figure)


def resolution_plot(found: Resolution, title: str) -> bytes:
    """Draw what a restoration resolves: its response to frequencies, and the noise over the picture or by direction."""
    rows = 1 if found.cell_map is None else 2
    figure, axes = new_figure(title, rows)
    _resolution(figure, axes[0], axes[1], found)
    if found.cell_map is not None:
        _directions(axes[2], found)
        _map(figure, axes[3], found.cell_map, "the square that one value stands for", "side, pixels", steep=True)
    return as_png(figure)


def _resolution(figure: Any, left: Any, right: Any, found: Resolution) -> None:
    shown = left.imshow(
        found.response, cmap="viridis", vmin=0, vmax=1, extent=(-0.5, 0.5, 0.5, -0.5), interpolation="nearest"
    )
    if found.response.min() < 0.5 < found.response.max():
        left.contour(*_frequencies(found.response), found.response, levels=[0.5], colors="white", linewidths=1.0)
    left.set(
        title="what comes back; white: one half",
        xlabel="cycles per pixel, across",
        ylabel="cycles per pixel, down",
    )
    figure.colorbar(shown, ax=left, label="restored share of each frequency")
    if found.noise_gain_map is None:
        _directions(right, found)
    else:
        title = f"noise of a restored pixel; far from borders {found.noise_gain:.3g}"
        _map(figure, right, found.noise_gain_map, title, "times the noise of the picture")


def _directions(axes: Any, found: Resolution) -> None:
    import numpy as np

    lengths = 0.5 / np.maximum(found.half_response, 1e-3)
    axes.plot(found.angles, lengths, color="#204a87")
    axes.set(
        title="finest lines that come back by half",
        xlabel="direction of their change, degrees counter-clockwise from horizontal",
        ylabel="width of a line, pixels",
        xlim=(0, 180),
        ylim=(0, 1.1 * float(lengths.max())),
    )
    axes.set_xticks(range(0, 181, 45))
    axes.grid(alpha=0.3)


def _map(figure: Any, axes: Any, values: NDArray[Any], title: str, label: str, *, steep: bool = False) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize

    # A few pixels must not take the whole scale; where nothing was seen, a square is as large as one likes.
    low, high = np.quantile(values, (0.01, 0.99))
    high = max(min(high, max(values.shape)) if steep else high, 1.01 * low)
    norm = LogNorm(low, high) if steep else Normalize(low, high)
    shown = axes.imshow(values, cmap="inferno", norm=norm, interpolation="nearest")
    axes.set(title=title, xlabel="columns", ylabel="rows")
    figure.colorbar(shown, ax=axes, label=label, extend="max")


def _transfer(figure: Any, axes: Any, magnitude: NDArray[Any]) -> None:
    from matplotlib.colors import LogNorm

    shown = axes.imshow(
        magnitude.clip(_FLOOR),
        cmap="magma",
        norm=LogNorm(_FLOOR, 1.0),
        extent=(-0.5, 0.5, 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set(title="|transfer function|", xlabel="cycles per pixel, across", ylabel="cycles per pixel, down")
    figure.colorbar(shown, ax=axes, label="what passes of each frequency", extend="min")


def _frequencies(plane: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the frequencies across and down of a plane with the zero frequency in the middle."""
    import numpy as np

    rows, columns = plane.shape
    return [np.arange(n) / n - (n // 2) / n for n in (columns, rows)]


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


def new_figure(title: str, rows: int = 1) -> tuple[Any, Any]:
    """Return a figure with that many rows of two axes, and the axes in reading order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no global figure list, no window system, whatever the user's settings say.
    figure = Figure(figsize=(11, 4.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(rows, 2).reshape(-1)


def as_png(figure: Any) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
