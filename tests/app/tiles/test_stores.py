"""Zarr stores as OUT of a restoration in tiles: what is replaced, and what goes through."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convpinv.app import outputs
from convpinv.app.files import WriteError
from convpinv.app.tiles import sinks

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
        sinks.finish(made, target, colour=False, alpha=False)
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
