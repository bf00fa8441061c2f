"""TIFF by tifffile, written: with the inner layout, the tags and the metadata that the picture came with."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from convpinv.app import axes as stack_axes
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ORIENTATION, _XMP = 274, 700
_TIE_POINTS, _TRANSFORMATION = 33922, 34264
# Classic TIFF counts bytes with 32 bits; some room is left for what is not pixels.
_CLASSIC = 2**32 - 2**25


def encode(stored: NDArray[Any], image: Image) -> bytes:
    """Return the bytes of a TIFF file of stored values (…, H, W) or (…, H, W, 2 to 4)."""
    import numpy as np
    import tifffile

    native = image.native if image.format == "tiff" else {}
    samples = image.is_colour or image.alpha is not None
    array, names = stored, image.names + ("S" if samples and not image.is_colour else "")
    own = image.format == "tiff" and set(image.stored_axes) == set(names)
    order = image.stored_axes if own else names
    if own:
        array = stack_axes.as_stored(array, names, order)
    # Without an S of its own, a file of many samples a pixel comes by --axes: its last axis is written as planes.
    planar = native.get("planar", False) and samples and order.endswith("SYX")
    if not order.endswith(("YX", "YXS")):
        array, order = stack_axes.as_stored(array, order, names), names
    if samples and not planar:
        array, order = stack_axes.as_stored(array, order, names), names
    if native.get("white_is_zero"):
        array = np.iinfo(array.dtype).max - array
    more: dict[str, Any] = {"compression": native.get("compression")}
    if more["compression"] in ("lzw", "zlib", "zstd") and native.get("predictor"):
        more["predictor"] = native["predictor"]
    if native.get("tile") and all(length % 16 == 0 for length in native["tile"]):
        more["tile"] = native["tile"]
    if samples:
        more["planarconfig"] = "separate" if planar else "contig"
    if image.alpha is not None:
        more["extrasamples"] = native.get("extrasamples") or [1 if image.premultiplied else 2]
    if native.get("resolution"):
        more.update(resolution=native["resolution"], resolutionunit=native["unit"] or 2)
    elif image.dpi is not None:
        more.update(resolution=image.dpi, resolutionunit="inch")
    description = _description(image, order, array.shape)
    if description:
        more["description"] = description
    tags = [*native.get("tags", ()), *(_moved(tag, native.get("window", (0, 0))) for tag in native.get("places", ()))]
    more["software"] = False if any(tag[0] == 305 for tag in tags) else "convpinv"
    if image.xmp is not None and image.format != "tiff":
        tags.append((_XMP, 1, len(image.xmp), image.xmp))
    if image.orientation != 1:
        tags.append((_ORIENTATION, 3, 1, image.orientation))
    buffer = io.BytesIO()
    photometric = "rgb" if image.is_colour else "miniswhite" if native.get("white_is_zero") else "minisblack"
    big = native.get("bigtiff", False) or array.nbytes > _CLASSIC
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=native.get("byteorder") or "<") as file:
        file.write(
            np.ascontiguousarray(array),
            photometric=photometric,
            iccprofile=image.icc,
            metadata=None,
            extratags=[(*tag, True) for tag in tags],
            **more,
        )
    return buffer.getvalue()


def _moved(tag: tuple[int, int, int, Any], window: tuple[int, int]) -> tuple[int, int, int, Any]:
    """Return a tag of GeoTIFF for a window that starts at (top, left): the pixels' places on the earth stay."""
    code, kind, count, values = tag
    top, left = window
    if window == (0, 0) or code not in (_TIE_POINTS, _TRANSFORMATION) or count < 6:
        return tag
    moved = list(values)
    if code == _TIE_POINTS:
        # Six numbers a point: column, row and depth of a pixel, then where it lies.
        moved[0::6] = [column - left for column in moved[0::6]]
        moved[1::6] = [row - top for row in moved[1::6]]
    elif len(moved) == 16:
        # A matrix of 4 x 4 that takes (column, row, depth, 1) to a place.
        for start in (0, 4, 8):
            moved[start + 3] += moved[start] * left + moved[start + 1] * top
    return code, kind, count, tuple(moved)


def _description(image: Image, order: str, shape: tuple[int, ...]) -> bytes:
    """Return the text that says what the axes are: the picture's own as far as it stays true."""
    own = image.native.get("description", b"").rstrip(b"\0") if image.format == "tiff" else b""
    moved = "window" in image.native
    true = not moved and order == image.stored_axes and image.native.get("declared") in (None, order)
    if image.format == "tiff" and image.native.get("kind") == "ome":
        return own if true and image.native.get("in_order") else _ome(own, order, shape)
    if own.startswith(b"{") and b'"shape"' in own:
        own = b""  # tifffile's own note of shape and axes is written anew
        if true and (image.native.get("declared") or not image.axes):
            return image.native["description"].rstrip(b"\0")
    if own and not own.startswith(b"{"):
        return own
    if image.axes:
        return json.dumps({"shape": list(shape), "axes": order}).encode("ascii")
    return own


def _ome(text: bytes, order: str, shape: tuple[int, ...]) -> bytes:
    """Return OME-XML with the size of the pixels and the order of the pages as they are written, all else untouched."""
    from xml.etree import ElementTree

    root = ElementTree.fromstring(text)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    for _, uri in ElementTree.iterparse(io.BytesIO(text), events=["start-ns"]):
        ElementTree.register_namespace(*uri) if uri[0] != "" else ElementTree.register_namespace("", uri[1])
    pixels = root.find(f".//{space}Pixels")
    if pixels is None:
        return text
    lengths = dict(zip(order, shape, strict=True))
    pixels.set("SizeX", str(lengths["X"]))
    pixels.set("SizeY", str(lengths["Y"]))
    fastest_first = [name for name in reversed(order) if name in "ZCT"]
    pixels.set("DimensionOrder", "XY" + "".join([*fastest_first, *(name for name in "ZCT" if name not in order)]))
    at = next((index for index, child in enumerate(pixels) if child.tag == f"{space}TiffData"), None)
    for child in pixels.findall(f"{space}TiffData"):
        pixels.remove(child)
    count = 1
    for name in fastest_first:
        count *= lengths[name]
    data = ElementTree.Element(f"{space}TiffData", {"IFD": "0", "PlaneCount": str(count)})
    pixels.insert(len(pixels) if at is None else at, data)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
