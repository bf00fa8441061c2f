"""Small files of every format, and ways in which files get damaged."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import zarr
from astropy.io import fits
from PIL import Image as Pillow
from zarr.codecs import BloscCodec

Content = bytes | Mapping[str, bytes]
# Numbers that headers dislike: none, all, the largest of each width.
EXTREMES = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\0",
    b"99999999",
)


def _pillow(array: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(array).save(buffer, kind, exif=exif.tobytes(), **options)
    return buffer.getvalue()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _fits(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    unit = fits.PrimaryHDU(array)
    unit.header["CTYPE1"], unit.header["CRPIX1"] = "RA---TAN", 4.5
    fits.HDUList([unit, fits.ImageHDU(array)]).writeto(buffer, checksum=True)
    return buffer.getvalue()


def _zarr(folder: Path, array: np.ndarray, **options: Any) -> dict[str, bytes]:
    scales = [{"axes": [{"name": name} for name in "zyx"], "datasets": [{"path": "0"}]}]
    version = options.pop("zarr_format")
    attributes = {"multiscales": scales} if version == 2 else {"ome": {"version": "0.5", "multiscales": scales}}
    group = zarr.create_group(folder, zarr_format=version, attributes=attributes)
    group.create_array("0", shape=array.shape, dtype=array.dtype, **options)[...] = array
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sound_files(folder: Path) -> dict[str, Content]:
    """Return small files of every format by a name."""
    grey = np.random.default_rng(3).integers(0, 256, (13, 18), dtype=np.uint8)
    colour = np.dstack([grey, grey[::-1], grey])
    wide = grey.astype(np.uint16) * 250
    stack = np.stack([wide, wide[::-1], wide])
    return {
        "grey.png": bytes(imagecodecs.png_encode(wide)),
        "colour.png": _pillow(colour, "PNG", icc_profile=b"profile", dpi=(90, 90)),
        "colour.jpg": _pillow(colour, "JPEG", icc_profile=b"profile"),
        "colour.webp": _pillow(colour, "WEBP", lossless=True, icc_profile=b"profile"),
        "lossy.webp": _pillow(colour, "WEBP"),
        "plain.tif": _tiff(wide, metadata=None),
        "packed.tif": _tiff(colour, photometric="rgb", compression="zlib", predictor=True),
        "lzw.tif": _tiff(wide, compression="lzw"),
        "zstd.tif": _tiff(wide, compression="zstd", tile=(16, 16)),
        "ome.tif": _tiff(stack, ome=True, photometric="minisblack", metadata={"axes": "ZYX", "PhysicalSizeX": 0.1}),
        "imagej.tif": _tiff(stack, imagej=True, metadata={"axes": "ZYX", "Labels": ["a", "b", "c"]}),
        "planar.tif": _tiff(np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate", bigtiff=True),
        "grey.npy": _npy(wide.astype(">f4")),
        "sky.fits": _fits(wide),
        "sky_of_floats.fits": _fits(stack.astype(np.float32)),
        "third.zarr": _zarr(folder / "3", stack, zarr_format=3, chunks=(1, 8, 8), shards=(2, 16, 16)),
        "second.zarr": _zarr(folder / "2", stack, zarr_format=2, chunks=(1, 8, 8)),
        "blosc.zarr": _zarr(
            folder / "b", stack, zarr_format=3, chunks=(1, 8, 8), shards=(2, 16, 16), compressors=[BloscCodec()]
        ),
    }


def damaged(content: Content, generator: np.random.Generator) -> Content:
    """Return a file with a few bytes changed, cut out, doubled, set to an extreme, or without its end."""
    if isinstance(content, bytes):
        return _damaged_bytes(content, generator)
    files = dict(content)
    # The metadata is where the harm lies; there are many more chunks.
    names = sorted(files)
    described = [name for name in names if "zarr.json" in name or "/." in name or name.startswith(".")]
    name = str(generator.choice(described if generator.random() < 0.7 else names))
    if generator.random() < 0.1:
        del files[name]
    else:
        files[name] = _damaged_bytes(files[name], generator)
    return files


def _damaged_bytes(data: bytes, generator: np.random.Generator) -> bytes:
    for _ in range(int(generator.integers(1, 5))):
        # Half of the harm falls on the beginning, where most formats keep what steers them.
        reach = len(data) if generator.random() < 0.5 else min(len(data), 160)
        at = int(generator.integers(0, max(reach, 1)))
        length = int(generator.integers(1, 9))
        way = int(generator.integers(0, 6))
        if way == 0:
            piece = bytes([data[at] ^ (1 << int(generator.integers(0, 8)))]) if at < len(data) else b""
            data = data[:at] + piece + data[at + 1 :]
        elif way == 1:
            data = data[:at] + generator.bytes(length) + data[at + length :]
        elif way == 2:
            data = data[:at] + data[at + length :]
        elif way == 3:
            data = data[: at + length] + data[at:]
        elif way == 4:
            extreme = EXTREMES[int(generator.integers(0, len(EXTREMES)))]
            data = data[:at] + extreme + data[at + len(extreme) :]
        elif generator.random() < 0.3:
            data = data[:at]
    return data
