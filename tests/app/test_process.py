"""The program as a shell sees it, what it imports, and what its summaries look like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.photographs import save
from convpinv import __version__
from convpinv.app import console, restoring


def test_a_long_entry_of_a_summary_goes_on_below_its_text():
    lines = console.row("strength", "0.001 (" + "a long rule " * 20 + ")")
    assert len(lines) > 2
    assert lines[0].startswith("strength  0.001 (a long")
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith(" " * 10) and line[10] != " " for line in lines[1:])


def test_numbers_for_people():
    assert restoring.show((0.00072671, 0.00074551)) == "0.000727, 0.000746"
    assert restoring.show((0.012341, 0.012339)) == "0.0123"
    assert restoring.show(None) == "None"


@pytest.mark.parametrize("module", ["convpinv", "convpinv.app.cli"])
def test_python_runs_it_as_a_module(module: str):
    done = shell(f"{sys.executable} -m {module} --version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"convpinv {__version__}\n", "")


def test_the_version_brings_neither_torch_nor_numpy():
    code = (
        "import sys; from convpinv.app.cli import main; main(['--version']); "
        "sys.exit(str({'torch', 'numpy'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["psf box:size=3", "--help", "--version"])
def test_standard_output_that_cannot_be_written(line: str):
    command = f"{sys.executable} -m convpinv {line}"
    full = shell(f"{command} > /dev/full")
    assert full.returncode == 1
    name = "convpinv psf" if line.startswith("psf") else "convpinv"
    assert full.stderr == f"{name}: standard output cannot be written (No space left on device)\n"
    # A reader that leaves early, like head, is no fault of anybody.
    left = shell(f"{command} | true")
    assert left.stderr == ""


def shell(line: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(console.__file__).parents[2])}
    environment.pop("PYTHONUNBUFFERED", None)  # a buffer that cannot be emptied is the harder case, and the usual one
    return subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=120)


def test_help_brings_neither_torch_nor_numpy():
    code = (
        "import sys; from convpinv.app.cli import main; code = main(['deblur', '--help']); "
        "heavy = {'torch', 'numpy', 'PIL', 'tifffile', 'imagecodecs', 'skimage', 'matplotlib'} & set(sys.modules); "
        "sys.exit(code or (f'heavy: {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--psf" in done.stdout


def test_the_real_process(tmp_path: Path, photograph: np.ndarray):
    """As a shell sees it: exit codes, one line on standard error, nothing on it when all is well."""
    save(tmp_path / "in.png", photograph[:40, :40])
    start = [sys.executable, "-c", "import sys; from convpinv.app.cli import main; sys.exit(main())"]
    environment = {**os.environ, "PYTHONPATH": str(Path(console.__file__).parents[2])}

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*start, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )

    done = shell("deblur", "in.png", "out.png", "--psf", "box:size=3")
    assert (done.returncode, done.stderr) == (0, "")
    refused = shell("deblur", "in.png", "out.png", "--psf", "box:size=3")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert (
        refused.stderr == "convpinv deblur: out.png: exists already; give --overwrite to replace it, or another name\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["in.png", "out.png"]


def test_the_bar_waits_and_needs_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with console.Working("in.png") as working:
        working(1, 10)
        monkeypatch.setattr(console, "_SILENT_SECONDS", 0.0)
        working(2, 10)  # standard error is no terminal here
        assert working._bar is None
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        working(3, 10)
        assert working._bar is not None
        working(4, 10)
    assert "in.png" in capsys.readouterr().err


def test_reports_are_strict_json():
    made = restoring._plain({"a": float("nan"), "b": (np.float32(0.5), np.arange(2)), "c": {"d": Path("x")}, "e": None})
    assert json.dumps(made, allow_nan=False) == '{"a": null, "b": [0.5, [0, 1]], "c": {"d": "x"}, "e": null}'
