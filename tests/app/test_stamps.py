"""Inputs that are folders: going on sees that one was written into, wherever its pixels lie in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.folders import OPTIONS
from convpinv.app import files
from convpinv.app.restoring import Request
from convpinv.app.tiles import run as tiles
from tiled import end_after_one_step

zarr = pytest.importorskip("zarr")
GENERATOR = np.random.default_rng(11)


def store(path: Path, values: np.ndarray[Any, Any]) -> Path:
    """Without compression, so that other pixels are as many bytes."""
    zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=(16, 16), compressors=None)[...] = values
    return path


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def test_what_is_written_into_a_store_is_seen(convpinv: Callable, tmp_path: Path):
    source = store(tmp_path / "in" / "z.zarr", GENERATOR.random((32, 34)))
    assert convpinv(f"deblur in out {OPTIONS}").code == 0
    assert "kept      1" in convpinv(f"deblur in out {OPTIONS} --resume").out
    before = pixels(tmp_path / "out" / "z.zarr")
    zarr.open_array(source, mode="r+")[20:30, 20:30] = 3.0
    run = convpinv(f"deblur in out {OPTIONS} --resume")
    assert run.code == 2
    assert "z.zarr: exists, made with other options or of another input; --overwrite replaces it" in run.error_line
    run = convpinv(f"deblur in out {OPTIONS} --resume --overwrite")
    assert (run.code, run.err) == (0, "")
    assert np.abs(pixels(tmp_path / "out" / "z.zarr") - before).max() > 1


def test_a_mask_in_a_store_counts_by_its_content(convpinv: Callable, tmp_path: Path):
    store(tmp_path / "in" / "z.zarr", GENERATOR.random((32, 34)))
    seen = np.ones((32, 34), np.uint8)
    store(tmp_path / "mask.zarr", seen)
    options = f"{OPTIONS} --mask mask.zarr"
    assert convpinv(f"deblur in out {options}").code == 0
    assert "kept      1" in convpinv(f"deblur in out {options} --resume").out
    zarr.open_array(tmp_path / "mask.zarr", mode="r+")[3:9, 3:9] = 0
    assert "made with other options" in convpinv(f"deblur in out {options} --resume").error_line


def test_tiles_are_of_one_state_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = store(tmp_path / "in.zarr", GENERATOR.random((100, 110))), tmp_path / "out.npy"
    request = Request(source, target, "gaussian:sigma=1", prior="gradient", strength=0.1, noise=0.01)
    end_after_one_step(request, monkeypatch, core=32, grain=16)
    zarr.open_array(source, mode="r+")[90:, 90:] = 3.0
    again = Request(source, target, "gaussian:sigma=1", prior="gradient", strength=0.1, noise=0.01, resume=True)
    with pytest.raises(files.TargetError, match="was begun for another"):
        tiles.deblur_large(again, core=32, grain=16)


def test_stamps(tmp_path: Path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (folder / name).write_bytes(b"1234")
        os.utime(folder / name, ns=(10**18, 10**18))
    os.symlink("nowhere", folder / "link")
    found = [files.stamp(folder)]
    assert found[0][0] == 8
    assert files.stamp(folder) == found[0]
    # As large, and older than what was there: as rsync and unpacking leave it.
    (folder / "deep" / "b").write_bytes(b"5678")
    os.utime(folder / "deep" / "b", ns=(10**17, 10**17))
    found.append(files.stamp(folder))
    (folder / "deep" / "b").rename(folder / "deep" / "c")
    found.append(files.stamp(folder))
    (folder / "empty").touch()
    found.append(files.stamp(folder))
    assert len(set(found)) == 4
    assert files.stamp(folder / "a") == (4, 10**18)
    with pytest.raises(FileNotFoundError):
        files.stamp(tmp_path / "none")


def test_contents_are_those_of_what_was_written(tmp_path: Path):
    parts = {"zarr.json": b"{}", "c/0/0": b"1234"}
    for name, data in parts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert files.content(tmp_path) == files.content_of(parts)
    assert files.content(tmp_path / "c/0/0") == files.content_of(b"1234")
