"""The plot of ``convpinv deblur``: what it did to the picture, and why that much of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convpinv.app.plots import as_png, new_figure
from convpinv.app.raster import Image, size_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from convpinv.imaging import DeblurReport

# A panel is some 480 pixels wide: a crop of this many shows each of them at twice its size.
_CROP = 240
_SPECTRUM = 1024
_BINS = 100
_CHANNELS = {1: ("#204a87",), 3: ("#cc0000", "#4e9a06", "#204a87")}
# Rules that agree draw their lines on each other: both dashes are seen.
_STYLES = ((0, (6, 4)), (5, (6, 4)), (0, (2, 2)), (0, (1, 3)))
_FLOOR = 1e-5
_RULES = {"likelihood": "#5c3566", "discrepancy": "#ce5c00", "gcv": "#4e9a06", "sure": "#c4a000"}


def draw(before: Image, after: Image, report: DeblurReport, title: str) -> bytes:
    """Draw the busiest part of a picture before and after, the choice of the strength, and both spectra."""
    figure, (left, right, choice, spectra) = new_figure(f"{title}: {report.prior}, {report.boundary} border", 2)
    _crops(left, right, before, after)
    _strength(choice, report)
    _spectra(spectra, before, after, report)
    return as_png(figure)


def _crops(left: Any, right: Any, before: Image, after: Image) -> None:
    import numpy as np

    top, bottom, first, last = busiest(_grey(before.pixels), _CROP)
    windows = [image.pixels[top:bottom, first:last] for image in (before, after)]
    low, high = (0.0, 1.0) if before.is_integer else np.nanquantile(windows[0], (0.005, 0.995))
    for axes, window, name in zip((left, right), windows, ("before", "after"), strict=True):
        shown = np.clip((window - low) / max(high - low, 1e-30), 0.0, 1.0)
        axes.imshow(
            shown,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(first - 0.5, last - 0.5, bottom - 0.5, top - 0.5),
        )
        axes.set(title=f"{name}, {size_text(window.shape)} of {size_text(before.pixels.shape)} pixels")


def busiest(plane: NDArray[Any], size: int) -> tuple[int, int, int, int]:
    """Return (top, bottom, first column, last) of the window with the most change between neighbours."""
    import numpy as np

    height, width = (min(size, length) for length in plane.shape)
    change = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    change[1:-1, 1:] += np.abs(np.diff(plane, axis=0))
    change[1:, 1:-1] += np.abs(np.diff(plane, axis=1))
    total = change.cumsum(0).cumsum(1)
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(top), int(top) + height, int(left), int(left) + width


def _strength(axes: Any, report: DeblurReport) -> None:
    axes.set(title="the strength, and what other rules would take")
    chosen = _selections(report)
    if not any(len(one.candidates) > 1 for one in chosen):
        text = (
            "no strength"
            if report.strength is None
            else f"strength {_numbers(report.strength)}\n{report.strength_rule}"
        )
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, wrap=True)
        axes.set_axis_off()
        return
    import numpy as np

    colours = _CHANNELS.get(len(chosen), _CHANNELS[1] * len(chosen))
    discrepancy = chosen[0].rule == "discrepancy"
    for number, (one, colour) in enumerate(zip(chosen, colours, strict=True)):
        values = np.asarray(one.criterion)
        if not discrepancy:
            # Its zero means nothing; how far it lies above its least does, over many powers of ten.
            values = values - values.min()
            values = values.clip(_FLOOR * max(values.max(), 1e-300))
        axes.plot(
            one.candidates,
            values,
            color=colour,
            marker=".",
            markersize=4,
            linewidth=1,
            label=one.rule if len(chosen) == 1 else f"{one.rule}, channel {number + 1}",
        )
    taken = dict(zip([one.strength for one in chosen], colours, strict=True))
    for strength, colour in taken.items():
        axes.axvline(strength, color=colour if len(taken) > 1 else "black", label=f"taken: {strength:.3g}")
    if discrepancy:
        axes.axhline(1.0, color="#555753", linestyle=":", label="looked for")
    for (rule, value), style in zip(_others(chosen[0]), _STYLES, strict=False):
        axes.axvline(value, color=_RULES.get(rule, "#555753"), linestyle=style, label=f"{rule}: {value:.3g}")
    label = "misfit over noise" if discrepancy else "criterion above its least"
    axes.set(xscale="log", yscale="log", xlabel="strength: more is smoother", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _others(chosen: Any) -> list[tuple[str, float]]:
    return [(rule, value) for rule, value in chosen.alternatives.items() if rule != chosen.rule and value > 0]


def _spectra(axes: Any, before: Image, after: Image, report: DeblurReport) -> None:
    import numpy as np

    lowest = []
    for image, name, colour in ((before, "before", "#888a85"), (after, "after", "#204a87")):
        frequencies, power = radial_power(_grey(image.pixels))
        axes.semilogy(frequencies, power, color=colour, label=name)
        lowest.append(power.min())
    levels = np.atleast_1d(report.noise)
    # The mean of channels with independent noise has less of it.
    level = float(np.sqrt((levels**2).sum()) / len(levels))
    if level > 0:
        axes.axhline(level**2, color="#ce5c00", linestyle="--", label=f"noise of the picture, {_numbers(report.noise)}")
    # A restoration ends far below anything that was seen.
    axes.set_ylim(bottom=max(min(lowest), _FLOOR * max(level**2, lowest[0]), 1e-30))
    axes.set(title="spectrum, over all directions", xlabel="cycles per pixel", ylabel="power", xlim=(0, 0.5))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def radial_power(plane: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return frequencies and the mean power there, over all directions; white noise has its variance everywhere."""
    import numpy as np

    middle = [
        slice((length - min(length, _SPECTRUM)) // 2, (length + min(length, _SPECTRUM)) // 2) for length in plane.shape
    ]
    part = plane[middle[0], middle[1]]
    # Without a window that ends at zero, the jump from border to border would fill the spectrum.
    window = np.hanning(part.shape[0] + 2)[1:-1, None] * np.hanning(part.shape[1] + 2)[1:-1]
    mean = (part * window).sum() / window.sum()
    power = np.abs(np.fft.rfft2((part - mean) * window)) ** 2 / (window**2).sum()
    radius = np.hypot(np.fft.fftfreq(part.shape[0])[:, None], np.fft.rfftfreq(part.shape[1]))
    bins = max(1, min(_BINS, min(part.shape) // 2))
    index = np.minimum((radius * 2 * bins).astype(int), bins)  # the corners, beyond one half, are left out
    counts = np.bincount(index.ravel(), minlength=bins + 1)[:bins]
    sums = np.bincount(index.ravel(), power.ravel(), minlength=bins + 1)[:bins]
    filled = counts > 0
    return ((np.arange(bins) + 0.5) / (2 * bins))[filled], sums[filled] / counts[filled]


def _grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return one plane in which a pixel that was not seen has the mean of the others."""
    import numpy as np

    plane = np.asarray(pixels, dtype=np.float64)
    plane = plane if plane.ndim == 2 else plane.mean(axis=-1)
    seen = np.isfinite(plane)
    return plane if seen.all() else np.where(seen, plane, plane[seen].mean() if seen.any() else 0.0)


def _selections(report: DeblurReport) -> tuple[Any, ...]:
    """Return the receipts of the strength, once where all channels share it."""
    chosen = report.selection if isinstance(report.selection, tuple) else (report.selection,)
    curves = {(one.candidates, one.criterion) for one in chosen if one is not None}
    return tuple(one for one in chosen if one is not None)[: None if len(curves) > 1 else 1]


def _numbers(value: float | tuple[float, ...]) -> str:
    texts = [f"{one:.3g}" for one in value] if isinstance(value, tuple) else [f"{value:.3g}"]
    return ", ".join(dict.fromkeys(texts))
