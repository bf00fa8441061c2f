"""Zarr stores as OUT of a restoration in tiles: what is replaced, and what goes through."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convpinv.app import outputs
from convpinv.app.files import WriteError
from convpinv.app.tiles import sinks
from convpinv.app.tiles.form import Form

zarr = pytest.importorskip("zarr")
OPTIONS = "--psf gaussian:sigma=1 --prior gradient --strength 0.01 --noise 0.003 --memory 2G"
GENERATOR = np.random.default_rng(5)


def store(path: Path, values: np.ndarray[Any, Any], **options: Any) -> Path:
    zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=(64,) * values.ndim, **options)[...] = values
    return path


@pytest.mark.parametrize("options", ["", OPTIONS.removeprefix("--psf gaussian:sigma=1 ")])
def test_a_folder_that_is_no_store_stays(convpinv: Callable, listing: Callable, tmp_path: Path, options: str):
    np.save(tmp_path / "in.npy", GENERATOR.random((40, 50)))
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years")
    before = listing()
    run = convpinv(f"deblur in.npy mine.zarr --psf gaussian:sigma=1 {options} --overwrite")
    assert run.code == 2
    assert run.error_line == "convpinv deblur: mine.zarr: is a folder; name a file in it"
    assert listing() == before


def test_a_folder_that_appears_during_the_work_stays(tmp_path: Path):
    target, made = tmp_path / "out.zarr", store(tmp_path / "made.zarr", np.ones((8, 8)))
    target.mkdir()
    (target / "thesis.txt").write_text("years")
    with pytest.raises(WriteError, match=r"out\.zarr: could not be written"):
        sinks.finish(made, target, Form((8, 8), "YX", "YX", "float64", 256))
    assert [path.name for path in target.iterdir()] == ["thesis.txt"]


def test_stores_and_files_are_replaced_by_stores(tmp_path: Path):
    target = store(tmp_path / "out.zarr", np.zeros((8, 8)))
    for _ in range(2):
        outputs.take_name(store(tmp_path / "made.zarr", np.ones((8, 8))), target)
        assert zarr.open_array(target, mode="r")[...].all()  # pyright: ignore[reportAttributeAccessIssue]
        assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
        shutil.rmtree(target)
        target.write_bytes(b"a file of that name")


def test_a_store_may_be_its_own_output(convpinv: Callable, listing: Callable, tmp_path: Path):
    values = GENERATOR.random((70, 80))
    store(tmp_path / "in.zarr", values)
    run = convpinv(f"deblur in.zarr in.zarr {OPTIONS}")
    assert "in.zarr: OUT and IN are one file; give --overwrite to replace it" in run.error_line
    assert convpinv(f"deblur in.zarr out.zarr {OPTIONS}").code == 0
    assert convpinv(f"deblur in.zarr in.zarr {OPTIONS} --overwrite").code == 0
    found, expected = (np.asarray(zarr.open_array(tmp_path / name, mode="r")[...]) for name in ("in.zarr", "out.zarr"))
    np.testing.assert_array_equal(found, expected)
    assert {name.partition("/")[0] for name in listing()} == {"in.zarr", "out.zarr"}


@pytest.mark.parametrize("options", ["", "--memory 2G"])
@pytest.mark.parametrize("name", ["old.zarr", "old"])
def test_a_slash_after_a_store_is_no_folder(
    convpinv: Callable, listing: Callable, tmp_path: Path, name: str, options: str
):
    store(tmp_path / "in.zarr", GENERATOR.random((40, 50)))
    store(tmp_path / name, np.full((40, 50), 7.0))
    before = listing()
    line = "--psf gaussian:sigma=1 --prior gradient --strength 0.01 --noise 0.003 --overwrite"
    run = convpinv(f"deblur in.zarr/ {name}/ {line} {options}")
    if name == "old":  # a store by its content, and its name says no format
        assert run.code == 2
        assert listing() == before
        return
    assert (run.code, run.err) == (0, "")
    assert listing() == before
    assert zarr.open_array(tmp_path / name, mode="r")[...].max() < 5  # pyright: ignore[reportAttributeAccessIssue]


def test_several_pictures_do_not_go_into_a_store(convpinv: Callable, listing: Callable, tmp_path: Path):
    for name in ("a.zarr", "b.zarr", "old.zarr"):
        store(tmp_path / name, GENERATOR.random((40, 50)))
    before = listing()
    run = convpinv("deblur a.zarr b.zarr old.zarr/ --psf gaussian:sigma=1 --overwrite")
    assert run.code == 2
    assert "old.zarr: is a Zarr store, one picture; several pictures go into a folder" in run.error_line
    assert listing() == before
    # A store without its ending is a picture among the others, and has no output without --format.
    (tmp_path / "in").mkdir()
    (tmp_path / "a.zarr").rename(tmp_path / "in" / "a")
    run = convpinv("deblur in out --psf gaussian:sigma=1")
    assert run.code == 1
    assert "the name has no ending" in " ".join(run.out.split())
    assert convpinv("deblur in more --psf gaussian:sigma=1 --format zarr").code == 0
    assert (tmp_path / "more" / "a.zarr").is_dir()


def images_of(path: Path) -> dict[str, Any]:
    """All that the files of a store say, but for the chunks."""
    said = {}
    for file in sorted(path.rglob("*")):
        if file.name in ("zarr.json", ".zarray", ".zgroup", ".zattrs"):
            said[file.relative_to(path).as_posix()] = json.loads(file.read_bytes())
    return said


@pytest.mark.parametrize(("version", "sharded"), [(2, False), (3, False), (3, True)])
def test_metadata_goes_through(convpinv: Callable, tmp_path: Path, version: Any, sharded: bool):
    values = GENERATOR.random((2, 70, 80)).astype(np.float32)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [0.5, 0.1, 0.1]}]
    attributes: dict[str, Any] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "s/0", "coordinateTransformations": scale}]}]
    }
    if version == 3:
        attributes = {"ome": {"version": "0.5", **attributes}, "lab": "ours"}
    group = zarr.create_group(tmp_path / "in.zarr", zarr_format=version, attributes=attributes)
    more: dict[str, Any] = {"shards": (2, 64, 64)} if sharded else {}
    more |= {"dimension_names": list("zyx")} if version == 3 else {"order": "F"}
    group.create_array(
        "s/0", shape=values.shape, dtype=">f4" if version == 2 else "f4", chunks=(1, 32, 32), fill_value=0.5,
        attributes={"gain": 2.5}, compressors=zarr.codecs.ZstdCodec(level=7) if version == 3 else "auto", **more,
    )[...] = values  # fmt: skip
    with warnings.catch_warnings():  # version 3 has no words for it yet, and stores hold it all the same
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(tmp_path / "in.zarr", zarr_format=version)
    for name, options in (("memory", OPTIONS.replace(" --memory 2G", "")), ("tiles", OPTIONS)):
        run = convpinv(f"deblur in.zarr {name}.zarr {options}")
        assert (run.code, run.err) == (0, "")
    said, expected = images_of(tmp_path / "tiles.zarr"), images_of(tmp_path / "memory.zarr")
    array = "s/0/zarr.json" if version == 3 else "s/0/.zarray"
    # All is said that is said after the way through memory, but for the size of the chunks.
    for one in (said, expected):
        one[array].pop("chunk_grid" if version == 3 else "chunks")
        if sharded:
            one[array].pop("codecs")
    assert said == expected
    for version_seen in (None, version):
        group = zarr.open_group(tmp_path / "tiles.zarr", mode="r", zarr_format=version_seen)
        assert dict(group.attrs) == attributes
        found: Any = group["s/0"]
        assert found.chunks == (1, 70, 80)
        assert found.attrs["gain"] == 2.5
        whole: Any = zarr.open_group(tmp_path / "memory.zarr", mode="r")["s/0"]
        assert np.abs(found[...] - whole[...]).max() < 0.02
    if sharded:
        assert [codec.level for codec in found.compressors] == [7]


def test_what_was_a_bare_array_stays_one(convpinv: Callable, tmp_path: Path):
    store(tmp_path / "in.zarr", GENERATOR.random((70, 80)), attributes={"gain": 2.5}, dimension_names=("y", "x"))
    assert convpinv(f"deblur in.zarr out.zarr {OPTIONS}").code == 0
    array = zarr.open_array(tmp_path / "out.zarr", mode="r")
    assert dict(array.attrs) == {"gain": 2.5}
    assert array.metadata.dimension_names == ("y", "x")  # pyright: ignore[reportAttributeAccessIssue]
    assert array.chunks == (70, 80)


def test_levels_that_are_left_out_are_named(convpinv: Callable, tmp_path: Path):
    datasets = [{"path": str(level)} for level in (0, 1)]
    scales = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": datasets}]
    group = zarr.create_group(tmp_path / "in.zarr", attributes={"ome": {"version": "0.5", "multiscales": scales}})
    for level in (0, 1):
        group.create_array(str(level), shape=(70 >> level, 80 >> level), dtype="f4", chunks=(32, 32))[...] = 1.5
    run = convpinv(f"deblur in.zarr out.zarr {OPTIONS}")
    assert "the array 0 is used; left out: 1" in " ".join(run.out.split())
    assert sorted(path.name for path in (tmp_path / "out.zarr").iterdir()) == ["0", "zarr.json"]


def test_a_new_store_names_its_axes(convpinv: Callable, tmp_path: Path):
    np.save(tmp_path / "in.npy", GENERATOR.random((2, 40, 50, 3)).astype(np.float32))
    assert convpinv(f"deblur in.npy out.zarr {OPTIONS} --axes TYXS").code == 0
    array: Any = zarr.open_array(tmp_path / "out.zarr", mode="r")
    assert array.metadata.dimension_names == ("t", "y", "x", "s")
    # And is read as what it was.
    assert "50x40 RGB, float32, T=2" in convpinv(f"deblur out.zarr again.zarr {OPTIONS}").out
