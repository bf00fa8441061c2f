"""The report on a restoration in tiles has the form of that on one in memory; the plan goes into a file as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

OPTIONS = "--psf gaussian:sigma=1 --prior tv --strength 0.01 --noise 0.003"
GENERATOR = np.random.default_rng(2)
# What docs/command-line.md lists.
KEYS = {
    *("version", "input", "output", "psf", "mask", "light", "axes", "device", "seconds", "clipped_pixels", "notes"),
    *("prior", "boundary", "strength", "strength_rule", "noise", "noise_rule", "solver", "iterations", "residual"),
    *("status", "warnings", "masked", "saturated"),
}


@pytest.fixture
def picture(tmp_path: Path) -> np.ndarray[Any, Any]:
    values = (0.1 + GENERATOR.random((2, 90, 100, 3))).astype(np.float32)
    values[0, 20:30, 30:40, 1] = np.nan
    values[1, 50:70, 10:40] = 1.1
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb", metadata={"axes": "TYXS"})
    return values


def test_reports_have_one_form(convpinv: Callable, tmp_path: Path, picture: np.ndarray[Any, Any]):
    said = {}
    for name, options in (("memory", ""), ("tiles", "--memory 2G")):
        run = convpinv(f"deblur in.tif {name}.tif {OPTIONS} --report {name}.json {options}")
        assert (run.code, run.err) == (0, "")
        said[name] = json.loads((tmp_path / f"{name}.json").read_text())
    whole, parts = said["memory"], said["tiles"]
    assert set(whole) >= KEYS
    assert set(parts) >= KEYS
    for name in ("version", "input", "psf", "mask", "light", "axes", "device", "prior", "boundary", "noise_rule"):
        assert parts[name] == whole[name], name
    assert parts["output"] == "tiles.tif"
    assert parts["strength"] == [0.01] * 3
    assert parts["noise"] == [0.003] * 3
    assert parts["masked"] == whole["masked"] == 100
    assert parts["status"] == "done"
    assert parts["iterations"] is parts["residual"] is None
    assert any("100 values (0.19 %) are NaN, infinite or nodata" in warning for warning in parts["warnings"])
    assert any("axes TYXS" in note for note in parts["notes"])
    assert parts["seconds"] > 0
    assert parts["tiles"] == 2


def test_one_channel_has_one_number(convpinv: Callable, tmp_path: Path):
    np.save(tmp_path / "in.npy", GENERATOR.random((60, 70)))
    assert convpinv(f"deblur in.npy out.npy {OPTIONS} --report out.json --memory 2G").code == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["strength"], report["noise"]) == (0.01, 0.003)
    assert report["masked"] == report["saturated"] == report["clipped_pixels"] == 0


def test_the_plan_is_reported(convpinv: Callable, listing: Callable, tmp_path: Path, picture: np.ndarray[Any, Any]):
    line = f"deblur in.tif out.tif {OPTIONS} --memory 2G --dry-run --report plan.json"
    assert convpinv(line).code == 0
    assert listing() == {"in.tif", "plan.json"}
    report = json.loads((tmp_path / "plan.json").read_text())
    assert set(report) >= KEYS
    assert report["status"] == "planned"
    assert report["seconds"] is report["clipped_pixels"] is report["masked"] is None
    assert report["strength"] == [0.01] * 3
    assert report["tiles"] == 2
    assert report["estimated_seconds"] > 0
    assert report["layout"]["halo"] > 0
    # As every output, it replaces nothing unasked, and no input.
    assert "plan.json: exists already; give --overwrite" in convpinv(line).error_line
    assert convpinv(f"{line} --overwrite").code == 0
    assert "reports are written as JSON; name it .json" in convpinv(line.replace(".json", ".txt")).error_line


def test_what_a_tiff_says_beside_its_pixels_is_named_when_it_is_left_out(convpinv: Callable, tmp_path: Path):
    tags = [(274, 3, 1, 6, True), (34675, 1, None, b"profile", True), (33550, 12, 3, (1.0, 1.0, 0.0), True)]
    values = GENERATOR.random((60, 70)).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", values, extratags=tags, description="a map", metadata=None)
    said = " ".join(convpinv(f"deblur in.tif out.tif {OPTIONS} --memory 2G").out.split())
    assert "and the colour profile, the orientation, the description, the places on the earth are left out" in said
    tifffile.imwrite(tmp_path / "bare.tif", values)
    assert "left out" not in convpinv(f"deblur bare.tif out.tif {OPTIONS} --memory 2G --overwrite").out
