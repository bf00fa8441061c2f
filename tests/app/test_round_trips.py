"""Files of every format, depth and order, made by other libraries: they come out of ``--check-io`` as they went in."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from app.bits import DEPTHS, SIZE, same, values

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif() -> bytes:
    block = Pillow.Exif()
    block[0x0112], block[0x0110], block[0x9003] = 6, "A camera", "2026:01:02 03:04:05"
    return block.tobytes()


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(check: Callable, tmp_path: Path, depth: str, channels: int):
    array = values(depth, SIZE if channels == 1 else (*SIZE, channels))
    (tmp_path / "in.png").write_bytes(bytes(imagecodecs.png_encode(array)))
    check("in.png", "out.png")
    same(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("target", ["out.png", "out.webp"])
@pytest.mark.parametrize("source", ["in.png", "in.webp"])
def test_profile_and_exif_between_png_and_webp(check: Callable, tmp_path: Path, source: str, target: str, mode: str):
    array = values("uint8", (*SIZE, len(mode)))
    more: dict[str, Any] = {"lossless": True, "exact": True} if source.endswith("webp") else {}
    Pillow.fromarray(array).save(tmp_path / source, icc_profile=PROFILE, exif=exif(), **more)
    said = check(source, target)
    assert "colour profile, EXIF, orientation" in said
    with Pillow.open(tmp_path / target) as written:
        assert written.info["icc_profile"] == PROFILE
        assert written.info["exif"].removeprefix(b"Exif\0\0") == exif().removeprefix(b"Exif\0\0")
        same(np.asarray(written), array)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("target", ["out.png", "out.webp", "out.tif"])
def test_what_a_lossy_file_shows(check: Callable, tmp_path: Path, photograph: np.ndarray, kind: str, target: str):
    Pillow.fromarray(photograph).save(tmp_path / "in", kind, quality=80, icc_profile=PROFILE, exif=exif())
    said = check("in", target)
    shown = np.asarray(Pillow.open(tmp_path / "in"))
    if target == "out.tif":
        same(tifffile.imread(tmp_path / target), shown)
        assert "TIFF has no place here for the EXIF block but its orientation" in said
        with tifffile.TiffFile(tmp_path / target) as file:
            assert file.pages.first.iccprofile == PROFILE
            assert file.pages.first.tags[274].value == 6
    else:
        same(np.asarray(Pillow.open(tmp_path / target)), shown)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (SIZE, {}),
        ((*SIZE, 3), {"photometric": "rgb", "compression": "zlib", "predictor": True}),
        ((3, *SIZE), {"photometric": "rgb", "planarconfig": "separate", "byteorder": ">"}),
        ((4, *SIZE), {"photometric": "minisblack", "metadata": {"axes": "ZYX"}, "bigtiff": True}),
        ((2, 32, 48, 4), {"photometric": "rgb", "metadata": {"axes": "TYXS"}, "extrasamples": [2], "tile": (16, 16)}),
    ],
    ids=["grey", "RGB", "planar", "pages", "tiles"],
)
def test_tiff(check: Callable, tmp_path: Path, depth: str, shape: tuple[int, ...], options: dict):
    if "predictor" in options and depth.startswith("float"):
        options = options | {"predictor": 3}
    array = values(depth, shape)
    tifffile.imwrite(tmp_path / "in.tif", array, **options)
    check("in.tif", "out.tif")
    same(tifffile.imread(tmp_path / "out.tif"), array)
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(tmp_path / "out.tif") as after:
        assert after.is_bigtiff == before.is_bigtiff
        assert after.byteorder == before.byteorder
        assert after.series[0].axes == before.series[0].axes
        for name in ("photometric", "planarconfig", "compression", "predictor", "is_tiled", "extrasamples"):
            assert getattr(after.pages.first, name) == getattr(before.pages.first, name), name


def test_tiff_of_several_writers_keeps_its_tags(check: Callable, tmp_path: Path):
    array = values("uint8", (*SIZE, 3))
    place = (33550, 12, 3, (0.5, 0.5, 0.0), True)
    tifffile.imwrite(
        tmp_path / "in.tif", array, photometric="rgb", iccprofile=PROFILE, resolution=((3000001, 10000), (250, 1)),
        resolutionunit="centimeter", description="two\nlines", software="another", datetime="2026:01:02 03:04:05",
        metadata=None, extratags=[(315, 2, None, "the artist", True), (700, 1, None, b"<xmp/>", True), place],
    )  # fmt: skip
    check("in.tif", "out.tif")
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(tmp_path / "out.tif") as after:
        for code in (270, 282, 283, 296, 305, 306, 315, 700, 33550, 34675):
            assert after.pages.first.tags[code].value == before.pages.first.tags[code].value, code
    Pillow.fromarray(array).save(tmp_path / "pillow.tif", compression="tiff_lzw", dpi=(300, 200), icc_profile=PROFILE)
    check("pillow.tif", "pillow_out.tif")
    with Pillow.open(tmp_path / "pillow_out.tif") as written:
        assert written.info["icc_profile"] == PROFILE
        assert written.info["dpi"] == (300, 200)
        same(np.asarray(written), array)


def test_white_as_zero_stays(check: Callable, tmp_path: Path):
    array = values("uint16", SIZE)
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="miniswhite")
    check("in.tif", "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        same(file.asarray(), array)


OME = {"PhysicalSizeX": 0.065, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.07, "PhysicalSizeYUnit": "µm"}


@pytest.mark.parametrize("depth", ["uint8", "int16", "uint16", "int32", "float32"])
@pytest.mark.parametrize("order", ["TCZYX", "CZTYX", "ZYX", "YX", "CYXS"])
def test_ome_tiff(check: Callable, tmp_path: Path, order: str, depth: str):
    lengths = {"T": 2, "C": 3, "Z": 4, "Y": 21, "X": 34, "S": 3}
    array = values(depth, tuple(lengths[name] for name in order))
    metadata = (
        {"axes": order, **OME, "Channel": {"Name": ["DAPI", "GFP", "RFP"]}} if "C" in order else {"axes": order, **OME}
    )
    photometric = "rgb" if "S" in order else "minisblack"
    tifffile.imwrite(tmp_path / "in.ome.tif", array, ome=True, metadata=metadata, photometric=photometric)
    said = check("in.ome.tif", "out.ome.tif")
    assert "OME-XML" in said
    with tifffile.TiffFile(tmp_path / "in.ome.tif") as before, tifffile.TiffFile(tmp_path / "out.ome.tif") as after:
        assert after.is_ome
        assert after.ome_metadata == before.ome_metadata
        assert after.series[0].axes == before.series[0].axes
        same(after.asarray(), array)


def test_ome_tiff_whose_pages_are_in_another_order(check: Callable, tmp_path: Path):
    array = values("uint16", (3, *SIZE))
    tifffile.imwrite(tmp_path / "in.tif", array, ome=True, metadata={"axes": "ZYX", **OME}, photometric="minisblack")
    text = str(tifffile.tiffcomment(tmp_path / "in.tif"))
    blocks = "".join(f'<TiffData IFD="{page}" FirstZ="{2 - page}" PlaneCount="1"/>' for page in range(3))
    old = text[text.index("<TiffData") : text.index("</Pixels>")]
    tifffile.tiffcomment(tmp_path / "in.tif", text.replace(old, blocks).encode())
    with tifffile.TiffFile(tmp_path / "in.tif") as file:
        same(file.asarray(), array[::-1])
    check("in.tif", "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        same(file.asarray(), array[::-1])
        assert file.ome_metadata is not None
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
    assert pixels is not None
    assert {name: pixels.get(name) for name in OME} == {name: str(value) for name, value in OME.items()}


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("order", ["TZCYX", "ZYX", "TYX", "YX"])
def test_imagej(check: Callable, tmp_path: Path, order: str, depth: str):
    lengths = {"T": 2, "C": 2, "Z": 3, "Y": 21, "X": 34}
    array = values(depth, tuple(lengths[name] for name in order))
    metadata = {
        "axes": order, "spacing": 0.25, "unit": "um", "finterval": 1.5,
        "Labels": [f"plane {index}" for index in range(int(np.prod(array.shape[:-2])))],
        "Ranges": (0.0, 100.0) * lengths["C"],
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "in.tif", array, imagej=True, resolution=(15.4, 15.4), metadata=metadata)
    said = check("in.tif", "out.tif")
    assert "ImageJ's metadata" in said
    with tifffile.TiffFile(tmp_path / "in.tif") as before, tifffile.TiffFile(tmp_path / "out.tif") as after:
        assert after.is_imagej
        assert after.imagej_metadata == before.imagej_metadata
        assert after.series[0].axes == before.series[0].axes
        assert after.pages.first.tags[282].value == before.pages.first.tags[282].value
        same(after.asarray(), array)


def test_png_text_and_gamma_stay(check: Callable, tmp_path: Path):
    data = bytes(imagecodecs.png_encode(values("uint16", SIZE)))
    kept = b""
    for name, body in ((b"gAMA", struct.pack(">I", 100000)), (b"tEXt", b"Title\0A title")):
        kept += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    (tmp_path / "in.png").write_bytes(data[:33] + kept + data[33:])
    check("in.png", "out.png")
    assert kept in (tmp_path / "out.png").read_bytes()
    assert "the texts of the PNG" in check("in.png", "out.tif")


@pytest.mark.parametrize("target", ["fits", "tif", "npy", "zarr", "webp"])
def test_the_first_of_its_kind_in_a_process(target: str, tmp_path: Path) -> None:
    """A format that the process has not met when it is written: its library is imported while others keep quiet."""
    Pillow.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(tmp_path / "in.png")
    command = [sys.executable, "-m", "convpinv", "deblur", "in.png", f"out.{target}", "--check-io"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / f"out.{target}").exists()
