"""A picture as it travels between files: pixels, alpha, and what goes back into the next file with them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convpinv.app.files import UnreadableFileError
from convpinv.app.quiet import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is worked on; 64-bit integers are not: double precision has no room for them.
DEPTHS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


# No lossless coder packs pixels tighter than about 1:1400, and JPEG stays near 1:1500 on a blank page; a file that
# claims more than this, and much memory too, is damaged or a trap.
_LARGEST_EXPANSION = 2000


_HARMLESS_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture from a file, or a stack of them, and what has to go back into the next file with it.

    Attributes
    ----------
    pixels
        (H, W) or (H, W, 3), behind the axes of a stack. From integer depths, fractions of full scale, [0, 1] or
        [-1, 1]; from floating-point files, the values as they are.
    dtype
        The stored depth, one of ``DEPTHS``.
    alpha
        (…, H, W) in the stored depth, passed through untouched, or None.
    icc, exif, xmp
        The colour profile, the EXIF block (without the ``Exif`` marker of JPEG) and the XMP packet, byte for byte.
    orientation
        The EXIF orientation, 1 to 8. The pixels are kept as stored, so the tag has to travel with them.
    dpi
        Resolution (horizontal, vertical) in dots per inch.
    native
        What the file's own format carries further; used only where the output has the same format.
    notes
        What reading changed or left out, one sentence each, for the user.
    axes
        One letter for each axis of ``pixels``, ending in YX or YXS; empty for a single picture.
    stored_axes
        The same letters, and S for colours or alpha, in the order of the file; empty where the format fixes it.
    blank
        The number that marks a pixel which is not there; such pixels are NaN here.
    blank_at
        Where floating-point pixels had that number: they may be NaN for other reasons too.
    """

    pixels: NDArray[Any]
    dtype: str
    format: str
    alpha: NDArray[Any] | None = None
    premultiplied: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    orientation: int = 1
    dpi: tuple[float, float] | None = None
    native: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    axes: str = ""
    stored_axes: str = ""
    blank: float | None = None
    blank_at: NDArray[Any] | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the stored values are integers, so that the pixels are fractions of the full scale."""
        return not self.dtype.startswith("float")

    @property
    def names(self) -> str:
        """One letter for each axis of the pixels."""
        return self.axes or ("YX" if self.pixels.ndim == 2 else "YXS")

    @property
    def is_colour(self) -> bool:
        """Whether the last axis of the pixels is that of the colours."""
        return self.names.endswith("S")

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of each plane."""
        at = self.names.index("Y")
        return self.pixels.shape[at], self.pixels.shape[at + 1]

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """The lengths of the axes before rows and columns; empty for a single picture."""
        return self.pixels.shape[: self.names.index("Y")]

    @property
    def layout(self) -> str:
        """The channels in words: grey, grey+alpha, RGB or RGB+alpha."""
        return ("RGB" if self.is_colour else "grey") + ("" if self.alpha is None else "+alpha")

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
        planes = "".join(f", {name}={count}" for name, count in zip(self.names, self.stack_shape, strict=False))
        return f"{size_text(self.size)} {self.layout}, {self.dtype}{planes}"

    def with_pixels(self, pixels: NDArray[Any], top: int = 0, left: int = 0) -> Image:
        """Return the same picture with other pixels; alpha is cut to the window that starts at (top, left)."""
        at = self.names.index("Y")
        height, width = pixels.shape[at : at + 2]
        alpha = None if self.alpha is None else self.alpha[..., top : top + height, left : left + width]
        native = dict(self.native)
        if (height, width) != self.size:
            # What the size or the place of the first pixel is written into has to be told where the window lies.
            native["window"] = (top, left)
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
    if not is_plausible(claimed, held):
        gib = claimed / 2**30
        raise UnreadableFileError(
            path,
            f"claims {size_text(shape)} pixels ({gib:.3g} GiB) but holds {held} bytes; it is damaged, get it again",
        )


def is_plausible(claimed: int, held: int) -> bool:
    """Tell whether so many bytes of pixels may come out of a file of so many bytes."""
    return claimed <= _HARMLESS_BYTES or claimed <= _LARGEST_EXPANSION * held


def unit_range(stored: NDArray[Any]) -> NDArray[Any]:
    """Return stored values as floating point: integers as fractions of full scale, the others as they are."""
    import numpy as np

    if stored.dtype.kind in "ui":
        # float32 has 24 bits: every level of 8 and 16 bits survives the division and comes back by rounding; 32 bits
        # need the 53 of float64.
        working = np.float32 if stored.dtype.itemsize <= 2 else np.float64
        return stored.astype(working) / working(np.iinfo(stored.dtype).max)
    return stored.astype(np.float64 if stored.dtype.itemsize == 8 else np.float32)


def check_depth(path: str | os.PathLike[str], dtype: Any) -> str:
    """Return the name of a NumPy dtype that is worked on, and refuse all others."""
    name = dtype.newbyteorder("=").name
    if dtype.kind not in "uif" or name not in DEPTHS:
        shown = "structured" if dtype.kind == "V" else name
        raise UnreadableFileError(path, f"holds {shown} values; save it as one of {', '.join(DEPTHS)}")
    return name


def seen_range(stored: NDArray[Any], missing: float | None) -> NDArray[Any]:
    """Return what :func:`unit_range` does, and NaN where the stored value is the one of pixels that are not there."""
    import numpy as np

    pixels = unit_range(stored)
    if missing is not None:
        pixels[stored == missing] = np.nan
    return pixels


def check_gaps(path: str | os.PathLike[str], pixels: NDArray[Any], missing: float | None = None) -> None:
    """Refuse values that are no numbers, where they may not stand for pixels that are not there."""
    import numpy as np

    bad = int(pixels.size - np.isfinite(pixels).sum())
    if bad:
        raise UnreadableFileError(path, f"holds {bad} values that are {gaps_text(missing)}; fill them in first")


def gaps_text(missing: float | None) -> str:
    """Say what values are that count as not seen."""
    return "NaN or infinite" if missing is None else f"NaN, infinite or {missing:.9g}, which marks missing pixels"


def split_alpha(stored: NDArray[Any], path: str | os.PathLike[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Take (H, W), (H, W, 1 to 4) apart into the colours and alpha."""
    if stored.ndim == 2:
        return stored, None
    return split_samples(stored, path)


def split_samples(stored: NDArray[Any], path: str | os.PathLike[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Take (…, 1 to 4) apart into grey (…) or colours (…, 3), and alpha (…)."""
    channels = stored.shape[-1]
    if channels == 1:
        return stored[..., 0], None
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
        with quiet():
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
