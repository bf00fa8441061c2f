"""TIFF goes in and out without a changed pixel; the files come from other libraries."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from app.samples import SHAPES, through, values
from convpinv.app import images


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("layout", SHAPES)
def test_tiff_keeps_every_pixel(tmp_path: Path, dtype: str, layout: str):
    array = values(dtype, SHAPES[layout])
    photometric = "rgb" if layout.startswith("RGB") else "minisblack"
    options: dict[str, Any] = {"extrasamples": ["unassalpha"]} if layout.endswith("alpha") else {}
    if array.ndim == 3:
        options["planarconfig"] = "contig"
    tifffile.imwrite(tmp_path / "in.tif", array, photometric=photometric, metadata=None, **options)
    image = through(tmp_path / "in.tif", tmp_path / "out.tif")
    assert image.layout == layout
    written = tifffile.imread(tmp_path / "out.tif")
    assert written.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(written, array)


@pytest.mark.parametrize(
    "options",
    [
        {"byteorder": ">"},
        {"planarconfig": "separate"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_tiff_in_every_inner_order(tmp_path: Path, options: dict):
    array = values("uint16", SHAPES["RGB"])
    stored = np.moveaxis(array, -1, 0) if "planarconfig" in options else array
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", metadata=None, **options)
    through(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), stored)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert (int(file.pages.first.compression) != 1) == ("compression" in options)


def test_tiff_written_by_pillow(tmp_path: Path):
    array = values("uint8", SHAPES["RGB+alpha"])
    Pillow.fromarray(array).save(tmp_path / "in.tif")
    through(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.tif")), array)


def test_tiff_with_white_as_zero_looks_the_same(tmp_path: Path):
    array = values("uint8", SHAPES["grey"])
    tifffile.imwrite(tmp_path / "in.tif", array, photometric="miniswhite", metadata=None)
    through(tmp_path / "in.tif", tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.png")), 255 - array)


def test_tiff_without_full_pixels_of_a_thumbnail(tmp_path: Path):
    array = values("uint8", SHAPES["grey"])
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(array, metadata=None)
        file.write(array[::2, ::2], subfiletype=1, metadata=None)
    image = through(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), array)
    assert "smaller copies" in image.notes[0]


def test_tiff_keeps_its_description_while_it_is_true(tmp_path: Path):
    array = values("uint16", (30, 20))
    tifffile.imwrite(tmp_path / "in.tif", array, description="ImageJ=1.53\nunit=µm".encode(), metadata=None)
    through(tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as file, tifffile.TiffFile(tmp_path / "in.tif") as before:
        assert file.pages.first.tags[270].value == before.pages.first.tags[270].value
    # What tifffile writes of the shape is no longer true of a window, and OME's sizes are those of the window.
    for ome in (False, True):
        tifffile.imwrite(tmp_path / "sized.tif", array, ome=ome)
        image = images.read(tmp_path / "sized.tif")
        data, _ = images.encode(image.with_pixels(image.pixels[2:, 3:], 2, 3), "x.tif")
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            assert file.series[0].shape == (28, 17)
            text = file.pages.first.description
        assert "30" not in text or ('SizeX="17"' in text and 'SizeY="28"' in text)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_tiff_is_expanded(tmp_path: Path, photometric: str):
    bits = values("uint8", (21, 34)) > 127
    tifffile.imwrite(tmp_path / "in.tif", bits, photometric=photometric, metadata=None)
    through(tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), (bits ^ (photometric == "miniswhite")) * 255)
