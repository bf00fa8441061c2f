"""From the values of a picture file to light and back: the curves that pictures are encoded with for the screen.

A blur adds light, so it is a convolution of light, not of what a file for the screen holds: 8-bit pictures are encoded
by a curve, most often that of sRGB. Scientific files hold light as it is.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Any

from convpinv.app.raster import Image
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = ("auto", "on", "off")
# A table in a profile that stays this near to sRGB is sRGB: half a level of 8 bits, in light.
_SAME = 0.002
_UNDONE = "the curve of the file is undone"
_HIGH_RANGE = "the file has a curve for high dynamic range (cICP), which is not undone"


@dataclasses.dataclass(frozen=True)
class Curve:
    """The curve ``(a v + b) ^ g`` from ``d`` on and ``c v`` below, from a file's value to light, odd about 0.

    The ends are those of sRGB (IEC 61966-2-1) and of the parametric curves of ICC.1:2022, 10.18.
    """

    name: str
    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0

    def decode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the light of values as a file holds them."""
        import numpy as np

        size = np.abs(values)
        light = np.where(size >= self.d, np.maximum(self.a * size + self.b, 0) ** self.g, self.c * size)
        return np.copysign(light, values).astype(values.dtype)

    def encode(self, light: NDArray[Any]) -> NDArray[Any]:
        """Return the values that stand for light in a file; the inverse of :meth:`decode`."""
        import numpy as np

        size = np.abs(light)
        values = (size ** (1 / self.g) - self.b) / self.a
        if self.d > 0:
            values = np.where(size >= (self.a * self.d + self.b) ** self.g, values, size / self.c)
        return np.copysign(values, light).astype(light.dtype)

    def noise(self, sigma: Any, values: NDArray[Any]) -> Any:
        """Return what noise of deviation ``sigma``, one or one a channel, is in light.

        The curve is steeper in the lights than in the shadows; the root mean square of its slope over the picture
        keeps the noise's energy.
        """
        import numpy as np

        size = np.clip(np.abs(values), 0, 1)
        base = np.maximum(self.a * size + self.b, 1e-6)
        slope = np.where(size >= self.d, self.g * self.a * base ** (self.g - 1), self.c)
        slope = np.where(np.isfinite(values), slope, np.nan)
        square = np.nanmean(slope.astype(np.float64) ** 2, axis=(0, 1))
        found = sigma * np.sqrt(square)
        return float(found) if found.ndim == 0 else [float(one) for one in found]


SRGB = Curve("sRGB", 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@dataclasses.dataclass(frozen=True)
class Light:
    """The curve that is undone, None for values taken as light, and the words that say why."""

    curve: Curve | None
    why: str

    @property
    def text(self) -> str:
        """What is said of a picture that comes out as it went in."""
        return self.why if self.curve is None else f"linear: {_UNDONE} before and put back after ({self.why})"

    @property
    def one_way(self) -> str:
        """What is said of a picture that is only read."""
        return self.why if self.curve is None else f"{_UNDONE} ({self.why})"

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the light of values as the file holds them."""
        return values if self.curve is None else self.curve.decode(values)


def choose(image: Image, word: str) -> Light:
    """Return how the values of a picture stand for light.

    Parameters
    ----------
    image
        The picture.
    word
        ``off``: the values are taken as light; ``on``: they are decoded whatever the file is; ``auto``: decoded where
        they are encoded for the screen: PNG, JPEG and WebP that do not say otherwise, and 8-bit RGB TIFF with a
        profile.
    """
    if word not in WORDS:
        raise ArgumentError(f"--linear is {word!r}; it may be {', '.join(WORDS)}")
    if word == "off":
        return Light(None, "the values of the file are taken as light, as asked")
    screen = image.format in ("png", "jpeg", "webp") or (
        image.format == "tiff" and image.dtype == "uint8" and image.is_colour and image.icc is not None
    )
    if word == "auto" and not screen:
        return Light(None, "the values of the file are taken as light")
    curve, said = _curve(image)
    if curve is None and word == "auto":
        return Light(None, f"the values of the file are taken as light: {said}")
    if curve is None:
        curve, said = SRGB, f"sRGB, as asked, though {said}"
    return Light(curve, said)


def for_screen(image: Image, kind: str, word: str) -> tuple[Image, tuple[str, ...]]:
    """Return a picture as a file of another format has to hold it, and a note if that is by another curve.

    A PNG may state a curve of its own by gAMA or cICP. JPEG and WebP have no place for it and are shown as sRGB, so the
    values are brought to that; an embedded profile goes along and needs nothing.

    Parameters
    ----------
    image
        The picture as it would be written into its own format.
    kind
        The format of the output.
    word
        As for :func:`choose`: what the user has said of the values counts for more than the file, and is kept.
    """
    if word != "auto" or image.format != "png" or kind not in ("jpeg", "webp") or image.icc is not None:
        return image, ()
    curve, said = _curve(image)
    if curve is SRGB or (curve is None and said == _HIGH_RANGE):
        return image, ()
    pixels = SRGB.encode(image.pixels if curve is None else curve.decode(image.pixels))
    note = "the curve that the PNG states has no place there: the values are encoded by sRGB, and look the same"
    return dataclasses.replace(image, pixels=pixels), (note,)


def _curve(image: Image) -> tuple[Curve | None, str]:
    """Return the curve that a file states, None where it states light or what is not known, and the words for it."""
    chunks = dict(image.native.get("chunks", ())) if image.format == "png" else {}
    # PNG, third edition, 4.3: cICP counts most, then the profile, then sRGB, then gAMA.
    if len(chunks.get(b"cICP", b"")) == 4:
        transfer = chunks[b"cICP"][1]
        if transfer == 8:
            return None, "the file says that they are (cICP)"
        if transfer in (16, 18):
            return None, _HIGH_RANGE
        return SRGB, "sRGB"
    if image.icc is not None:
        return _of_profile(image.icc)
    if b"sRGB" not in chunks and len(chunks.get(b"gAMA", b"")) == 4:
        gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100000
        if abs(gamma - 1) < 0.01:
            return None, "the file says that they are (gAMA)"
        if 0.2 < gamma < 1 and abs(gamma - 1 / 2.2) > 0.01:  # 1 / 2.2 is how sRGB is written there
            return Curve(f"gamma {1 / gamma:.3g}", 1 / gamma), f"gamma {1 / gamma:.3g}, by gAMA"
    return SRGB, "sRGB"


def _of_profile(profile: bytes) -> tuple[Curve | None, str]:
    """Read the tone curves of an ICC profile; what is no plain curve counts as sRGB, and the words say so."""
    unread = SRGB, "sRGB, since the curve of the embedded profile is not a plain one"
    try:
        count = struct.unpack(">I", profile[128:132])[0]
        table = {}
        for index in range(min(count, 200)):
            name, start, length = struct.unpack(">4sII", profile[132 + 12 * index : 144 + 12 * index])
            table[name] = profile[start : start + length]
        found = [table[name] for name in (b"rTRC", b"gTRC", b"bTRC", b"kTRC") if name in table]
        if not found or any(curve != found[0] for curve in found):
            return unread
        return _tone_curve(found[0]) or unread
    except (struct.error, IndexError):  # a damaged profile is handed on byte for byte, and states nothing
        return unread


def _tone_curve(data: bytes) -> tuple[Curve | None, str] | None:
    """Read one curve of a profile: a gamma, a parametric curve, or a table that is sRGB's; None for any other."""
    import numpy as np

    if data[:4] == b"curv":
        count = struct.unpack(">I", data[8:12])[0]
        if count == 0:
            return None, "the embedded profile is linear"
        if count == 1:
            return _gamma(struct.unpack(">H", data[12:14])[0] / 256)
        table = np.frombuffer(data, ">u2", min(count, (len(data) - 12) // 2), 12).astype(np.float64) / 65535
        places = np.linspace(0, 1, len(table))
        if np.abs(table - places).max() < _SAME:
            return None, "the embedded profile is linear"
        return (SRGB, "sRGB, by the profile") if np.abs(table - SRGB.decode(places)).max() < _SAME else None
    if data[:4] == b"para":
        kind = struct.unpack(">H", data[8:10])[0]
        if kind not in (0, 3):  # the others have offsets, and are hardly ever met
            return None
        numbers = [
            value / 65536 for value in struct.unpack(f">{(1, 0, 0, 5)[kind]}i", data[12 : 12 + (4, 0, 0, 20)[kind]])
        ]
        if kind == 0:
            return _gamma(numbers[0])
        g, a, b, c, d = numbers
        if not (0.3 < g < 5 and a > 0 and b >= 0 and c > 0 and 0 <= d < 1):
            return None
        curve = Curve("the profile's", g, a, b, c, d)
        places = np.linspace(0, 1, 256)
        if np.abs(curve.decode(places) - SRGB.decode(places)).max() < _SAME:
            return SRGB, "sRGB, by the profile"
        return curve, f"a parametric curve of gamma {g:.3g}, by the profile"
    return None


def _gamma(value: float) -> tuple[Curve | None, str] | None:
    if abs(value - 1) < 0.01:
        return None, "the embedded profile is linear"
    if not 0.3 < value < 5:
        return None
    return Curve(f"gamma {value:.3g}", value), f"gamma {value:.3g}, by the profile"
