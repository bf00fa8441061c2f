"""FITS, NPY, Zarr and stacks between formats: they come out of ``--check-io`` as they went in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import zarr
from astropy.io import fits
from astropy.wcs import WCS

from app.bits import DEPTHS, SIZE, same, values


def sky(depth: str, shape: tuple[int, ...]) -> fits.PrimaryHDU:
    unit = fits.PrimaryHDU(values(depth, shape))
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.cdelt, wcs.wcs.crval = [17, 10], [-0.1, 0.1], [83.6, 22.0]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    unit.header.update(wcs.to_header())
    unit.header["OBJECT"] = ("M 1", "what was looked at")
    unit.header.add_history("made up")
    return unit


@pytest.mark.parametrize("depth", [depth for depth in DEPTHS if depth not in ("float16", "int8")])
@pytest.mark.parametrize("shape", [SIZE, (3, *SIZE)])
def test_fits(check: Callable, tmp_path: Path, depth: str, shape: tuple[int, ...]):
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.arange(5.0))])
    fits.HDUList([sky(depth, shape), fits.ImageHDU(values("float32", SIZE), name="ERR"), table]).writeto(
        tmp_path / "in.fits", checksum=True
    )
    said = check("in.fits", "out.fits")
    assert "header" in said
    assert (tmp_path / "out.fits").read_bytes() == (tmp_path / "in.fits").read_bytes()


@pytest.mark.parametrize(("bits", "zero", "blank"), [(8, -128, None), (16, 0, -32768), (16, 32768, 32767), (32, 0, 7)])
def test_fits_with_zero_point_scale_and_blank(check: Callable, tmp_path: Path, bits: int, zero: int, blank: int | None):
    stored = values({8: "uint8", 16: "int16", 32: "int32"}[bits], SIZE)
    unit = fits.PrimaryHDU(stored)
    unit.header["BSCALE"], unit.header["BZERO"] = 1.0, float(zero)
    if blank is not None:
        stored[3, 4] = blank
        unit.header["BLANK"] = blank
    unit.writeto(tmp_path / "in.fits", output_verify="ignore")
    check("in.fits", "out.fits")
    assert (tmp_path / "out.fits").read_bytes() == (tmp_path / "in.fits").read_bytes()


@pytest.mark.parametrize("depth", [">u2", "<f8", ">f4", "|u1", "<i4", "<f2"])
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes"), [(SIZE, ""), ((2, 3, *SIZE), "TCYX"), ((*SIZE, 5), "YXZ"), ((*SIZE, 3), "YXS")]
)
def test_npy(check: Callable, tmp_path: Path, depth: str, fortran: bool, shape: tuple[int, ...], axes: str):
    array = values(np.dtype(depth).newbyteorder("=").name, shape).astype(depth)
    np.save(tmp_path / "in.npy", np.asfortranarray(array) if fortran else array)
    check("in.npy", "out.npy", f"--axes {axes}" if axes else "")
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "in.npy").read_bytes()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("depth", DEPTHS)
def test_zarr(check: Callable, tmp_path: Path, depth: str, version: Literal[2, 3]):
    array = values(depth, (3, 40, 50))
    options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == 2 else {
        "dimension_names": ["z", "y", "x"], "shards": (2, 32, 32),
    }  # fmt: skip
    made = zarr.create_array(
        tmp_path / "in.zarr", shape=array.shape, dtype=array.dtype, chunks=(1, 16, 16), zarr_format=version,
        attributes={"microscope": "ours"}, **options,
    )  # fmt: skip
    made[...] = array
    said = check("in.zarr", "out.zarr", "--axes ZYX" if version == 2 else "")
    assert "axes ZYX (3 x 40 x 50)" in said
    same(np.asarray(zarr.open_array(tmp_path / "out.zarr", mode="r")[...]), array)
    assert files_below(tmp_path / "out.zarr").keys() == files_below(tmp_path / "in.zarr").keys()
    for name, body in files_below(tmp_path / "in.zarr").items():
        if name.startswith(".z") or name == "zarr.json":
            assert json.loads(files_below(tmp_path / "out.zarr")[name]) == json.loads(body)


def ome_zarr(folder: Path, array: np.ndarray, version: Literal[2, 3]) -> dict[str, Any]:
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [0.5, 0.1, 0.1]}]
    attributes = {"multiscales": [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}]}
    if version == 3:
        attributes = {"ome": {"version": "0.5", **attributes}}
    group = zarr.create_group(folder, zarr_format=version, attributes=attributes)
    group.create_array("s0", shape=array.shape, dtype=array.dtype, chunks=(1, 16, 16))[...] = array
    return attributes


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(check: Callable, tmp_path: Path, version: Literal[2, 3]):
    array = values("uint16", (3, 40, 50))
    attributes = ome_zarr(tmp_path / "in.zarr", array, version)
    said = check("in.zarr", "out.zarr")
    assert "axes ZYX (3 x 40 x 50), as the file says" in said
    group = zarr.open_group(tmp_path / "out.zarr", mode="r", zarr_format=version)
    assert dict(group.attrs) == attributes
    same(np.asarray(group["s0"][...]), array)  # pyright: ignore[reportIndexIssue, reportArgumentType]


CONVERSIONS = [
    ("in.tif", "uint16", "out.npy"), ("in.tif", "float32", "out.fits"), ("in.tif", "int16", "out.zarr"),
    ("in.npy", "float64", "out.fits"), ("in.npy", "uint16", "out.tif"), ("in.npy", "float16", "out.zarr"),
    ("in.fits", "int32", "out.tif"), ("in.fits", "uint16", "out.zarr"), ("in.fits", "uint8", "out.npy"),
    ("in.zarr", "float32", "out.tif"), ("in.zarr", "uint32", "out.fits"), ("in.zarr", "int8", "out.npy"),
    ("in.npy", "int8", "out.fits"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "depth", "target"), CONVERSIONS)
def test_stacks_between_formats(check: Callable, tmp_path: Path, source: str, depth: str, target: str):
    array = values(depth, (3, 40, 50))
    if source == "in.tif":
        tifffile.imwrite(tmp_path / source, array, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    elif source == "in.npy":
        np.save(tmp_path / source, array)
    elif source == "in.fits":
        fits.PrimaryHDU(array).writeto(tmp_path / source)
    else:
        ome_zarr(tmp_path / source, array, 3)
    said = check(source, target, "--axes ZYX" if source in ("in.npy", "in.fits") else "")
    if target == "out.tif":
        same(tifffile.imread(tmp_path / target), array)
        with tifffile.TiffFile(tmp_path / target) as file:
            assert file.series[0].axes == "ZYX"
    elif target == "out.npy":
        same(np.load(tmp_path / target), array)
        assert "the names of the axes (ZYX)" in said
    elif target == "out.fits":
        with fits.open(tmp_path / target) as units:
            same(np.asarray(units[0].data), array)  # pyright: ignore[reportAttributeAccessIssue]
    elif target.endswith("zarr"):
        group = zarr.open_group(tmp_path / target, mode="r")
        same(np.asarray(group["0"][...]), array)  # pyright: ignore[reportIndexIssue, reportArgumentType]
        assert [axis["name"] for axis in group.attrs["ome"]["multiscales"][0]["axes"]] == ["z", "y", "x"]  # pyright: ignore
    if source == "in.fits":
        assert "the header with its coordinates" in said


def test_a_tile_compressed_fits_says_what_to_do(convpinv: Callable, tmp_path: Path):
    fits.CompImageHDU(values("int16", (40, 40))).writeto(tmp_path / "in.fits")
    run = convpinv("deblur in.fits out.fits --check-io")
    assert run.code == 2
    assert "unpack it with funpack first" in run.error_line
