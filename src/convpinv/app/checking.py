"""``convpinv deblur --check-io``: a file goes through reading and writing alone, and comes out as it went in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app import images, outputs, raster
from convpinv.app.files import TargetError, WriteError
from convpinv.app.raster import Image
from convpinv.app.request import Request
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


# What would be another work than reading and writing, or promises something about it.
_NOT_SERVED = ("--dry-run", "--mask", "--plot", "--memory", "--workers", "--scheduler", "--resume")


def check_options(request: Request) -> None:
    """Refuse the options that a copy does not serve: one that is ignored would be taken for one that was kept to."""
    given = [name for name in _NOT_SERVED if getattr(request, name[2:].replace("-", "_")) not in (None, False)]
    if given:
        raise ArgumentError(f"--check-io only reads, writes and compares; leave out {', '.join(given)}")


def check_file(
    source: Path, target: Path, report: Path | None, *, axes: str | None, overwrite: bool
) -> tuple[dict[str, Any], dict[Path, Any]]:
    """Copy one file through the whole path of reading and writing.

    Parameters
    ----------
    source, target
        The files.
    report
        Where a report will go, which must not be the picture's place either.
    axes
        Names of the axes, as for :func:`images.read`.
    overwrite
        Whether files that exist may be replaced.

    Returns
    -------
    dict, dict
        The facts, ready for a report, and the files to write.

    Raises
    ------
    ConvpinvError
        If the file cannot be read, or would come out with other pixels or without something that its format holds.
    """
    outputs.check_targets(
        {"OUT": target, "--report": report}, {"IN": source}, overwrite=overwrite, replaceable={("OUT", "IN")}
    )
    if images.format_of(target) == "jpeg":
        raise TargetError(target, "JPEG changes the pixels whenever it is written; name it .png or .tif to compare")
    image = images.read(source, gaps=True, stacks=True, axes=axes)
    images.check_format(image, target)
    data, _ = images.encode(image, target, gaps=True)
    again = images.decode(data, target, gaps=True, axes=_written_axes(image, target, axes))
    different = _different(image, again)
    if different:
        raise WriteError(target, f"would differ from {source} in {different}; nothing was written")
    lost = images.losses(image, target)
    facts = {
        "input": str(source),
        "output": str(target),
        "picture": image.describe(),
        "pixels": f"equal, all {image.pixels.size} values",
        "kept": _kept(image, again),
        "notes": [*image.remarks, *lost],
    }
    return facts, {target: data}


def _written_axes(image: Image, target: str | os.PathLike[str], asked: str | None) -> str | None:
    """Name the axes of a file that says as little of them as what was read, or nothing at all."""
    kind = images.format_of(target)
    if kind in ("npy", "fits"):
        return stack_axes.file_names(image, kind)
    return asked if kind == image.format == "zarr" else None


def _different(image: Image, again: Image) -> str:
    """Name what of a picture was not written as it was read; empty if all was."""
    import numpy as np

    pixels, written = image.pixels, again.pixels
    if again.format == "webp" and not image.is_colour:
        written = written[..., 0]
    if pixels.size != written.size or image.dtype != again.dtype:
        return f"size or depth ({image.describe()}, then {again.describe()})"
    written = _in_axes_of(written, again, image)
    if image.blank is not None and again.blank is None and image.is_integer:
        # The number stands there as it did; it is the other format that has no name for it.
        written = np.where(written == raster.unit_range(np.array(image.blank, image.dtype)), np.nan, written)
    unequal = int((_bits(pixels) != _bits(written)).sum())
    if unequal:
        return f"{unequal} of {pixels.size} values"
    if (image.alpha is None) != (again.alpha is None):
        return "its alpha channel"
    if image.alpha is not None and again.alpha is not None:
        alpha = np.asarray(again.alpha).reshape(image.alpha.shape)
        if not np.array_equal(image.alpha, alpha):
            return "its alpha channel"
    if image.format != again.format:
        return ""
    for name, words in (
        ("icc", "its colour profile"),
        ("exif", "its EXIF block"),
        ("xmp", "its XMP"),
        ("orientation", "its orientation"),
    ):
        if getattr(image, name) != getattr(again, name):
            return words
    if image.dpi is not None and (again.dpi is None or not np.allclose(image.dpi, again.dpi, rtol=1e-3)):
        return "its resolution"
    return ""


def _in_axes_of(written: NDArray[Any], again: Image, image: Image) -> NDArray[Any]:
    """Return the written pixels in the order of axes of the picture that was read."""
    import numpy as np

    names, other = image.names, again.names
    if names != other and set(names) == set(other):
        written = np.transpose(written, [other.index(name) for name in names])
    return written.reshape(image.pixels.shape)


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Return floating-point values as integers, so that NaN equals NaN and −0 does not equal 0."""
    import numpy as np

    return np.ascontiguousarray(values).view(np.uint64 if values.dtype.itemsize == 8 else np.uint32)


def _kept(image: Image, again: Image) -> list[str]:
    """Name what went through beside the pixels."""
    parts = {
        "alpha": image.alpha is not None,
        "colour profile": image.icc is not None and again.icc == image.icc,
        "EXIF": image.exif is not None and again.exif == image.exif,
        "XMP": image.xmp is not None and again.xmp == image.xmp,
        "orientation": image.orientation != 1 and again.orientation == image.orientation,
        "resolution": image.dpi is not None and again.dpi is not None,
        "axes": bool(image.axes) and again.axes == image.axes,
    }
    if image.format == again.format:
        kind = image.native.get("kind", "")
        parts |= {
            "OME-XML": kind == "ome",
            "ImageJ's metadata": kind == "imagej",
            "description": kind == "" and bool(image.native.get("description")),
            "header": image.format == "fits",
            "attributes": image.format == "zarr",
        }
    return [name for name, there in parts.items() if there]
