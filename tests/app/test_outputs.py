"""What is written is there whole or not at all, whatever ends the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.photographs import MOTION, load, save
from convpinv.app import files, outputs
from convpinv.arguments import ConvergenceError


def test_overwrite_replaces_and_keeps_the_permissions(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    save(tmp_path / "in.png", photograph[:40, :40])
    (tmp_path / "in.png").chmod(0o640)
    before = (tmp_path / "in.png").read_bytes()
    assert convpinv("blur in.png in.png --psf box:size=3").code == 2
    assert (tmp_path / "in.png").read_bytes() == before
    assert convpinv("blur in.png in.png --psf box:size=3 --overwrite").code == 0
    assert load(tmp_path / "in.png").shape == (38, 38, 3)
    assert (tmp_path / "in.png").stat().st_mode & 0o777 == 0o640


def test_a_failed_computation_leaves_nothing(
    convpinv: Callable, listing: Callable, tmp_path: Path, photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    from convpinv import imaging

    def fail(*_, **__):
        raise ConvergenceError("deblur: no end after 500 iterations;\n raise the strength")

    monkeypatch.setattr(imaging, "deblur", fail)
    save(tmp_path / "in.png", photograph)
    run = convpinv("deblur in.png out.png --psf box:size=3 --report r.json")
    assert run.code == 1
    assert run.error_line == "convpinv deblur: in.png: no end after 500 iterations; raise the strength"
    assert listing() == {"in.png"}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "in.png: not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_memory_and_interruption(
    convpinv: Callable,
    listing: Callable,
    tmp_path: Path,
    photograph: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
):
    from convpinv import imaging

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(imaging, "deblur", fail)
    save(tmp_path / "in.png", photograph)
    run = convpinv("deblur in.png out.png --psf box:size=3")
    assert run.code == code
    assert said in run.error_line
    assert listing() == {"in.png"}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(
    convpinv: Callable,
    listing: Callable,
    tmp_path: Path,
    photograph: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
):
    def fail(*_):
        raise OSError(28, "No space left on device")

    save(tmp_path / "in.png", photograph[:30, :30])
    monkeypatch.setattr(os, broken, fail)
    run = convpinv("blur in.png out.png --psf box:size=3")
    assert run.code == 1
    assert "out.png: could not be written (No space left on device)" in run.error_line
    assert listing() == {"in.png"}


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(files.WriteError, match="nowhere"):
        outputs.write_all({tmp_path / "a.png": b"a", tmp_path / "nowhere" / "b.json": b"b"})
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("module", "line", "remedy"),
    [
        ("matplotlib", f"psf {MOTION} --plot psf.png", "pip install 'convpinv[plot]'"),
        ("skimage", "demo here", "pip install 'convpinv[demo]'"),
    ],
)
def test_a_missing_extra_has_a_remedy(
    convpinv: Callable, listing: Callable, monkeypatch: pytest.MonkeyPatch, module: str, line: str, remedy: str
):
    monkeypatch.setitem(sys.modules, module, None)
    run = convpinv(line)
    assert run.code == 2
    assert run.error_line.endswith(remedy)
    assert listing() == set()
