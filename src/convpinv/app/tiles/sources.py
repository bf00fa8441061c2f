"""Pictures that are read in pieces: TIFF, Zarr, NumPy arrays. Nothing is mapped into memory.

A memory map would count as memory of this process, and grow with every piece that is read.
"""

from __future__ import annotations

import abc
import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from convpinv.app import signatures
from convpinv.app.console import MissingExtraError
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEPTHS = ("uint8", "uint16", "float16", "float32", "float64")
# An array whose last axis is no longer than this holds the channels of one picture there; a longer one is columns.
_MOST_CHANNELS = 4


class Source(abc.ABC):
    """A picture, or a stack of planes, that is read window by window.

    Attributes
    ----------
    path
        The file or folder.
    stack
        Lengths of the axes before the plane: () for one picture.
    size
        Rows and columns.
    channels
        How many values a pixel holds, alpha included; None where the array has no axis for them.
    dtype
        The stored depth.
    block
        Rows and columns that are decoded at once.
    notes
        What is left out.
    """

    path: Path
    stack: tuple[int, ...]
    size: tuple[int, int]
    channels: int | None
    dtype: str
    block: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def planes(self) -> int:
        """How many pictures there are."""
        return math.prod(self.stack)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all planes."""
        return (*self.stack, *self.size, *(() if self.channels is None else (self.channels,)))

    @abc.abstractmethod
    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Return the stored values (h, w) or (h, w, C) of a window, in the machine's byte order."""


@final
class RawSource(Source):
    """Values that lie one after the other in a file."""

    def __init__(
        self,
        path: Path,
        offset: int,
        dtype: Any,
        stack: tuple[int, ...],
        size: tuple[int, int],
        channels: int | None,
    ) -> None:
        import numpy as np

        self.path, self.stack, self.size, self.channels = path, stack, size, channels
        self.dtype, self.block = np.dtype(dtype).name, (1, size[1])
        self._stored, self._offset = np.dtype(dtype), offset
        needed = offset + math.prod(self.shape) * self._stored.itemsize
        if os.path.getsize(path) < needed:
            raise UnreadableFileError(path, f"is cut off ({needed} bytes are promised); get the file again")

    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Read row by row."""
        import numpy as np

        width, pixel = columns[1] - columns[0], self.channels or 1
        item = self._stored.itemsize * pixel
        result = np.empty((rows[1] - rows[0], width * pixel), self._stored)
        with open(self.path, "rb") as file:
            for row in range(*rows):
                file.seek(self._offset + ((plane * self.size[0] + row) * self.size[1] + columns[0]) * item)
                if file.readinto(memoryview(result[row - rows[0]]).cast("B")) != width * item:
                    raise UnreadableFileError(self.path, "ended while it was read; get the file again")
        native = result.astype(self._stored.newbyteorder("="), copy=False)
        return native if self.channels is None else native.reshape(len(native), width, pixel)


@final
class ZarrSource(Source):
    """An array in chunks, as Zarr or as tifffile presents a TIFF."""

    def __init__(self, path: Path, array: Any, axes: str, notes: tuple[str, ...] = ()) -> None:
        self.path, self._array, self._axes, self.notes = path, array, axes, notes
        self.stack = tuple(n for n, axis in zip(array.shape, axes, strict=True) if axis not in "YXS")
        length, chunk = dict(zip(axes, array.shape, strict=True)), dict(zip(axes, array.chunks, strict=True))
        self.size = (int(length["Y"]), int(length["X"]))
        self.channels = int(length["S"]) if "S" in length else None
        self.dtype, self.block = array.dtype.name, (int(chunk["Y"]), int(chunk["X"]))

    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Decode the chunks that the window touches."""
        import numpy as np

        rest = iter(np.unravel_index(plane, self.stack)) if self.stack else iter(())
        window = {"Y": slice(*rows), "X": slice(*columns), "S": slice(None)}
        index = tuple(window.get(axis) or int(next(rest)) for axis in self._axes)
        try:
            with quiet():
                values = np.asarray(self._array[index])
        except MemoryError:
            raise
        except Exception as error:  # the codecs raise whatever they like on damaged data
            raise UnreadableFileError(self.path, f"is damaged ({reason(error)}); get it again") from None
        kept = [axis for axis in self._axes if axis in "YXS"]
        wanted = [axis for axis in "YXS" if axis in kept]
        values = values.transpose([kept.index(axis) for axis in wanted])
        return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))


def is_tileable(path: Path) -> bool:
    """Tell whether a picture is of a kind that is read in pieces."""
    if path.is_dir():
        return _is_zarr(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return start.startswith(signatures.NUMPY) or signatures.format_in(start) == "tiff"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a picture to be read in pieces.

    Raises
    ------
    UnreadableFileError
        With one line: the file, what is wrong with it, the remedy.
    MissingExtraError
        If it needs the ``zarr`` extra, which is not installed.
    """
    if path.is_dir():
        yield _checked(_zarr(path))
        return
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({reason(error)}); check the name and the disk") from None
    if start.startswith(signatures.NUMPY):
        yield _checked(_numpy(path))
    elif signatures.format_in(start) == "tiff":
        with contextlib.ExitStack() as stack:
            yield _checked(_tiff(path, stack))
    else:
        kind = signatures.format_in(start)
        what = f"is {'a JPEG' if kind == 'jpeg' else kind.upper()}" if kind else signatures.stranger(start)
        raise UnreadableFileError(
            path, f"{what}; in tiles TIFF, Zarr and .npy are read: convert it, or leave out the options for tiles"
        )


def import_zarr(path: Path) -> Any:
    """Return the module zarr, or say how to get it."""
    try:
        import zarr
    except ImportError:
        raise MissingExtraError(f"{path}: needs Zarr; install it by: pip install 'convpinv[zarr]'") from None
    return zarr


def _checked(source: Source) -> Source:
    if source.dtype not in DEPTHS:
        raise UnreadableFileError(
            source.path, f"holds {source.dtype} values; in tiles {', '.join(DEPTHS)} are served: convert it"
        )
    if min(*source.size, source.planes) < 1:
        raise UnreadableFileError(source.path, "holds no pixels; get it again")
    if source.channels is not None and source.channels > _MOST_CHANNELS:
        raise UnreadableFileError(source.path, f"holds {source.channels} channels; save it as grey or RGB")
    return source


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _axes_of(shape: tuple[int, ...]) -> str:
    """Name the axes of an array that does not: planes, rows, columns, and channels where the last axis is short."""
    has_channels = len(shape) > 2 and shape[-1] <= _MOST_CHANNELS
    return "P" * (len(shape) - 2 - has_channels) + ("YXS" if has_channels else "YX")


def _zarr(path: Path) -> Source:
    if not _is_zarr(path):
        raise UnreadableFileError(path, "is a folder, and not a Zarr store; name one file in it")
    zarr = import_zarr(path)
    try:
        node = zarr.open(path, mode="r")
        notes: tuple[str, ...] = ()
        if isinstance(node, zarr.Group):
            attributes = dict(node.attrs)
            levels = (attributes.get("ome") or attributes).get("multiscales")
            name = levels[0]["datasets"][0]["path"] if levels else None
            arrays = [key for key, _ in node.arrays()]
            if name is None and len(arrays) != 1:
                raise UnreadableFileError(path, f"is a group of {len(arrays)} arrays; name one of them")
            notes = () if not levels or len(levels[0]["datasets"]) == 1 else ("smaller levels are left out",)
            node = node[name or arrays[0]]
            if levels:
                return ZarrSource(path, node, "P" * (node.ndim - 2) + "YX", notes)
        if node.ndim < 2:
            raise UnreadableFileError(path, f"holds an array of shape {node.shape}; a picture has rows and columns")
        return ZarrSource(path, node, _axes_of(node.shape), notes)
    except (UnreadableFileError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged store makes the library raise
        raise UnreadableFileError(path, f"is a damaged Zarr store ({reason(error)}); get it again") from None


def _numpy(path: Path) -> Source:
    import numpy as np

    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(file)
            offset = file.tell()
    except (ValueError, OSError) as error:
        raise UnreadableFileError(path, f"is a damaged .npy file ({reason(error)}); save it again") from None
    if columns_first or len(shape) < 2:
        was = "in Fortran's order" if columns_first else f"of shape {shape}"
        raise UnreadableFileError(path, f"is an array {was}; save np.ascontiguousarray of rows and columns")
    axes = _axes_of(shape)
    stack, size = tuple(shape[: axes.index("Y")]), (shape[axes.index("Y")], shape[axes.index("X")])
    return RawSource(path, offset, dtype, stack, size, shape[-1] if axes.endswith("S") else None)


def _tiff(path: Path, stack: contextlib.ExitStack) -> Source:
    import tifffile

    try:
        with quiet():
            file = stack.enter_context(tifffile.TiffFile(path))
            series = file.series[0]
            page = series.levels[0].keyframe
            axes, dtype = series.axes, page.dtype
            notes = ("smaller copies in the file are left out",) if len(series.levels) > 1 else ()
    except Exception as error:  # whatever a damaged file makes the library raise
        raise UnreadableFileError(path, f"is a damaged TIFF ({reason(error)}); get the file again") from None
    if "Y" not in axes or "X" not in axes or dtype is None or dtype.name not in DEPTHS:
        what = f"axes {axes}" if dtype is not None and dtype.name in DEPTHS else f"{dtype} pixels"
        raise UnreadableFileError(path, f"is a TIFF of {what}; save it as grey or RGB of {', '.join(DEPTHS)}")
    if int(page.photometric) not in (1, 2, 6):
        kind = getattr(page.photometric, "name", str(page.photometric)).lower()
        raise UnreadableFileError(path, f"is a TIFF in {kind}; in tiles grey (black as zero) and RGB are read")
    offset = series.dataoffset
    if offset is not None and not page.is_tiled and axes.replace("S", "").endswith("YX") and "SY" not in axes:
        stacked = tuple(n for n, axis in zip(series.shape, axes, strict=True) if axis not in "YXS")
        channels = int(series.shape[-1]) if axes.endswith("S") else None
        size = (int(page.imagelength), int(page.imagewidth))
        dtype = dtype.newbyteorder(file.byteorder)
        source = RawSource(path, int(offset), dtype, stacked, size, channels)
        source.notes = notes
        return source
    zarr = import_zarr(path)
    try:
        with quiet():
            store = stack.enter_context(series.aszarr(level=0))
            return ZarrSource(path, zarr.open(store, mode="r"), axes, notes)
    except Exception as error:
        raise UnreadableFileError(path, f"is a damaged TIFF ({reason(error)}); get the file again") from None
