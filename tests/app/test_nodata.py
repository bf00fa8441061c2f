"""GeoTIFF's nodata: a number that stands for pixels which are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from convpinv.imaging import deblur

WAY: dict[str, Any] = {"noise": 0.01, "prior": "tikhonov", "strength": 0.02}
OPTIONS = "--psf gaussian:sigma=1 --noise 0.01 --prior tikhonov --strength 0.02"
HOLE = (slice(5, 12), slice(20, 34))


def save(path: Path, values: np.ndarray, nodata: str, **options: Any) -> Path:
    """Write as GDAL does: the number is a text in a tag of its own."""
    options = {"photometric": "minisblack" if values.ndim == 2 else "rgb"} | options
    tifffile.imwrite(path, values, metadata=None, extratags=[(42113, 2, None, nodata, True)], **options)
    return path


def tag(path: Path) -> str:
    with tifffile.TiffFile(path) as file:
        return file.pages.first.tags[42113].value


@pytest.mark.parametrize(
    ("depth", "nodata"),
    [
        ("float32", "-9999"),
        ("float32", "-3.40282346638529e+38"),  # as GDAL writes the lowest number of this depth
        ("float64", "1e+20"),
        ("float16", "-9999"),  # which this depth holds as -10000
        ("int16", "-32768"),
        ("uint8", "0"),
        ("uint16", "65535.0"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_nodata_counts_as_not_seen(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray, depth: str, nodata: str, channels: int
):
    dtype = np.dtype(depth)
    scene = photograph[:40, :50] if channels == 3 else photograph[:40, :50, 1]
    top = np.iinfo(dtype).max if dtype.kind in "ui" else 255.0
    scene = (0.1 + 0.8 * scene / 255) * top
    values = scene.astype(dtype)
    values[HOLE] = dtype.type(float(nodata))
    save(tmp_path / "in.tif", values, nodata)
    run = convpinv(f"deblur in.tif out.tif {OPTIONS}")
    assert (run.code, run.err) == (0, "")
    assert "they count as not seen" in " ".join(run.out.split())
    seen = values.astype("float64" if dtype.itemsize == 8 else "float32") / (top if dtype.kind in "ui" else 1)
    seen[HOLE] = np.nan
    expected = deblur(seen, "gaussian:sigma=1", **WAY)
    out = tifffile.imread(tmp_path / "out.tif")
    assert out.dtype == dtype
    if dtype.kind in "ui":
        assert np.abs(out / top - np.clip(expected, np.iinfo(dtype).min / top, 1)).max() <= 1.01 / top
    else:
        np.testing.assert_allclose(out, expected, rtol=1e-3 if depth == "float16" else 1e-6)
    # The tag is kept, and stays true: nothing that was restored has its number.
    assert tag(tmp_path / "out.tif") == nodata
    assert not (out == dtype.type(float(nodata))).any()


@pytest.mark.parametrize("target", ["out.tif", "out.npy"])
@pytest.mark.parametrize(
    ("depth", "nodata", "options"),
    [
        ("float32", "-9999", {}),
        ("float32", "nan", {}),
        ("float64", "none", {}),
        ("uint16", "7", {}),
        ("uint8", "7", {"photometric": "miniswhite"}),
        ("uint8", "-9999", {}),
        ("int32", "0.5", {}),
    ],
)
def test_nodata_goes_through_to_the_bit(
    convpinv: Callable, tmp_path: Path, depth: str, nodata: str, options: dict[str, Any], target: str
):
    values = np.random.default_rng(0).integers(0, 100, (21, 34)).astype(depth)
    values[3, 4:8] = 7
    if depth.startswith("float"):
        values[:2] = -9999
        values[5, 5:8] = np.nan, np.inf, -0.0  # gaps of another kind, which stay what they are
    save(tmp_path / "in.tif", values, nodata, **options)
    run = convpinv(f"deblur in.tif {target} --check-io")
    assert (run.code, run.err) == (0, "")
    if target == "out.tif":
        assert tag(tmp_path / target) == nodata
        np.testing.assert_array_equal(tifffile.imread(tmp_path / target), values)
    elif "the mark of missing pixels" in " ".join(run.out.split()):
        assert (depth, nodata) in (("uint16", "7"), ("uint8", "7"))


def test_a_plane_without_pixels_keeps_its_nodata(convpinv: Callable, tmp_path: Path):
    values = np.random.default_rng(0).random((2, 30, 34)).astype(np.float32)
    values[1] = -9999
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        for plane in values:
            file.write(plane, metadata=None, photometric="minisblack", extratags=[(42113, 2, None, "-9999", True)])
    run = convpinv(f"deblur in.tif out.tif {OPTIONS} --axes TYX")
    assert (run.code, run.err) == (0, "")
    out = tifffile.imread(tmp_path / "out.tif")
    assert (out[1] == -9999).all()
    assert np.abs(out[0]).max() < 3
    run = convpinv(f"deblur in.tif out.npy {OPTIONS} --axes TYX")
    assert np.isnan(np.load(tmp_path / "out.npy")[1]).all()
    save(tmp_path / "empty.tif", values[1], "-9999")
    run = convpinv(f"deblur empty.tif none.tif {OPTIONS}")
    assert run.code == 2
    assert "empty.tif: holds 1020 values that are NaN, infinite or -9999, which marks missing" in run.error_line


def test_1_bit_pixels_lose_the_mark_that_is_not_theirs(convpinv: Callable, tmp_path: Path):
    tifffile.imwrite(
        tmp_path / "in.tif", np.eye(24, dtype=bool), metadata=None, extratags=[(42113, 2, None, "1", True)]
    )
    assert convpinv("deblur in.tif out.tif --check-io").code == 0
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert 42113 not in file.pages.first.tags


def test_blur_refuses_what_is_not_there(convpinv: Callable, listing: Callable, tmp_path: Path):
    values = np.random.default_rng(0).random((30, 34)).astype(np.float32)
    values[HOLE] = -9999
    save(tmp_path / "in.tif", values, "-9999")
    run = convpinv("blur in.tif out.tif --psf box:size=3")
    assert run.code == 2
    assert "in.tif: holds 98 values that are NaN, infinite or -9999, which marks missing pixels" in run.error_line
    assert listing() == {"in.tif"}


@pytest.mark.parametrize("nodata", ["0", "255"])
def test_a_mask_with_nodata(convpinv: Callable, tmp_path: Path, nodata: str):
    values = np.random.default_rng(0).random((30, 34)).astype(np.float32)
    seen = np.random.default_rng(1).random(values.shape) > 0.1
    tifffile.imwrite(tmp_path / "in.tif", values, metadata=None)
    save(tmp_path / "mask.tif", np.where(seen, 1, int(nodata)).astype(np.uint8), nodata)
    tifffile.imwrite(tmp_path / "plain.tif", seen.astype(np.uint8), metadata=None)
    assert convpinv(f"deblur in.tif out.tif {OPTIONS} --mask mask.tif").code == 0
    assert convpinv(f"deblur in.tif plain_out.tif {OPTIONS} --mask plain.tif").code == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), tifffile.imread(tmp_path / "plain_out.tif"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in.tif").rename(tmp_path / "in" / "in.tif")
    assert convpinv(f"deblur in folder {OPTIONS} --mask mask.tif").code == 0


@pytest.mark.parametrize(("depth", "nodata"), [("float32", "-9999"), ("uint16", "7"), ("uint8", "0")])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 32), "compression": "zlib"}])
def test_nodata_in_tiles(convpinv: Callable, tmp_path: Path, depth: str, nodata: str, options: dict[str, Any]):
    top = 1.0 if depth == "float32" else np.iinfo(depth).max
    values = ((0.2 + 0.6 * np.random.default_rng(0).random((90, 100))) * top).astype(depth)
    values[5:60, 20:80] = int(nodata)
    save(tmp_path / "in.tif", values, nodata, **options)
    gaps = (values / top).astype(np.float32)
    gaps[5:60, 20:80] = np.nan
    tifffile.imwrite(tmp_path / "gaps.tif", gaps, metadata=None)
    way = f"{OPTIONS.replace('tikhonov', 'gradient')} --memory 2G"
    for name in ("in", "gaps"):
        run = convpinv(f"deblur {name}.tif {name}-out.tif {way}")
        assert (run.code, run.err) == (0, "")
        assert ("are nodata, as the file says" in " ".join(run.out.split())) == (name == "in")
    found, expected = tifffile.imread(tmp_path / "in-out.tif"), tifffile.imread(tmp_path / "gaps-out.tif")
    expected = expected if depth == "float32" else np.clip(expected, 0, 1)
    np.testing.assert_allclose(found / top, expected, atol=1e-3 if depth == "float32" else 1 / top)
    with tifffile.TiffFile(tmp_path / "in-out.tif") as file:
        assert 42113 not in file.pages.first.tags
