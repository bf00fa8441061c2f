"""Pictures that are written in pieces: Zarr, NumPy arrays, and what is put together of one at the end.

Pieces may come in any order, and from several processes: no two tiles share a chunk, nor a byte.
"""

from __future__ import annotations

import abc
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from convpinv.app import ngff, outputs
from convpinv.app.files import TargetError, WriteError, reason
from convpinv.app.quiet import quiet
from convpinv.app.tiles import assembly
from convpinv.app.tiles.form import Form
from convpinv.app.tiles.sources import import_zarr

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".zarr", ".tif", ".tiff", ".npy")


class Sink(abc.ABC):
    """An output under construction, opened by any process that writes into it."""

    @abc.abstractmethod
    def write(self, plane: int, rows: tuple[int, int], columns: tuple[int, int], values: NDArray[Any]) -> None:
        """Write stored values (h, w) or (h, w, C)."""


@final
class ZarrSink(Sink):
    """A Zarr array: every piece covers whole chunks."""

    def __init__(self, path: Path, form: Form) -> None:
        files = ngff.read_metadata(path)
        name, _, _ = ngff.find(files, path)
        zarr = import_zarr(path)
        with quiet():
            self._array = zarr.open_array(path, path=name, mode="r+", zarr_format=ngff.version(files, name))
        self._form = form

    def write(self, plane: int, rows: tuple[int, int], columns: tuple[int, int], values: NDArray[Any]) -> None:
        """Write whole chunks."""
        import numpy as np

        form = self._form
        place = np.unravel_index(plane, form.stack) if form.stack else ()
        index = dict(zip(form.names, (*map(int, place), slice(*rows), slice(*columns), slice(None)), strict=False))
        kept = [name for name in form.names if name in "YXS"]
        values = values.transpose([kept.index(name) for name in form.order if name in kept])
        self._array[tuple(index[name] for name in form.order)] = values


@final
class RawSink(Sink):
    """A ``.npy`` file: every row of a piece goes to its bytes."""

    def __init__(self, path: Path, form: Form) -> None:
        import numpy as np

        axes = len(form.stack)
        self._path, self._dtype = path, np.dtype(form.dtype)
        self._rows, self._columns = form.shape[axes], form.shape[axes + 1]
        self._item = self._dtype.itemsize * math.prod(form.shape[axes + 2 :])
        self._offset = os.path.getsize(path) - self._item * math.prod(form.shape[: axes + 2])

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


def make(path: Path, form: Form, like: Path | None = None) -> None:
    """Make the empty output under construction; a store takes over all but the chunks of the store ``like``."""
    if path.suffix == ".zarr":
        _make_store(path, form, like)
        return
    with open(path, "xb") as file:
        size = assembly.write_header(file, form.shape, form.dtype)
        # The disk space is taken now: what does not fit is known before the work.
        start = file.tell()
        file.truncate(start + size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), start, size)


def _make_store(path: Path, form: Form, like: Path | None) -> None:
    zarr = import_zarr(path)
    chunks = form.chunks()
    if like is None:
        zarr.create_array(
            path,
            shape=[form.shape[form.names.index(name)] for name in form.order],
            chunks=[chunks[name] for name in form.order],
            dtype=form.dtype,
            dimension_names=list(form.order.lower()),
        )
        return
    files = ngff.read_metadata(like)
    name, _, _ = ngff.find(files, like)
    for key, body in ngff.rechunked(files, name, [chunks[name] for name in form.order]).items():
        place = path / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)


def open_sink(path: Path, form: Form) -> Sink:
    """Open what :func:`make` made."""
    return ZarrSink(path, form) if path.suffix == ".zarr" else RawSink(path, form)


def finish(pixels: Path, target: Path, form: Form) -> None:
    """Give the finished output its name; where the file has another order, it is put together first, beside it."""
    tiff = target.suffix.lower() in (".tif", ".tiff")
    try:
        if not tiff and (pixels.suffix == ".zarr" or form.order == form.names):
            outputs.take_name(pixels, target)
            return
        temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            assembly.write_tiff(pixels, temporary, form) if tiff else assembly.write_npy(pixels, temporary, form)
            outputs.take_name(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            target, f"could not be written ({reason(error)}); free space and give --resume: the tiles are done"
        ) from None
