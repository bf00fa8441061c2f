"""Every kind of file, read and written by window: the same values as read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from convpinv.app.files import UnreadableFileError
from convpinv.app.tiles.sources import opened
from tiled import restored

zarr = pytest.importorskip("zarr")
GENERATOR = np.random.default_rng(3)
GREY = GENERATOR.integers(0, 65536, (150, 171), np.uint16)
RGB = GENERATOR.integers(0, 256, (150, 171, 3), np.uint8)
STACK = GENERATOR.random((3, 150, 171)).astype(np.float32)


def make(path: Path, values: np.ndarray[Any, Any], **options: Any) -> Path:
    """Write an array as the name and the options say."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".zarr":
        array = zarr.create_array(
            path, shape=values.shape, chunks=(*values.shape[:-2], 64, 64), dtype=values.dtype, **options
        )
        array[:] = values
    else:
        tifffile.imwrite(path, values, **options)
    return path


# Arrays of more than two axes are named by the file or by --axes.
AXES = {"rgb.npy": "YXS", "stack.npy": "ZYX", "stack.tif": "TYX", "stack.zarr": "ZYX"}
KINDS = [
    ("grey.npy", GREY, {}),
    ("rgb.npy", RGB, {}),
    ("stack.npy", STACK, {}),
    ("big-endian.npy", GREY.astype(">u2"), {}),
    ("grey.tif", GREY, {}),
    ("big-endian.tif", GREY, {"byteorder": ">"}),
    ("rgb.tif", RGB, {"photometric": "rgb"}),
    ("stack.tif", STACK, {"photometric": "minisblack"}),
    ("tiled.tif", GREY, {"tile": (64, 64), "bigtiff": True}),
    ("tiled-rgb.tif", RGB, {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"}),
    ("strips.tif", GREY, {"rowsperstrip": 16, "compression": "zlib"}),
    ("planar.tif", np.ascontiguousarray(np.moveaxis(RGB, -1, 0)), {"photometric": "rgb", "planarconfig": "separate"}),
    ("three.zarr", GREY, {}),
    ("two.zarr", GREY, {"zarr_format": 2}),
    ("stack.zarr", STACK, {}),
]


@pytest.mark.parametrize(("name", "values", "options"), KINDS, ids=[kind[0] for kind in KINDS])
def test_windows_are_those_of_the_whole(
    name: str, values: np.ndarray[Any, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    path = make(tmp_path / name, values, **options)
    expected = np.moveaxis(values, 0, -1) if name == "planar.tif" else values
    with opened(path, AXES.get(name)) as source:
        assert source.size == (150, 171)
        assert source.shape == expected.shape
        planes = expected.reshape(source.planes, 150, 171, *(() if source.channels is None else (source.channels,)))
        for plane in range(source.planes):
            window = source.read(plane, (13, 120), (40, 171))
            assert window.dtype.isnative
            assert np.array_equal(window, planes[plane, 13:120, 40:171])


@pytest.mark.parametrize(
    ("source", "target"),
    [("rgb.tif", "out.tif"), ("rgb.npy", "out.zarr"), ("stack.npy", "out.tif"), ("grey.tif", "out.npy")],
)
def test_a_sharp_picture_comes_through(source: str, target: str, tmp_path: Path) -> None:
    """Hardly blurred and hardly smoothed, all comes back: shape, depth, order of planes and channels."""
    values, options = next((kind[1], kind[2]) for kind in KINDS if kind[0] == source)
    path = make(tmp_path / source, values, **options)
    options = {"prior": "gradient", "strength": 1e-9, "noise": 1e-4, "axes": AXES.get(source)}
    report = restored(path, tmp_path / target, "gaussian:sigma=0.2", 32, 16, **options)
    assert report["tiles"] > 4
    out = tmp_path / target
    result = (
        tifffile.imread(out) if out.suffix == ".tif" else np.load(out) if out.suffix == ".npy" else zarr.open(out)[:]
    )
    assert result.dtype == values.dtype
    assert result.shape == values.shape
    tolerance = 1e-3 if values.dtype.kind == "f" else 1
    assert np.abs(result.astype(float) - values.astype(float)).max() <= tolerance


def test_alpha_comes_through_and_gaps_are_filled(tmp_path: Path) -> None:
    values = np.concatenate([RGB, GENERATOR.integers(0, 256, (150, 171, 1), np.uint8)], -1)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    options = {"prior": "gradient", "strength": 0.1, "noise": 0.01}
    restored(tmp_path / "in.tif", tmp_path / "out.tif", "gaussian:sigma=1", 32, 16, **options)
    assert np.array_equal(tifffile.imread(tmp_path / "out.tif")[..., 3], values[..., 3])

    gaps = STACK[0].copy()
    gaps[40:44] = np.nan
    gaps[100:140, 100:150] = np.inf
    np.save(tmp_path / "gaps.npy", gaps)
    restored(tmp_path / "gaps.npy", tmp_path / "full.npy", "gaussian:sigma=1", 32, 16, **options)
    assert np.isfinite(np.load(tmp_path / "full.npy")).all()


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = make(tmp_path / "a.npy", GREY).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-5])
    (tmp_path / "fortran.npy").write_bytes(b"")
    np.save(tmp_path / "fortran.npy", np.asfortranarray(GREY))
    np.save(tmp_path / "line.npy", GREY[0])
    np.save(tmp_path / "complex.npy", GREY.astype(complex))
    (tmp_path / "empty.zarr").mkdir()
    tifffile.imwrite(tmp_path / "cut.tif", GREY, tile=(64, 64))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:60])
    for name, problem in {
        "cut.npy": "is cut off",
        "fortran.npy": "Fortran's order",
        "line.npy": "a picture has two",
        "complex.npy": "holds complex128 values",
        "empty.zarr": "not a Zarr store",
        "cut.tif": "TIFF",
        "none.npy": "cannot be read",
    }.items():
        with pytest.raises(UnreadableFileError, match=problem), opened(tmp_path / name):
            pass
