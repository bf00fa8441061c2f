"""Pipes, the plot of a restoration, and options that are the library's arguments."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from app.folders import OPTIONS, picture, save
from convpinv.app import deblur_plot


class Stream(io.TextIOWrapper):
    """Standard input or output with bytes below."""

    def __init__(self, data: bytes = b""):
        super().__init__(io.BytesIO(data), encoding="utf-8")


@pytest.mark.parametrize(("suffix", "options"), [(".png", ""), (".jpg", ""), (".png", "--format tif")])
def test_a_pipe_carries_what_a_file_holds(
    convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, options: str
):
    source = save(tmp_path / f"in{suffix}", picture(3, (30, 34)))
    ending = ".tif" if options else suffix
    assert convpinv(f"deblur in{suffix} out{ending} {OPTIONS}").code == 0
    monkeypatch.setattr(sys, "stdin", Stream(source.read_bytes()))
    out = Stream()
    monkeypatch.setattr(sys, "stdout", out)
    run = convpinv(f"deblur - - {OPTIONS} --report r.json {options}")
    assert run.code == 0
    assert "wrote" in run.err  # what is said goes where no picture goes
    assert (tmp_path / "r.json").exists()
    written = out.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert written == (tmp_path / f"out{ending}").read_bytes()


def test_an_empty_pipe_is_one_line(convpinv: Callable, monkeypatch: pytest.MonkeyPatch, listing: Callable):
    monkeypatch.setattr(sys, "stdin", Stream())
    run = convpinv(f"deblur - out.png {OPTIONS}")
    assert run.code == 2
    assert run.error_line == "convpinv deblur: -: standard input is empty; send a picture into it"
    assert listing() == set()


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--prior gradient --bounds 0.2,0.7", {"prior": "gradient", "bounds": (0.2, 0.7)}),
        ("--prior gradient --bounds 0.3,", {"prior": "gradient", "bounds": (0.3, None)}),
        ("--prior hyperlaplacian --exponent 0.5", {"prior": "hyperlaplacian", "exponent": 0.5}),
        ("--clip off", {"clip": False}),
        ("--clip ,0.5", {"clip": (None, 0.5)}),
    ],
)
def test_options_are_arguments(convpinv: Callable, tmp_path: Path, line: str, options: dict):
    from convpinv.imaging import deblur, psf

    image = picture(1, (30, 34)) / 255
    tifffile.imwrite(tmp_path / "in.tif", image, photometric="minisblack")
    common = "--psf gaussian:sigma=1 --strength 0.01 --noise 0.01"
    assert convpinv(f"deblur in.tif out.tif {common} {line}").code == 0
    expected = deblur(image, psf.gaussian(1.0), strength=0.01, noise=0.01, **options)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.tif"), expected, atol=1e-9)
    plain = deblur(image, psf.gaussian(1.0), strength=0.01, noise=0.01, prior=options.get("prior", "tv"))
    assert np.abs(plain - expected).max() > 1e-4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--bounds 1,0", "--bounds is '1,0'; it may be two numbers LOW,HIGH"),
        ("--bounds 1", "--bounds is '1'"),
        ("--bounds ,", "--bounds is ','"),
        ("--bounds 0,nan", "--bounds is '0,nan'"),
        ("--bounds 0,1 --prior tikhonov", "--bounds is for --prior tv, hyperlaplacian, gradient"),
        ("--exponent 0.5", "--exponent is for --prior hyperlaplacian"),
        ("--exponent 2 --prior hyperlaplacian", "--exponent is '2'"),
        ("--clip sometimes", "--clip is 'sometimes'; it may be auto, off, or two numbers"),
        ("--plot p.pdf", "p.pdf: plots are written as PNG"),
        ("--plot out.png", "out.png: --plot and OUT are one file"),
    ],
)
def test_bad_values_are_one_line(convpinv: Callable, tmp_path: Path, listing: Callable, line: str, said: str):
    save(tmp_path / "in.png", picture(1))
    run = convpinv(f"deblur in.png out.png --psf box:size=3 {line}")
    assert run.code == 2
    assert said in run.error_line
    assert listing() == {"in.png"}


@pytest.mark.parametrize(
    "options", ["", "--strength 0.01", "--strength discrepancy --prior tikhonov --noise 0.01", "--prior none"]
)
def test_the_plot_is_a_picture(convpinv: Callable, tmp_path: Path, photograph: np.ndarray, options: str):
    save(tmp_path / "in.png", photograph[:50, :60])
    run = convpinv(f"deblur in.png out.png --psf gaussian:sigma=0.5 --plot plot.png {options}")
    assert (run.code, run.err) == (0, "")
    drawn = imagecodecs.png_decode((tmp_path / "plot.png").read_bytes())
    assert drawn.shape[0] > 800
    assert drawn.std() > 20


def test_the_crop_is_where_most_changes():
    plane = np.zeros((90, 120))
    plane[60:70, 80:90] = picture(2, (10, 10))
    top, bottom, left, right = deblur_plot.busiest(plane, 20)
    assert (bottom - top, right - left) == (20, 20)
    assert top <= 60 < 70 <= bottom
    assert left <= 80 < 90 <= right
    assert deblur_plot.busiest(np.ones((5, 7)), 20) == (0, 5, 0, 7)


def test_white_noise_has_its_variance_at_every_frequency():
    plane = np.random.default_rng(0).normal(5.0, 0.3, (200, 300))
    frequencies, power = deblur_plot.radial_power(plane)
    assert frequencies[-1] < 0.5
    np.testing.assert_allclose(power[20:], 0.09, rtol=0.5)
    assert power[20:].mean() == pytest.approx(0.09, rel=0.05)
