"""Axes in tiles: named by the file or by the user, as in memory, and never guessed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from convpinv.app import axes as stack_axes
from convpinv.app.files import TargetError
from convpinv.app.restoring import Request
from convpinv.app.tiles import memory, run
from convpinv.app.tiles.sources import opened
from convpinv.imaging import blur
from tiled import end_after_one_step, restored

zarr = pytest.importorskip("zarr")
GENERATOR = np.random.default_rng(9)
WAY = "--psf gaussian:sigma=1 --prior gradient --strength 0.01 --noise 0.003"
LENGTHS = {"T": 2, "C": 5, "Z": 3, "Y": 60, "X": 70, "S": 4}


def blurred(count: int, rows: int = 60, columns: int = 70) -> np.ndarray[Any, Any]:
    """Planes of coarse noise, float32, each with a level of its own."""
    scenes = np.kron(GENERATOR.random((count, rows // 5, columns // 5)), np.ones((5, 5)))
    return np.stack([blur(scene + index, "gaussian:sigma=1", boundary="reflect") for index, scene in enumerate(scenes)])


def store(path: Path, values: np.ndarray[Any, Any], **options: Any) -> None:
    zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=(32,) * values.ndim, **options)[...] = values


def same_in_tiles(convpinv: Callable, source: str, target: str, options: str = "") -> tuple[Any, str]:
    """Restore in memory and in tiles, compare, and return the pixels and what was said of the tiles."""
    first, second = f"memory-{target}", f"tiles-{target}"
    whole = convpinv(f"deblur {source} {first} {WAY} {options}")
    assert (whole.code, whole.err) == (0, "")
    parts = convpinv(f"deblur {source} {second} {WAY} {options} --memory 2G")
    assert (parts.code, parts.err) == (0, "")

    def pixels(name: str) -> np.ndarray[Any, Any]:
        if name.endswith(".npy"):
            return np.load(name)
        if name.endswith(".tif"):
            return tifffile.imread(name)
        node: Any = zarr.open(name, mode="r")
        return np.asarray((node if isinstance(node, zarr.Array) else next(node.arrays())[1])[...])

    expected, found = pixels(first), pixels(second)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    top = np.iinfo(found.dtype).max if found.dtype.kind == "u" else 1.0
    assert np.abs(found.astype(float) - expected).max() < 0.02 * top
    return found, " ".join(parts.out.split())


@pytest.mark.parametrize("options", [{"dimension_names": ("y", "x", "c")}, {"zarr_format": 2}])
def test_dimension_names_say_what_the_axes_are(convpinv: Callable, tmp_path: Path, options: dict[str, Any]):
    values = np.moveaxis(blurred(31), 0, -1).astype(np.float32)
    if "zarr_format" in options:
        options = {**options, "attributes": {"_ARRAY_DIMENSIONS": ["y", "x", "c"]}}
    store(tmp_path / "in.zarr", values, **options)
    _, said = same_in_tiles(convpinv, "in.zarr", "out.zarr")
    assert "in.zarr: 70x60 grey, float32, C=31" in said
    assert "axes YXC (60 x 70 x 31), as the file says" in said


@pytest.mark.parametrize("order", ["cyx", "yxc", "tczyx"])
def test_the_axes_of_multiscales_say_it(convpinv: Callable, tmp_path: Path, order: str):
    planes = {"cyx": (3,), "yxc": (3,), "tczyx": (2, 1, 3)}[order]
    values = blurred(int(np.prod(planes))).reshape(*planes, 60, 70).astype(np.float32)
    values = np.moveaxis(values, 0, -1) if order == "yxc" else values
    axes = [{"name": name} for name in order]
    scales = [{"axes": axes, "datasets": [{"path": "s/0"}]}]
    group = zarr.create_group(tmp_path / "in.zarr", attributes={"ome": {"version": "0.5", "multiscales": scales}})
    group.create_array("s/0", shape=values.shape, dtype=values.dtype, chunks=(16,) * values.ndim)[...] = values
    with opened(tmp_path / "in.zarr") as source:
        assert source.names == order.upper()
        assert source.stack == planes
        np.testing.assert_array_equal(
            source.read(source.planes - 1, (3, 50), (4, 70)),
            values[3:50, 4:70, -1] if order == "yxc" else values[(-1,) * len(planes)][3:50, 4:70],
        )


@pytest.mark.parametrize("shape", [(60, 70, 2), (60, 70, 4), (3, 60, 70), (1, 60, 70)])
@pytest.mark.parametrize("kind", ["npy", "zarr", "tif"])
def test_arrays_that_do_not_say_are_refused(
    convpinv: Callable, listing: Callable, tmp_path: Path, kind: str, shape: tuple[int, ...]
):
    values = GENERATOR.random(shape).astype(np.float32)
    if kind == "npy":
        np.save(tmp_path / "in.npy", values)
    elif kind == "zarr":
        store(tmp_path / "in.zarr", values)
    else:
        tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack", metadata={"axes": "QYX"})
    before = listing()
    ways = ("", "--memory 2G", "--memory 2G --dry-run")
    lines = {convpinv(f"deblur in.{kind} out.npy {WAY} {way}").error_line for way in ways}
    (line,) = lines
    assert f"in.{kind}: " in line
    assert "--axes" in line
    assert listing() == before


def test_what_is_alpha_is_said(convpinv: Callable, tmp_path: Path):
    planes = np.moveaxis(np.clip(blurred(4) / 5, 0, 1), 0, -1)
    values = (planes * 65535).astype(np.uint16)
    for count, words in ((2, "grey+alpha"), (4, "RGB+alpha")):
        np.save(tmp_path / "in.npy", values[..., 4 - count :])
        found, said = same_in_tiles(convpinv, "in.npy", "out.npy", "--axes YXS --overwrite")
        assert f"in.npy: 70x60 {words}, uint16" in said
        np.testing.assert_array_equal(found[..., -1], values[..., -1])
        found, said = same_in_tiles(convpinv, "in.npy", "out.npy", "--axes YXC --overwrite")
        assert f"in.npy: 70x60 grey, uint16, C={count}" in said
        assert (found[..., -1] != values[..., -1]).mean() > 0.5


ORDERS = [
    *("".join(order) for order in itertools.permutations("CYX")),
    *("".join(order) for order in itertools.permutations("SYX")),
    *("TZYX", "ZYXC", "YZXC", "XTYS", "SXTY", "YXZS", "TSYX", "YTSXC"),
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_windows_in_any_order_of_axes(tmp_path: Path, order: str, kind: str):
    values = GENERATOR.random([LENGTHS[name] for name in order]).astype(">f4" if kind == "npy" else "f4")
    path = tmp_path / f"in.{kind}"
    np.save(path, values) if kind == "npy" else store(path, values, dimension_names=list(order.lower()))
    expected, names = stack_axes.canonical(values, order)
    with opened(path, order if kind == "npy" else None) as source:
        assert source.shape == expected.shape
        assert source.order == names
        flat = expected.reshape(source.planes, *expected.shape[len(source.stack) :])
        for plane in (0, source.planes - 1):
            window = source.read(plane, (13, 50), (40, 70))
            np.testing.assert_array_equal(window, flat[plane, 13:50, 40:70])
            assert window.dtype.isnative


@pytest.mark.parametrize("order", ["YXC", "XYC", "CXY", "ZYXC", "SYX", "YXZS"])
@pytest.mark.parametrize("target", ["npy", "zarr", "tif"])
@pytest.mark.parametrize("source", ["npy", "zarr"])
def test_the_order_of_the_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, source: str, target: str
):
    """Hardly blurred and hardly smoothed, all comes back, in its place, by many tiles and small blocks."""
    from convpinv.app.tiles import assembly

    monkeypatch.setattr(assembly, "_BLOCK", 3000)
    lengths = [{**LENGTHS, "C": 3, "Z": 2, "S": 3}[name] for name in order]
    values = GENERATOR.random(lengths).astype(np.float32)
    path, out = tmp_path / f"in.{source}", tmp_path / f"out.{target}"
    np.save(path, values) if source == "npy" else store(path, values, dimension_names=list(order.lower()))
    report = restored(path, out, "gaussian:sigma=0.2", 32, 16, prior="gradient", strength=1e-9, noise=1e-4, axes=order)
    assert report["tiles"] > 4
    same = source == target
    expected = values if same else stack_axes.canonical(values, order)[0]
    if target == "npy":
        found = np.load(out)
    elif target == "zarr":
        array: Any = zarr.open_array(out, mode="r")
        found = array[...]
        names = order if same else stack_axes.canonical_order(order)
        assert "".join(array.metadata.dimension_names).upper() == names
    else:
        with tifffile.TiffFile(out) as file:
            found = file.asarray()
            assert file.series[0].axes == stack_axes.canonical_order(order)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_samples_of_a_tiff_that_are_no_colours(convpinv: Callable, tmp_path: Path):
    values = np.moveaxis(blurred(9), 0, -1).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="minisblack", planarconfig="contig")
    run = convpinv(f"deblur in.tif out.tif {WAY} --memory 2G")
    assert run.code == 2
    assert "in.tif: holds 9 channels in each pixel and does not say what they are" in run.error_line
    for name, options in (("in.tif", {}), ("tiled.tif", {"tile": (32, 32), "compression": "zlib"})):
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack", planarconfig="contig", **options)
        found, said = same_in_tiles(convpinv, name, f"{name[:-4]}.npy", "--axes YXC")
        assert "float32, C=9" in said
        assert found.shape == (9, 60, 70)


def test_a_large_array_that_does_not_say_is_not_read_whole(
    convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    np.save(tmp_path / "in.npy", GENERATOR.random((3, 60, 70)))
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    monkeypatch.setattr("convpinv.app.images.read", lambda *_, **__: pytest.fail("read whole"))
    run = convpinv(f"deblur in.npy out.npy {WAY}")
    assert run.code == 2
    assert "in.npy: has 3 axes (3 x 60 x 70) and does not say what they are" in run.error_line


def test_going_on_keeps_the_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.save(tmp_path / "in.npy", GENERATOR.random((3, 60, 70)))
    options: dict[str, Any] = {"psf": "gaussian:sigma=1", "prior": "gradient", "strength": 0.1, "noise": 0.01}
    end_after_one_step(Request(tmp_path / "in.npy", tmp_path / "out.npy", axes="ZYX", **options), monkeypatch)
    with pytest.raises(TargetError, match="begun with another --axes"):
        run.deblur_large(Request(tmp_path / "in.npy", tmp_path / "out.npy", axes="TYX", resume=True, **options))
    run.deblur_large(Request(tmp_path / "in.npy", tmp_path / "out.npy", axes="ZYX", resume=True, **options))
    assert np.load(tmp_path / "out.npy").shape == (3, 60, 70)


def test_a_stack_written_as_tiff_says_its_axes(convpinv: Callable, tmp_path: Path):
    tifffile.imwrite(tmp_path / "in.tif", blurred(3), photometric="minisblack", metadata={"axes": "ZYX"})
    same_in_tiles(convpinv, "in.tif", "out.tif")
    with tifffile.TiffFile(tmp_path / "tiles-out.tif") as file:
        assert json.loads(file.pages.first.description)["axes"] == "ZYX"
    assert convpinv(f"deblur tiles-out.tif again.tif {WAY} --memory 2G").code == 0


@pytest.mark.parametrize("names", ["ZYX", "zY", "YXS"])
def test_names_that_do_not_fit(convpinv: Callable, tmp_path: Path, names: str):
    np.save(tmp_path / "in.npy", GENERATOR.random((60, 70, 5)))
    run = convpinv(f"deblur in.npy out.npy {WAY} --memory 2G --axes {names}")
    if names == "ZYX":  # 70 rows of 5 pixels, smaller than the PSF
        assert "must not be larger than the picture" in run.error_line
    assert run.code == 2
    assert run.error_line
