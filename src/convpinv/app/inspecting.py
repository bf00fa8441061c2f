"""``convpinv psf`` and ``convpinv inspect``: look at a PSF, and at what the blur it makes destroys."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import images, outputs, plots, psf_source
from convpinv.app.console import Working, row
from convpinv.app.files import TargetError
from convpinv.app.psf_source import Measurement, PsfSource
from convpinv.app.raster import Image
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from convpinv.imaging import Resolution
    from convpinv.imaging.psf import Finding

# Ten steps of ink for the drawing of a PSF in the terminal, two characters a pixel: characters are taller than wide.
_INK = " .:-=+*#%@"
_LARGEST_DRAWING = 36
# Fainter than this share of the brightest pixel is left blank.
_FAINTEST = 0.004
_PLOT_GRID = 256
# Pixels of ``--size``: more than any single photograph, and a few gigabytes of work.
_LARGEST_SIZE = 100_000_000
# What a good 8-bit photograph in fair light has.
_USUAL_NOISE = 0.01
# How much neighbouring pixels of a sharp photograph differ, as the spectra of 38 of them under a Gaussian tell: 0.04 to
# 0.22 of full scale for eight of ten.
_USUAL_CONTRAST = 0.1
# The response of larger pictures looks the same.
_LARGEST_RESPONSE = 1024
# Maps are drawn for a picture that is larger than the PSF by this, and for PSFs up to that: some seconds.
_AROUND_PSF = 40
_LARGEST_MAPPED_PSF = 64


def show_psf(text: str | Measurement, output: Path | None, plot: Path | None, overwrite: bool) -> tuple[str, ...]:
    """Describe a PSF, and write it to a file or a plot if asked.

    Parameters
    ----------
    text
        A maker's text or a file, or what is to be measured in pictures.
    output
        ``.tif`` (32-bit floating point, exact sum), ``.png`` (16 bits, scaled) or ``.npy`` (64-bit), or None.
    plot
        A PNG file for the PSF and its transfer function, or None.
    overwrite
        Whether files that exist may be replaced.

    Returns
    -------
    tuple of str
        The description, line by line.
    """
    if output is not None and output.suffix.lower() not in (".tif", ".tiff", ".png", ".npy"):
        raise TargetError(output, "a PSF is written as .tif (32-bit floating point), .png (16-bit) or .npy (64-bit)")
    plots.check(plot)
    if isinstance(text, Measurement):
        inputs = {text.option + " " * number: path for number, path in enumerate(text.paths)}
    else:
        inputs = {"the PSF": psf_source.file_of(text)}
    outputs.check_targets({"-o": output, "--plot": plot}, inputs, overwrite=overwrite)
    from convpinv.imaging import psf

    source = psf_source.measure(text) if isinstance(text, Measurement) else psf_source.load(text, "the PSF")
    found = psf.examine(source.psf)
    array = found.psf.numpy()
    lines = _description(source, array, found.findings)
    files: dict[Path, bytes] = {}
    if output is not None:
        files[output], said = _psf_file(array, output)
        lines.append(f"wrote     {output}: {said}")
    if plot is not None:
        mean = _one_plane(array)
        size = (max(_PLOT_GRID, mean.shape[0]), max(_PLOT_GRID, mean.shape[1]))
        files[plot] = plots.psf_plot(mean, plots.transfer_magnitude(mean, size), source.text)
        lines.append(f"wrote     {plot}: the PSF and |transfer function|")
    outputs.write_all(files)
    return tuple(lines)


def inspect_blur(text: str, size: str, noise: float | None, plot: Path | None, overwrite: bool) -> tuple[str, ...]:
    """Say how well the blur of a PSF can be undone on pictures of a size.

    Parameters
    ----------
    text
        A maker's text or a file.
    size
        Rows and columns of the picture, ``HxW``.
    noise
        Standard deviation of the noise as a fraction of full scale; None takes 1 %.
    plot
        A PNG file for the singular values and the transfer function, or None.
    overwrite
        Whether a file that exists may be replaced.

    Returns
    -------
    tuple of str
        The findings, line by line.
    """
    rows, columns = _size(size)
    plots.check(plot)
    outputs.check_targets({"--plot": plot}, {"--psf": psf_source.file_of(text)}, overwrite=overwrite)
    source = psf_source.load(text)
    level = _USUAL_NOISE if noise is None else noise
    if not math.isfinite(level):
        raise ArgumentError(f"--noise is {level}; it may be a number of at least 0")

    from convpinv.imaging import psf

    found = psf.examine(source.psf)
    height, width = found.psf.shape[-2:]
    if height > rows or width > columns:
        raise ArgumentError(
            f"--size {rows}x{columns} is smaller than the PSF ({height}x{width}); it may be the picture's"
        )

    from convpinv.linalg import Conv2dOperator, default_rtol

    lines = [
        f"blur      {source.text} on {rows} rows x {columns} columns, circular model: the picture "
        "repeats itself at its border, which makes every number below exact and cheap",
    ]
    lines += _said(found.findings)
    stack = found.psf.reshape(-1, *found.psf.shape[-2:])
    files: dict[Path, bytes] = {}
    for channel, plane in enumerate(stack):
        if len(stack) > 1:
            lines.append(f"channel   {channel + 1} of {len(stack)}")
        with Working(f"{source.text} at {size}"):
            # torch correlates, a blur convolves: the PSF goes in turned by half a turn.
            operator = Conv2dOperator(
                plane.flip(-2, -1)[None, None], (rows, columns), padding="same", padding_mode="circular"
            )
            values = operator.svdvals().numpy()
        # The same cut as the pseudo-inverse makes: there is one definition of what counts as zero.
        cut = default_rtol(operator.dtype, (rows, columns)) * float(values[0])
        lines += _findings(values, cut, level, assumed=noise is None)
        found = None
        if level > 0:
            with Working(f"{source.text}: what a restoration resolves"):
                found = _resolution(plane, (rows, columns), level, maps=plot is not None and channel == 0)
            lines += _resolved(found)
        if plot is not None and channel == 0:
            magnitude = plots.transfer_magnitude(plane.numpy(), (rows, columns))
            title = f"{source.text}, {rows}x{columns}, circular"
            files[plot] = plots.spectrum_plot(values, cut, level, magnitude, title, found)
    if plot is not None:
        lines.append(f"wrote     {plot}" + (": the first channel" if len(stack) > 1 else ""))
    outputs.write_all(files)
    return tuple(lines)


def _findings(values: NDArray[Any], cut: float, level: float, *, assumed: bool) -> list[str]:
    count = values.size
    rank = int((values > cut).sum())
    below = count - rank
    drowned = int((values < level).sum())
    gain = math.sqrt(float((1.0 / values[:rank] ** 2).mean()))
    shown = "infinite: some frequencies do not pass at all" if below else f"{values[0] / values[-1]:.4g}"
    usual = " (the usual 1 %, as --noise was not given)" if assumed else ""
    if drowned:
        sentence = (
            f"dividing the blur out would raise the noise above full scale at {_percent(drowned, count)} of the "
            "frequencies: what stands there, a prior has to guess; the rest can be restored from the picture"
        )
    else:
        sentence = (
            "dividing the blur out raises the noise above full scale nowhere: the picture itself tells everything"
        )
    return [
        f"condition {shown}",
        f"rank      {rank} of {count}",
        f"lost      {below} frequencies ({_percent(below, count)}) below the rank cut: gone even without noise",
        f"gain      the plain pseudo-inverse multiplies noise by {gain:.4g} (rms of 1/|H| over the kept frequencies): "
        f"{level:g} becomes {gain * level:.3g}",
        f"noise     |H| is below {level:g}{usual} at {drowned} frequencies ({_percent(drowned, count)})",
        f"so        {sentence}",
    ]


def _resolution(plane: Tensor, size: tuple[int, int], level: float, *, maps: bool) -> Resolution:
    """Return what a restoration by the gradient prior resolves; its maps are those of a small picture."""
    from convpinv.imaging import resolution

    strength = (level / _USUAL_CONTRAST) ** 2
    taps = plane.shape
    large = [min(length, max(_LARGEST_RESPONSE, reach)) for length, reach in zip(size, taps, strict=True)]
    found = resolution(plane, large, strength=strength, maps=False)
    if not maps or max(taps) > _LARGEST_MAPPED_PSF:
        return found
    small = [min(length, reach + _AROUND_PSF) for length, reach in zip(size, taps, strict=True)]
    mapped = resolution(plane, small, strength=strength)
    return dataclasses.replace(found, noise_gain_map=mapped.noise_gain_map, cell_map=mapped.cell_map)


def _resolved(found: Resolution) -> list[str]:
    # Half a period below one pixel is the pixel itself.
    finest, coarsest = (max(length, 1.0) for length in found.detail)
    lines = f"lines down to {finest:.3g} pixels wide"
    if coarsest > 1.05 * finest:
        worst = float(found.angles[int(found.half_response.argmin())])
        lines += f" in the best direction, {coarsest:.3g} where they change along {worst:.0f}°,"
    return [
        f"resolves  {lines} with a gradient prior for contrasts of {_USUAL_CONTRAST:g} of full scale: of "
        "what is finer, more than half is made up",
        f"restored  that restoration multiplies noise by {found.noise_gain:.3g}",
    ]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"


def _description(source: PsfSource, array: NDArray[Any], findings: tuple[Finding, ...]) -> list[str]:

    from convpinv.imaging import psf

    stack = array.reshape(-1, *array.shape[-2:])
    height, width = stack.shape[-2:]
    centring = psf.centring(array)
    row, column = height // 2 + centring.rows, width // 2 + centring.columns
    channels = f", {len(stack)} channels" if len(stack) > 1 else ""
    lines = [
        f"psf       {source.text}",
        f"size      {height} rows x {width} columns{channels}",
        "sum       " + ", ".join(f"{float(plane.sum()):.12g}" for plane in stack),
        f"centroid  row {row:.2f}, column {column:.2f}; the centre pixel is row {height // 2}, column {width // 2}",
    ]
    lines += _said(findings)
    if stack.min() < 0:
        lines.append(f"note      the smallest value is {stack.min():.3g}, below zero")
    lines += [f"note      {note}" for note in source.notes]
    return lines + _drawing(_one_plane(array))


def _said(findings: tuple[Finding, ...]) -> list[str]:
    lines = []
    for finding in findings:
        name = "corrected" if finding.corrected else "warning" if finding.matters else "note"
        lines += row(name, str(finding))
    return lines


def _drawing(plane: NDArray[Any]) -> list[str]:
    """Draw a PSF with characters; each stands for the brightest pixel of its block, so that thin lines survive."""
    import numpy as np

    step = math.ceil(max(plane.shape) / _LARGEST_DRAWING)
    # The centre pixel goes to the middle of its block: a symmetric PSF stays symmetric in the drawing.
    before = [-(length // 2 - step // 2) % step for length in plane.shape]
    after = [-(length + first) % step for length, first in zip(plane.shape, before, strict=True)]
    padded = np.pad(plane, list(zip(before, after, strict=True)))
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max(axis=(1, 3))
    share = np.where(blocks < _FAINTEST * blocks.max(), 0.0, blocks / blocks.max())
    ink = np.ceil(share * (len(_INK) - 1)).astype(int)
    picture = ["  " + "".join(_INK[level] * 2 for level in row) for row in ink]
    return [
        *([f"drawing   one mark is {step}x{step} pixels"] if step > 1 else []),
        *(line.rstrip() for line in picture),
    ]


def _psf_file(array: NDArray[Any], path: Path) -> tuple[bytes, str]:
    """Return the bytes of a PSF file, and what is in it."""
    import numpy as np

    suffix = path.suffix.lower()
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue(), "float64, sum 1"
    if array.ndim == 3 and array.shape[0] not in (1, 3):
        raise TargetError(path, f"a PSF of {array.shape[0]} channels has no place in a picture; name it .npy")
    pixels = array if array.ndim == 2 else array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    if suffix != ".png":
        data, _ = images.encode(Image(pixels=pixels, dtype="float32", format="tiff"), path)
        return data, "float32, sum 1"
    scale = float(pixels.max())
    data, clipped = images.encode(Image(pixels=pixels / scale, dtype="uint16", format="png"), path)
    said = f"uint16, scaled so that the largest value, {scale:.6g}, is 65535; reading it as a PSF makes the sum 1 again"
    return data, said + (f"; {clipped} values below zero became 0" if clipped else "")


def _one_plane(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.ndim == 2 else array.mean(axis=0)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*[x×]\s*(\d{1,6})\s*", text.lower())
    if match is None or "0" in (match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"):
        raise ArgumentError(f"--size is {text!r}; it may be rows x columns, like 512x768")
    rows, columns = int(match[1]), int(match[2])
    if rows * columns > _LARGEST_SIZE:
        raise ArgumentError(
            f"--size {rows}x{columns} is over the limit of {_LARGEST_SIZE // 10**6} megapixels; "
            "give a smaller one: the shares that are lost hardly depend on it"
        )
    return rows, columns
