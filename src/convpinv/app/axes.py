"""The axes of stacks: what a file calls them, what the user calls them, and the planes that they hold.

Axes are never guessed. A letter stands for each: Y and X for rows and columns, S for colours and alpha that belong to
one pixel, and any others, T, C and Z most often, for what is deblurred plane by plane.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convpinv.app import raster
from convpinv.app.files import UnreadableFileError
from convpinv.app.raster import Image
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_EXAMPLE = {3: "ZYX", 4: "CZYX", 5: "TCZYX"}


class AxesError(UnreadableFileError):
    """A file whose axes are not what they are called, or are called nothing."""


class UnnamedAxesError(AxesError):
    """A file that does not say what its axes are: the shape of its array, what it has, and how to name it."""

    def __init__(self, path: str | os.PathLike[str], shape: Sequence[int], what: str, remedy: str):
        self.shape, self.what = tuple(shape), what
        super().__init__(path, f"{what} and does not say what they are; {remedy}")


def sizes_text(shape: Sequence[int]) -> str:
    """Write the lengths of all axes in their order."""
    return " x ".join(map(str, shape))


def parse(text: str | None) -> str | None:
    """Return what ``--axes`` names, in capitals; None where it was not given."""
    if text is None:
        return None
    names = text.strip().upper()
    if not names.isascii() or not names.isalpha() or len(set(names)) < len(names) or not {"Y", "X"} <= set(names):
        raise ArgumentError(
            f"--axes is {text!r}; it names each axis of the file by a letter of its own, Y and X among them, like TCZYX"
        )
    return names


def resolve(
    path: str | os.PathLike[str], shape: Sequence[int], declared: str | None, asked: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return a letter for each axis of a file's array, and notes on where they come from.

    Parameters
    ----------
    path
        The file, for the error.
    shape
        The shape of its array.
    declared
        What the file itself says, None where it says nothing.
    asked
        What the user says, which counts for more.

    Raises
    ------
    AxesError
        If nobody says, or says what does not fit.
    """
    sizes = sizes_text(shape)
    if len(shape) < 2:
        raise AxesError(path, f"holds {sizes or 'one'} values in {len(shape)} axes; a picture has two")
    if asked is not None:
        if len(asked) != len(shape):
            raise AxesError(
                path, f"has {len(shape)} axes ({sizes}) and --axes {asked} names {len(asked)}; name each of them"
            )
        names, notes = asked, (f"axes {asked} ({sizes}), as asked",)
        if declared is not None and declared != asked:
            notes = (f"axes {asked} ({sizes}), as asked; the file calls them {declared}",)
    elif declared is not None:
        names, notes = declared, ()
        if len(shape) > 2 and declared != "YXS":
            notes = (f"axes {declared} ({sizes}), as the file says",)
    elif len(shape) == 2:
        return "YX", ()
    else:
        example = _EXAMPLE.get(len(shape), "TCZYX")
        remedy = f"name them with --axes, like --axes {example}, S for red, green and blue"
        raise UnnamedAxesError(path, shape, f"has {len(shape)} axes ({sizes})", remedy)
    if "S" in names and not 2 <= shape[names.index("S")] <= 4:
        length = shape[names.index("S")]
        raise AxesError(
            path, f"has {length} samples (S) a pixel, which is neither RGB nor grey with alpha; call the axis C"
        )
    return names, notes


def canonical_order(names: str) -> str:
    """Return the letters with those of rows, columns and samples last."""
    last = "YXS" if "S" in names else "YX"
    return "".join(name for name in names if name not in last) + last


def canonical(stored: NDArray[Any], names: str) -> tuple[NDArray[Any], str]:
    """Return the array with rows, columns and samples last, and its letters."""
    import numpy as np

    order = canonical_order(names)
    return np.transpose(stored, [names.index(name) for name in order]), order


def as_stored(array: NDArray[Any], names: str, stored: str) -> NDArray[Any]:
    """Return an array whose axes are called ``names`` in the order ``stored``."""
    import numpy as np

    return np.transpose(array, [names.index(name) for name in stored])


def image_of(
    stored: NDArray[Any],
    path: str | os.PathLike[str],
    names: str,
    *,
    gaps: bool,
    format: str,
    missing: float | None = None,
    **more: Any,
) -> Image:
    """Return the picture or the stack in a file's array, whose axes are called ``names``.

    ``missing`` is the stored number that marks pixels which are not there; everything else goes to :class:`Image`.
    """
    depth = raster.check_depth(path, stored.dtype)
    array, order = canonical(stored.astype(stored.dtype.newbyteorder("="), copy=False), names)
    colours, alpha = raster.split_samples(array, path) if "S" in names else (array, None)
    if "S" in names and colours.ndim < array.ndim:
        order = order.removesuffix("S")
    pixels = raster.seen_range(colours, missing)
    if not gaps:
        raster.check_gaps(path, pixels, missing)
    plain = order in ("YX", "YXS")
    return Image(
        pixels=pixels,
        dtype=depth,
        format=format,
        alpha=alpha,
        axes="" if plain else order,
        stored_axes=names,
        blank=missing,
        blank_at=colours == missing if missing is not None and depth.startswith("float") else None,
        **more,
    )


def file_order(stored: NDArray[Any], image: Image, kind: str) -> NDArray[Any]:
    """Return stored values (…, H, W[, samples]) in the order of a file of a kind: the picture's own, if it is that."""
    names = image.names if stored.ndim == image.pixels.ndim else image.names + "S"
    return as_stored(stored, names, file_names(image, kind))


def file_names(image: Image, kind: str) -> str:
    """Return the letters of the axes in the order of :func:`file_order`."""
    names = image.names + ("S" if image.alpha is not None and not image.is_colour else "")
    if image.format == kind and set(image.stored_axes) == set(names):
        return image.stored_axes
    # FITS has rows and columns last, whatever else there is.
    return "S" + names.removesuffix("S") if kind == "fits" and names.endswith("S") else names


def single(image: Image, path: str | os.PathLike[str]) -> Image:
    """Return a picture of one plane without the axes of a stack, and refuse more planes."""
    if not image.axes:
        return image
    count = 1
    for length in image.stack_shape:
        count *= length
    if count > 1:
        raise UnreadableFileError(
            path, f"holds {count} planes (axes {image.axes}) where one picture is needed; save one of them by itself"
        )
    start = len(image.stack_shape)
    alpha = None if image.alpha is None else image.alpha.reshape(image.alpha.shape[start:])
    return dataclasses.replace(
        image, pixels=image.pixels.reshape(image.pixels.shape[start:]), alpha=alpha, axes="", stored_axes=""
    )


def planes(image: Image) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name, empty for a single picture, and the index of each plane of a picture."""
    import numpy as np

    for index in np.ndindex(image.stack_shape):
        yield ", ".join(f"{name}={place}" for name, place in zip(image.names, index, strict=False)), index
