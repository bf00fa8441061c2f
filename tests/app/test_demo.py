"""``convpinv demo``: the story that it tells, and the number that it tells it by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from app.photographs import gain, load
from convpinv.app import demo


def test_the_demo(convpinv: Callable, listing: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from skimage import data

    whole = data.astronaut()
    # A part of the photograph: the whole one takes as long as it takes a user.
    monkeypatch.setattr(demo, "_photograph", lambda: np.ascontiguousarray(whole[60:160, 180:280]))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "restored.png").write_bytes(b"from an earlier run, which the demo may replace")
    run = convpinv("demo here")
    assert (run.code, run.err) == (0, "")
    files = {"here", *(f"here/{name}" for name in ("sharp.png", "blurred.png", "restored.png", "panel.png"))}
    assert listing() == files | {"here/report.json"}
    assert "whole picture" in run.out
    assert "outermost 8 pixels" in run.out
    assert run.out.count("alternating directions, a Fourier division") == 1
    assert max(len(line) for line in run.out.splitlines()) <= 102
    sharp, blurred, restored = (load(folder / f"{name}.png").astype(float) for name in ("sharp", "blurred", "restored"))
    assert gain(sharp, blurred, restored) > 3.0
    report = json.loads((folder / "report.json").read_text())
    # Through the public command, all automatic: the same file comes out of it, byte for byte.
    assert convpinv(f"deblur here/blurred.png again.png --psf {report['psf']}").code == 0
    assert (tmp_path / "again.png").read_bytes() == (folder / "restored.png").read_bytes()
    with Pillow.open(folder / "panel.png") as panel:
        assert panel.size[0] > 3 * blurred.shape[1]


def test_the_demo_wants_a_folder(convpinv: Callable, listing: Callable, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"precious")
    for place in ("file", "file/below"):
        run = convpinv(f"demo {place}")
        assert run.code == 2
        assert run.error_line.startswith(f"convpinv demo: {place}: ")
    assert listing() == {"file"}


def test_peak_signal_to_noise_ratio():
    truth = np.zeros((30, 30))
    picture = truth.copy()
    picture[12:18, 12:18] = 0.5
    assert demo.psnr(picture, truth) == pytest.approx(-10 * np.log10(0.25 * 36 / 900))
    picture[:] = 0.1
    assert demo.psnr(picture, truth, 8) == pytest.approx(20)
