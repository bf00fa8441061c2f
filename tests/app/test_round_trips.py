"""Files of every format, depth and order, made by other libraries: they come out of ``--check-io`` as they went in."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image as Pillow
from PIL import ImageCms

SIZE = (21, 34)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEPTHS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


def values(depth: str, shape: tuple[int, ...]) -> np.ndarray:
    """All bits of a depth at random; of floating point, wide numbers, both zeros, infinity and NaN."""
    generator = np.random.default_rng(7)
    dtype = np.dtype(depth)
    if dtype.kind in "iu":
        whole = np.frombuffer(generator.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()
        whole.flat[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
        return whole
    array = (generator.standard_normal(shape) * 100).astype(dtype)
    array.flat[:5] = np.nan, -0.0, np.inf, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    return array


def same(one: np.ndarray, other: np.ndarray) -> None:
    """Equal to the bit: NaN is NaN, and −0 is not 0."""
    assert one.shape == other.shape
    assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
    kind = f"u{one.dtype.itemsize}"
    bits = [np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).view(kind) for array in (one, other)]
    np.testing.assert_array_equal(bits[0], bits[1])


def exif() -> bytes:
    block = Pillow.Exif()
    block[0x0112], block[0x0110], block[0x9003] = 6, "A camera", "2026:01:02 03:04:05"
    return block.tobytes()


@pytest.fixture
def check(convpinv: Callable, tmp_path: Path) -> Callable[..., str]:
    """Run ``--check-io`` on files of tmp_path and return what it said."""

    def run(source: str, target: str, options: str = "") -> str:
        run = convpinv(f"deblur {source} {target} --check-io {options}")
        assert (run.code, run.err) == (0, "")
        assert "pixels    equal, all " in run.out
        return " ".join(run.out.split())

    return run


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


def test_jpeg_is_no_place_for_equal_pixels(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    Pillow.fromarray(photograph).save(tmp_path / "in.jpg")
    run = convpinv("deblur in.jpg out.jpg --check-io")
    assert run.code == 2
    assert "out.jpg: JPEG changes the pixels whenever it is written; name it .png or .tif" in run.error_line


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


def test_a_report_of_what_was_checked(check: Callable, tmp_path: Path):
    np.save(tmp_path / "in.npy", values("float32", SIZE))
    check("in.npy", "out.tif", "--report check.json")
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["pixels"] == "equal, all 714 values"


def test_a_file_that_would_differ_is_not_written(
    convpinv: Callable, listing: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from convpinv.app import npy

    honest = npy.encode

    def off_by_one(stored: np.ndarray, image: Any) -> bytes:
        stored.flat[7] += 1
        return honest(stored, image)

    monkeypatch.setattr(npy, "encode", off_by_one)
    np.save(tmp_path / "in.npy", values("int16", SIZE))
    run = convpinv("deblur in.npy out.npy --check-io")
    assert run.code == 1
    assert "out.npy: would differ from in.npy in 1 of 714 values; nothing was written" in run.error_line
    assert listing() == {"in.npy"}


def test_a_tile_compressed_fits_says_what_to_do(convpinv: Callable, tmp_path: Path):
    fits.CompImageHDU(values("int16", (40, 40))).writeto(tmp_path / "in.fits")
    run = convpinv("deblur in.fits out.fits --check-io")
    assert run.code == 2
    assert "unpack it with funpack first" in run.error_line


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
