"""Arrays in files that are read window by window, whatever the order of their axes. Nothing is mapped into memory.

A memory map would count as memory of this process, and grow with every piece that is read.
"""

from __future__ import annotations

import abc
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from convpinv.app import axes as stack_axes
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Source(abc.ABC):
    """A picture, or a stack of planes, that is read window by window.

    Attributes
    ----------
    path
        The file or folder.
    format
        What it is: "tiff", "npy" or "zarr".
    names
        A letter for each axis, in the order of the file; see :mod:`convpinv.app.axes`.
    stack
        Lengths of the axes that are neither rows, columns nor samples: () for one picture.
    size
        Rows and columns.
    channels
        How many samples a pixel holds, alpha included; None where the array has no axis for them.
    dtype
        The stored depth.
    decoded
        Bytes that are read or decoded at once.
    missing
        The stored number of pixels that are not there, if the file names one.
    notes
        What is left out, and what is to be known.
    """

    path: Path
    format: str
    names: str
    stack: tuple[int, ...]
    size: tuple[int, int]
    channels: int | None
    dtype: str
    decoded: int
    missing: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def planes(self) -> int:
        """How many pictures there are."""
        return math.prod(self.stack)

    @property
    def order(self) -> str:
        """The letters of :attr:`shape`: rows, columns and samples last."""
        return stack_axes.canonical_order(self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of all planes."""
        return (*self.stack, *self.size, *(() if self.channels is None else (self.channels,)))

    @abc.abstractmethod
    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Return the stored values (h, w) or (h, w, C) of a window, in the machine's byte order."""

    def _measure(self, shape: tuple[int, ...]) -> None:
        """Set what follows from the lengths of the axes in the file."""
        lengths = dict(zip(self.names, shape, strict=True))
        self.stack = tuple(int(lengths[name]) for name in self.names if name not in "YXS")
        self.size = (int(lengths["Y"]), int(lengths["X"]))
        self.channels = int(lengths["S"]) if "S" in lengths else None

    def _place(self, plane: int) -> dict[str, int]:
        """Return where a plane lies on each of the axes of the stack."""
        import numpy as np

        names = [name for name in self.names if name not in "YXS"]
        index = np.unravel_index(plane, self.stack) if self.stack else ()
        return dict(zip(names, map(int, index), strict=True))

    def _window(self, values: NDArray[Any], names: str) -> NDArray[Any]:
        """Return values whose axes are called ``names`` as rows, columns and samples."""
        import numpy as np

        values = values.transpose([names.index(name) for name in "YXS" if name in names])
        return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))


@final
class RawSource(Source):
    """Values that lie one after the other in a file, the last axis fastest."""

    def __init__(self, path: Path, kind: str, offset: int, dtype: Any, shape: tuple[int, ...], names: str) -> None:
        import numpy as np

        self.path, self.format, self.names, self._shape = path, kind, names, shape
        self._measure(shape)
        self._stored, self._offset = np.dtype(dtype), offset
        # Of rows and columns, one runs slower, and its entries are read one by one, with all that lies within them.
        self._fast = max(names.index("Y"), names.index("X"))
        self.dtype = self._stored.name
        self.decoded = math.prod(shape[self._fast :]) * self._stored.itemsize
        needed = offset + math.prod(shape) * self._stored.itemsize
        if os.path.getsize(path) < needed:
            raise UnreadableFileError(path, f"is cut off ({needed} bytes are promised); get the file again")

    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Read row by row."""
        import numpy as np

        at, names, fast = self._place(plane), self.names, self._fast
        spans = [
            {"Y": rows, "X": columns}.get(name, (at[name], at[name] + 1) if name in at else (0, length))
            for name, length in zip(names, self._shape, strict=True)
        ]
        within = self._shape[fast + 1 :]
        pick = tuple(at.get(name, slice(None)) for name in names[fast + 1 :])
        start, stop = spans[fast]
        item = math.prod(within) * self._stored.itemsize
        counts = [last - first for first, last in spans[:fast]]
        kept = [length for name, length in zip(names[fast + 1 :], within, strict=True) if name == "S"]
        result = np.empty((*counts, stop - start, *kept), self._stored)
        line: Any = np.empty((stop - start, *within), self._stored)
        with open(self.path, "rb") as file:
            for entry in np.ndindex(*counts):
                place = 0
                for (first, _), step, length in zip(spans[:fast], entry, self._shape[:fast], strict=True):
                    place = place * length + first + step
                file.seek(self._offset + (place * self._shape[fast] + start) * item)
                if file.readinto(memoryview(line).cast("B")) != line.nbytes:
                    raise UnreadableFileError(self.path, "ended while it was read; get the file again")
                result[entry] = line[(slice(None), *pick)]
        found = "".join(name for name in names if name in "YXS")
        lengths = {"Y": rows[1] - rows[0], "X": columns[1] - columns[0], "S": self.channels or 1}
        return self._window(result.reshape([lengths[name] for name in found]), found)


@final
class ZarrSource(Source):
    """An array in chunks, as Zarr or as tifffile presents a TIFF."""

    def __init__(self, path: Path, kind: str, array: Any, names: str) -> None:
        self.path, self.format, self.names, self._array = path, kind, names, array
        self._measure(array.shape)
        self.dtype = array.dtype.name
        self.decoded = math.prod(array.chunks) * array.dtype.itemsize

    def read(self, plane: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        """Decode the chunks that the window touches."""
        import numpy as np

        at = {"Y": slice(*rows), "X": slice(*columns), "S": slice(None), **self._place(plane)}
        try:
            with quiet():
                values = np.asarray(self._array[tuple(at[name] for name in self.names)])
        except MemoryError:
            raise
        except Exception as error:  # the codecs raise whatever they like on damaged data
            raise UnreadableFileError(self.path, f"is damaged ({reason(error)}); get it again") from None
        return self._window(values, "".join(name for name in self.names if name in "YXS"))
