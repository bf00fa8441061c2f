"""``convpinv inspect``, and the plots of it and of ``convpinv psf``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from app.photographs import MOTION
from convpinv.app import plots


def test_inspect_tells_what_is_lost(convpinv: Callable):
    # Two equal taps at distance 1: |H| = |cos(π f)|, which is zero at the highest frequency of an even width only.
    out = convpinv("inspect --psf box:size=1x2 --size 8x64").out
    assert "rank      504 of 512" in out
    assert "lost      8 frequencies (1.56 %)" in out
    assert "infinite" in out
    assert "circular model" in out
    odd = convpinv("inspect --psf box:size=1x2 --size 8x63 --noise 0.2").out
    width = np.abs(np.cos(np.pi * np.arange(63) / 63))
    assert "rank      504 of 504" in odd
    assert f"condition {width.max() / width.min():.4g}" in odd
    assert f"noise by {np.sqrt(np.mean(width**-2.0)):.4g}" in odd
    assert f"|H| is below 0.2 at {8 * (width < 0.2).sum()} frequencies" in odd
    assert "above full scale nowhere" in convpinv("inspect --psf gaussian:sigma=0.4 --size 32x32").out


def test_inspect_tells_what_a_restoration_resolves(convpinv: Callable):
    from convpinv.imaging import resolution

    found = resolution("gaussian:sigma=2", (96, 64), strength=0.01, maps=False)
    out = convpinv("inspect --psf gaussian:sigma=2 --size 96x64").out
    assert f"resolves  lines down to {found.detail[0]:.3g} pixels wide with a gradient prior" in out
    assert f"multiplies noise by {found.noise_gain:.3g}" in out
    motion = convpinv("inspect --psf motion:length=9,angle=0 --size 64x64").out
    assert "lines down to 1 pixels wide in the best direction" in motion
    assert "where they change along" in motion
    assert "resolves" not in convpinv("inspect --psf gaussian:sigma=2 --size 96x64 --noise 0").out


@pytest.mark.parametrize("maps", [False, True])
def test_the_plot_of_a_resolution_is_a_picture(tmp_path: Path, maps: bool):
    from convpinv.app import plots
    from convpinv.imaging import resolution

    found = resolution("defocus:radius=2", (24, 30), strength=0.1, maps=maps, spacing=3)
    (tmp_path / "resolution.png").write_bytes(plots.resolution_plot(found, "defocus"))
    with Pillow.open(tmp_path / "resolution.png") as plot:
        assert min(plot.size) > (800 if maps else 400)
        assert np.asarray(plot.convert("L")).std() > 10


def test_plots_are_pictures(convpinv: Callable, tmp_path: Path):
    assert convpinv(f"psf {MOTION} --plot psf.png").code == 0
    assert convpinv(f"inspect --psf {MOTION} --size 64x48 --plot spectrum.png").code == 0
    for name in ("psf.png", "spectrum.png"):
        with Pillow.open(tmp_path / name) as plot:
            assert min(plot.size) > 400
            assert np.asarray(plot.convert("L")).std() > 10
    run = convpinv(f"psf {MOTION} --plot psf.png")
    assert run.code == 2
    assert "psf.png: exists already; give --overwrite" in run.error_line


def test_a_psf_larger_than_the_grid_of_a_plot_is_folded_not_cropped():
    psf = np.random.default_rng(0).random((7, 11))
    rows, columns = np.arange(7), np.arange(11)
    for size in ((16, 16), (4, 5), (4, 16)):
        down = np.exp(-2j * np.pi * np.outer(np.arange(size[0]) - size[0] // 2, rows) / size[0])
        across = np.exp(-2j * np.pi * np.outer(np.arange(size[1]) - size[1] // 2, columns) / size[1])
        np.testing.assert_allclose(plots.transfer_magnitude(psf, size), np.abs(down @ psf @ across.T), atol=1e-12)
    line = np.full((1, 3000), 1 / 3000)
    magnitude = plots.transfer_magnitude(line, (1, 5000))
    assert magnitude.shape == (1, 2048)
    assert magnitude.max() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 9), (41, 60)])
def test_the_ticks_of_a_psf_are_pixels(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]):
    figures = []
    monkeypatch.setattr(plots, "as_png", lambda figure: figures.append(figure) or b"")
    plots.psf_plot(np.full(shape, 1 / math.prod(shape)), np.ones((8, 8)), "a box")
    ticks = np.concatenate([figures[0].axes[0].get_xticks(), figures[0].axes[0].get_yticks()])
    assert 0 in ticks
    np.testing.assert_array_equal(ticks, np.rint(ticks))
