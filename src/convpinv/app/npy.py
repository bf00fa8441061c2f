"""NPY: one array of NumPy's, in any order of its bytes and axes."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app import raster
from convpinv.app.files import UnreadableFileError, reason
from convpinv.app.quiet import quiet
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decode(data: bytes, path: str | os.PathLike[str], *, gaps: bool = False, axes: str | None = None) -> Image:
    """Return the picture or the stack in the bytes of an NPY file."""
    import numpy as np

    shape, fortran, dtype, start = header(data, path)
    raster.check_depth(path, dtype)
    if any(length <= 0 for length in shape):
        raise UnreadableFileError(path, f"holds an array of shape {shape}, no pixel at all; save it again")
    count = math.prod(shape)
    if count * dtype.itemsize > len(data) - start:
        raise UnreadableFileError(path, "is cut off (an NPY without all its values); get the file again")
    names, notes = stack_axes.resolve(path, shape, None, axes)
    stored = np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return stack_axes.image_of(
        stored,
        path,
        names,
        gaps=gaps,
        format="npy",
        native={"dtype": dtype.str, "fortran": fortran},
        notes=notes,
    )


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of an NPY file of stored values, in the picture's own order of bytes and axes if it had one."""
    import numpy as np

    array = stack_axes.file_order(stored, image, "npy")
    fortran = False
    if image.format == "npy":
        array = array.astype(image.native["dtype"], copy=False)
        fortran = bool(image.native["fortran"])
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="F" if fortran else "C"), allow_pickle=False)
    return buffer.getvalue()


def header(data: bytes, path: str | os.PathLike[str]) -> tuple[tuple[int, ...], bool, Any, int]:
    """Return shape, whether the first axis runs fastest, dtype, and the place of the first value of an NPY file."""
    import numpy as np

    stream = io.BytesIO(data[: 2**16])
    try:
        with quiet():
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            else:
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # the header is a Python literal: parsing what is damaged raises anything
        raise UnreadableFileError(path, f"is a damaged .npy file ({reason(error)}); save it again") from None
    if dtype.hasobject or dtype.subdtype is not None:
        raise UnreadableFileError(path, "holds Python objects or structures; save it as an array of numbers")
    return tuple(int(length) for length in shape), bool(fortran), dtype, stream.tell()
