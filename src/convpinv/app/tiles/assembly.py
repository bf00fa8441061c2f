"""Files whose pixels have to come in their order: put together of an array of all tiles, a block at a time."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from convpinv.app.quiet import quiet
from convpinv.app.tiles.arrays import Source
from convpinv.app.tiles.form import Form
from convpinv.app.tiles.sources import opened

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows and columns of a TIFF's tiles.
_TIFF_TILE = 256
# Bytes of a block, far below what is kept free of the memory.
_BLOCK = 2**24


def write_header(file: IO[bytes], shape: tuple[int, ...], dtype: str) -> int:
    """Write the header of a ``.npy`` file, and return the bytes of the values that are to follow."""
    import numpy as np

    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    return np.dtype(dtype).itemsize * math.prod(shape)


def write_npy(pixels: Path, target: Path, form: Form) -> None:
    """Write a ``.npy`` file in the order of the file."""
    import numpy as np

    lengths = dict(zip(form.names, form.shape, strict=True))
    shape = tuple(lengths[name] for name in form.order)
    item = np.dtype(form.dtype).itemsize
    # The first axes are gone through entry by entry, until what lies within an entry is a block or less.
    depth = next(axis for axis in range(len(shape)) if math.prod(shape[axis + 1 :]) * item <= _BLOCK)
    step = max(1, _BLOCK // (math.prod(shape[depth + 1 :]) * item))
    with opened(pixels, form.names) as source, open(target, "xb") as file:
        write_header(file, shape, form.dtype)
        for place in np.ndindex(*shape[:depth]):
            spans = {name: (0, length) for name, length in lengths.items()}
            spans |= {name: (index, index + 1) for name, index in zip(form.order, place, strict=False)}
            for start in range(0, shape[depth], step):
                spans[form.order[depth]] = (start, min(start + step, shape[depth]))
                block = _block(source, form, spans)
                values = block.transpose([form.names.index(name) for name in form.order])
                file.write(np.ascontiguousarray(values).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _block(source: Source, form: Form, spans: Mapping[str, tuple[int, int]]) -> NDArray[Any]:
    """Return a part of all planes, in the order of the form."""
    import numpy as np

    block = np.empty([stop - start for start, stop in (spans[name] for name in form.names)], form.dtype)
    samples = (slice(*spans["S"]),) if "S" in spans else ()
    stack = [range(*spans[name]) for name in form.names if name not in "YXS"]
    for index in itertools.product(*stack):
        plane = int(np.ravel_multi_index(index, form.stack)) if index else 0
        place = tuple(entry - some.start for entry, some in zip(index, stack, strict=True))
        block[place] = source.read(plane, spans["Y"], spans["X"])[(..., *samples)]
    return block


def write_tiff(pixels: Path, target: Path, form: Form) -> None:
    """Write a BigTIFF in tiles; of a stack it says what the axes are."""
    import numpy as np
    import tifffile

    side = _TIFF_TILE
    with opened(pixels, form.names) as source:
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

        more: dict[str, Any] = {"extrasamples": ["unassalpha"]} if source.channels in (2, 4) else {}
        if channels:
            more["planarconfig"] = "contig"
        if source.stack:
            more["description"] = json.dumps({"shape": list(form.shape), "axes": form.names})
        with quiet(), open(target, "xb") as file:
            tifffile.imwrite(
                file,
                tiles(),
                shape=source.shape,
                dtype=source.dtype,
                tile=(side, side),
                bigtiff=True,
                photometric="rgb" if source.channels in (3, 4) else "minisblack",
                metadata=None,
                software="convpinv",
                **more,
            )
            file.flush()
            os.fsync(file.fileno())
