"""Pictures that are read in pieces: TIFF, Zarr, NumPy arrays, with the axes that the file or the user names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convpinv.app import axes as stack_axes
from convpinv.app import ngff, signatures, tiff
from convpinv.app.console import MissingExtraError
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.tiles.arrays import RawSource, Source, ZarrSource

DEPTHS = ("uint8", "uint16", "float16", "float32", "float64")


def is_tileable(path: Path) -> bool:
    """Tell whether a picture is of a kind that is read in pieces."""
    if path.is_dir():
        return ngff.is_folder(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return start.startswith(signatures.NUMPY) or signatures.format_in(start) == "tiff"


@contextlib.contextmanager
def opened(path: Path, axes: str | None = None) -> Iterator[Source]:
    """Open a picture to be read in pieces.

    Parameters
    ----------
    path
        The file or folder.
    axes
        One letter for each axis of the array in the file, for files that do not say; see :mod:`convpinv.app.axes`.

    Raises
    ------
    UnreadableFileError
        With one line: the file, what is wrong with it, the remedy.
    MissingExtraError
        If it needs the ``zarr`` extra, which is not installed.
    """
    if path.is_dir():
        yield _checked(_zarr(path, axes))
        return
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({reason(error)}); check the name and the disk") from None
    if start.startswith(signatures.NUMPY):
        yield _checked(_numpy(path, axes))
    elif signatures.format_in(start) == "tiff":
        with contextlib.ExitStack() as stack:
            yield _checked(_tiff(path, axes, stack))
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
    return source


def _zarr(path: Path, axes: str | None) -> Source:
    if not ngff.is_folder(path):
        raise UnreadableFileError(path, "is a folder, and not a Zarr store; name one file in it")
    zarr = import_zarr(path)
    try:
        files = ngff.read_metadata(path)
        name, declared, notes = ngff.find(files, path)
        with quiet():
            array = zarr.open_array(path, path=name, mode="r", zarr_format=ngff.version(files, name))
        declared = declared or ngff.own_names(array)
        names, remarks = stack_axes.resolve(path, array.shape, declared, axes)
        source = ZarrSource(path, "zarr", array, names)
    except (UnreadableFileError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged store makes the library raise
        raise UnreadableFileError(path, f"is a damaged Zarr store ({reason(error)}); get it again") from None
    source.notes = (*notes, *remarks)
    return source


def _numpy(path: Path, axes: str | None) -> Source:
    import numpy as np

    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, columns_first, dtype = read(file)
            offset = file.tell()
    except (ValueError, OSError) as error:
        raise UnreadableFileError(path, f"is a damaged .npy file ({reason(error)}); save it again") from None
    if columns_first:
        raise UnreadableFileError(path, "is an array in Fortran's order; save np.ascontiguousarray of it")
    names, notes = stack_axes.resolve(path, shape, None, axes)
    source = RawSource(path, "npy", offset, dtype, shape, names)
    source.notes = notes
    return source


def _tiff(path: Path, axes: str | None, stack: contextlib.ExitStack) -> Source:
    import tifffile

    try:
        with quiet():
            file = stack.enter_context(tifffile.TiffFile(path))
            series, notes = tiff.only_series(file, path)
            page = series.levels[0].keyframe
            dtype, declared = page.dtype, tiff.declared_axes(series)
            missing = None if dtype is None else tiff.nodata(page.tags, dtype)
            lost = tiff.beside_pixels(page)
    except UnreadableFileError:
        raise
    except Exception as error:  # whatever a damaged file makes the library raise
        raise UnreadableFileError(path, f"is a damaged TIFF ({reason(error)}); get the file again") from None
    if dtype is None or dtype.name not in DEPTHS:
        raise UnreadableFileError(path, f"is a TIFF of {dtype} pixels; save it as one of {', '.join(DEPTHS)}")
    if int(page.photometric) not in (1, 2, 6):
        kind = getattr(page.photometric, "name", str(page.photometric)).lower()
        raise UnreadableFileError(path, f"is a TIFF in {kind}; in tiles grey (black as zero) and RGB are read")
    shape = tuple(map(int, series.shape))
    tiff.check_channels(page, shape, path, axes)
    names, remarks = stack_axes.resolve(path, shape, declared, axes)
    offset = series.dataoffset
    if offset is not None and not page.is_tiled:
        source = RawSource(path, "tiff", int(offset), dtype.newbyteorder(file.byteorder), shape, names)
    else:
        zarr = import_zarr(path)
        try:
            with quiet():
                store = stack.enter_context(series.aszarr(level=0))
                source = ZarrSource(path, "tiff", zarr.open(store, mode="r"), names)
        except Exception as error:
            raise UnreadableFileError(path, f"is a damaged TIFF ({reason(error)}); get the file again") from None
    gaps = () if missing is None else (tiff.nodata_note(missing),)
    left_out = (f"in tiles the pixels of a TIFF come through, and {', '.join(lost)} are left out",) if lost else ()
    source.notes = (*notes, *remarks, *gaps, *left_out)
    source.missing = missing
    return source
