"""A picture as it travels between files: pixels, alpha, and what goes back into the next file with them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convpinv.app.files import UnreadableFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTEGER_DEPTHS = ("uint8", "uint16")


# No lossless coder packs pixels tighter than about 1:1400, and JPEG stays near 1:1500 on a blank page; a file that
# claims more than this, and much memory too, is damaged or a trap.
_LARGEST_EXPANSION = 2000


_HARMLESS_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture from a file, and what has to go back into the next file with it.

    Attributes
    ----------
    pixels
        (H, W) or (H, W, 3). From integer depths, in [0, 1]; from floating-point files, the values as they are.
    dtype
        The stored depth: ``uint8``, ``uint16``, ``float16``, ``float32`` or ``float64``.
    alpha
        (H, W) in the stored depth, passed through untouched, or None.
    icc, exif
        The colour profile and the EXIF block (without the ``Exif`` marker of JPEG), byte for byte.
    orientation
        The EXIF orientation, 1 to 8. The pixels are kept as stored, so the tag has to travel with them.
    dpi
        Resolution (horizontal, vertical) in dots per inch.
    native
        What the file's own format carries further; used only where the output has the same format.
    notes
        What reading changed or left out, one sentence each, for the user.
    """

    pixels: NDArray[Any]
    dtype: str
    format: str
    alpha: NDArray[Any] | None = None
    premultiplied: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    native: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether the stored values are integers, so that the pixels are fractions of the full scale."""
        return self.dtype in INTEGER_DEPTHS

    @property
    def layout(self) -> str:
        """The channels in words: grey, grey+alpha, RGB or RGB+alpha."""
        return ("grey" if self.pixels.ndim == 2 else "RGB") + ("" if self.alpha is None else "+alpha")

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, and what a user who thinks of the picture as shown has to know."""
        if self.orientation == 1:
            return self.notes
        turned = (
            f"stored turned (EXIF orientation {self.orientation}), and kept so: the PSF is that of the stored pixels"
        )
        return (*self.notes, turned)

    def describe(self) -> str:
        """Width, height, channels and depth, for a summary line."""
        return f"{size_text(self.pixels.shape)} {self.layout}, {self.dtype}"

    def with_pixels(self, pixels: NDArray[Any], top: int = 0, left: int = 0) -> Image:
        """Return the same picture with other pixels; alpha is cut to the window that starts at (top, left)."""
        height, width = pixels.shape[:2]
        alpha = None if self.alpha is None else self.alpha[top : top + height, left : left + width]
        native = dict(self.native)
        if (height, width) != self.pixels.shape[:2]:
            native.pop("description", None)  # OME and ImageJ write the size into it, which is no longer true
        return dataclasses.replace(self, pixels=pixels, alpha=alpha, native=native)


def size_text(shape: tuple[int, ...]) -> str:
    """Write the size of an array (H, W, …) as people say it: width x height."""
    return f"{shape[1]}x{shape[0]}"


def check_claim(path: str | os.PathLike[str], shape: tuple[int, ...], itemsize: int, held: int) -> None:
    """Refuse a file whose header claims far more pixels than its bytes can hold, before the memory is taken."""
    claimed = itemsize
    for length in shape:
        claimed *= int(length)
    if claimed <= 0:
        raise UnreadableFileError(path, f"claims {size_text(shape)} pixels, none at all; get the file again")
    if claimed > _HARMLESS_BYTES and claimed > _LARGEST_EXPANSION * held:
        gib = claimed / 2**30
        raise UnreadableFileError(
            path,
            f"claims {size_text(shape)} pixels ({gib:.3g} GiB) but holds {held} bytes; it is damaged, get it again",
        )


def unit_range(stored: NDArray[Any]) -> NDArray[Any]:
    """Return stored values as floating point: integers as fractions of full scale, the others as they are."""
    import numpy as np

    if stored.dtype.kind == "u":
        # float32 has 24 bits: every 16-bit level survives the division and comes back by rounding.
        return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
    return stored.astype(np.float64 if stored.dtype == np.float64 else np.float32)


def split_alpha(stored: NDArray[Any], path: str | os.PathLike[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Take (H, W), (H, W, 1 to 4) apart into the colours and alpha."""
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    if channels == 1:
        return stored.reshape(stored.shape[:2]), None
    if channels == 2:
        return stored[..., 0], stored[..., 1]
    if channels == 3:
        return stored, None
    if channels == 4:
        return stored[..., :3], stored[..., 3]
    raise UnreadableFileError(path, f"holds {channels} channels; save it as grey or RGB, with or without alpha")


def orientation_of(exif: bytes | None) -> int:
    """Return the orientation that an EXIF block states; 1, as stored, where it states none."""
    if not exif:
        return 1
    from PIL import Image as Pillow

    block = Pillow.Exif()
    try:
        block.load(b"Exif\0\0" + exif)
        value = block.get(0x0112, 1)
    except Exception:  # a damaged block is handed on byte for byte, and states nothing
        return 1
    return value if value in range(1, 9) else 1


def exif_for(image: Image) -> bytes | None:
    """Return the EXIF block to write: the picture's own, or one that states its orientation alone."""
    if image.exif is not None or image.orientation == 1:
        return image.exif
    from PIL import Image as Pillow

    block = Pillow.Exif()
    block[0x0112] = image.orientation
    return block.tobytes().removeprefix(b"Exif\0\0")
