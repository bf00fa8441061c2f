"""``--check-io`` as an option: what it refuses, reports and does not write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from app.bits import SIZE, values
from app.folders import OPTIONS, picture, save


@pytest.mark.parametrize(
    "option",
    [
        "--dry-run",
        "--mask nothere.png",
        "--plot p.png",
        "--memory 4G",
        "--workers 2",
        "--scheduler tcp://h:1",
        "--resume",
    ],
)
def test_an_option_that_a_copy_does_not_serve_is_refused(
    convpinv: Callable, listing: Callable, tmp_path: Path, option: str
):
    save(tmp_path / "in.png", picture(0))
    run = convpinv(f"deblur in.png out.png --check-io {option} {OPTIONS}")
    assert run.code == 2
    said = f"--check-io only reads, writes and compares; leave out {option.split()[0]}"
    assert run.error_line == f"convpinv deblur: {said}"
    assert listing() == {"in.png"}


def test_all_that_is_not_served_is_named_at_once(convpinv: Callable, listing: Callable, tmp_path: Path):
    save(tmp_path / "in.png", picture(0))
    run = convpinv("deblur in.png out.png --check-io --dry-run --mask nothere.png --plot p.png")
    assert run.code == 2
    assert run.error_line.endswith("leave out --dry-run, --mask, --plot")
    assert listing() == {"in.png"}
    # What is about the restoration alone may stay: a command is tried by adding one word to it.
    assert convpinv(f"deblur in.png out.png --check-io {OPTIONS}").code == 0


def test_jpeg_is_no_place_for_equal_pixels(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    Pillow.fromarray(photograph).save(tmp_path / "in.jpg")
    run = convpinv("deblur in.jpg out.jpg --check-io")
    assert run.code == 2
    assert "out.jpg: JPEG changes the pixels whenever it is written; name it .png or .tif" in run.error_line


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
