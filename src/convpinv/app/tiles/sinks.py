"""Pictures that are written in pieces: Zarr, NumPy arrays, and tiled BigTIFF, which is put together at the end.

Pieces may come in any order, and from several processes: no two tiles share a chunk, nor a byte.
"""

from __future__ import annotations

import abc
import itertools
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from convpinv.app import outputs
from convpinv.app.files import TargetError, WriteError, reason
from convpinv.app.quiet import quiet
from convpinv.app.tiles.sources import import_zarr, opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".zarr", ".tif", ".tiff", ".npy")
# Rows and columns of a TIFF's tiles.
_TIFF_TILE = 256


class Sink(abc.ABC):
    """An output under construction, opened by any process that writes into it."""

    @abc.abstractmethod
    def write(self, plane: int, rows: tuple[int, int], columns: tuple[int, int], values: NDArray[Any]) -> None:
        """Write stored values (h, w) or (h, w, C)."""


@final
class ZarrSink(Sink):
    """A Zarr array: every piece covers whole chunks."""

    def __init__(self, path: Path, stack: tuple[int, ...]) -> None:
        self._array = import_zarr(path).open_array(path, mode="r+")
        self._stack = stack

    def write(self, plane: int, rows: tuple[int, int], columns: tuple[int, int], values: NDArray[Any]) -> None:
        """Write whole chunks."""
        import numpy as np

        place = tuple(int(index) for index in np.unravel_index(plane, self._stack)) if self._stack else ()
        self._array[(*place, slice(*rows), slice(*columns))] = values


@final
class RawSink(Sink):
    """A ``.npy`` file: every row of a piece goes to its bytes."""

    def __init__(self, path: Path, shape: tuple[int, ...], axes: int, dtype: str) -> None:
        import numpy as np

        self._path, self._dtype = path, np.dtype(dtype)
        self._rows, self._columns = shape[axes], shape[axes + 1]
        self._item = self._dtype.itemsize * math.prod(shape[axes + 2 :])
        self._offset = os.path.getsize(path) - self._item * math.prod(shape[: axes + 2])

    def write(self, plane: int, rows: tuple[int, int], columns: tuple[int, int], values: NDArray[Any]) -> None:
        """Write row by row."""
        import numpy as np

        values = np.ascontiguousarray(values, self._dtype)
        with open(self._path, "r+b") as file:
            for row, line in zip(range(*rows), values, strict=True):
                file.seek(self._offset + ((plane * self._rows + row) * self._columns + columns[0]) * self._item)
                file.write(memoryview(line).cast("B"))


def check_name(path: Path) -> None:
    """Refuse an output that cannot be written in pieces."""
    if path.suffix.lower() not in SUFFIXES:
        raise TargetError(path, f"in tiles {', '.join(SUFFIXES)} are written; name it so")


def make(path: Path, shape: tuple[int, ...], axes: int, dtype: str, grain: int) -> None:
    """Make the empty output under construction; ``axes`` is the number of axes before the rows."""
    import numpy as np

    if path.suffix == ".zarr":
        chunks = (
            *(1 for _ in range(axes)),
            *(min(grain, length) for length in shape[axes : axes + 2]),
            *shape[axes + 2 :],
        )
        names = [*(f"plane{axis}" for axis in range(axes)), "y", "x", *(["channel"] if len(shape) > axes + 2 else [])]
        zarr = import_zarr(path)
        zarr.create_array(path, shape=shape, chunks=chunks, dtype=dtype, dimension_names=names)
        return
    with open(path, "xb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        # The disk space is taken now: what does not fit is known before the work.
        size = np.dtype(dtype).itemsize * math.prod(shape)
        start = file.tell()
        file.truncate(start + size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), start, size)


def open_sink(path: Path, shape: tuple[int, ...], axes: int, dtype: str) -> Sink:
    """Open what :func:`make` made."""
    return ZarrSink(path, shape[:axes]) if path.suffix == ".zarr" else RawSink(path, shape, axes, dtype)


def finish(pixels: Path, target: Path, *, colour: bool, alpha: bool) -> None:
    """Give the finished output its name; a TIFF is put together first, beside it."""
    try:
        if target.suffix.lower() not in (".tif", ".tiff"):
            outputs.take_name(pixels, target)
            return
        temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            _assemble(pixels, temporary, colour, alpha)
            outputs.take_name(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            target, f"could not be written ({reason(error)}); free space and give --resume: the tiles are done"
        ) from None


def _assemble(pixels: Path, target: Path, colour: bool, alpha: bool) -> None:
    import numpy as np
    import tifffile

    side = _TIFF_TILE
    with opened(pixels) as source:
        channels = () if source.channels is None else (source.channels,)

        def tiles() -> Iterator[NDArray[Any]]:
            height, width = source.size
            for plane, top in itertools.product(range(source.planes), range(0, height, side)):
                # A row of tiles at a time: the rows of the array are read once.
                rows = top, min(top + side, height)
                for left in range(0, width, side):
                    part = source.read(plane, rows, (left, min(left + side, width)))
                    padded = np.zeros((side, side, *channels), part.dtype)
                    padded[: part.shape[0], : part.shape[1]] = part
                    yield padded

        more: dict[str, Any] = {"extrasamples": ["unassalpha"]} if alpha else {}
        if channels:
            more["planarconfig"] = "contig"
        with quiet(), open(target, "xb") as file:
            tifffile.imwrite(
                file,
                tiles(),
                shape=source.shape,
                dtype=source.dtype,
                tile=(side, side),
                bigtiff=True,
                photometric="rgb" if colour else "minisblack",
                metadata=None,
                software="convpinv",
                **more,
            )
            file.flush()
            os.fsync(file.fileno())
