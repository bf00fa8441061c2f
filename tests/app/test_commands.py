"""``convpinv blur`` and ``convpinv deblur``, end to end: real photographs in files, blurred and restored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from app.photographs import MOTION, gain, load, save, stored
from convpinv.app import cli


@pytest.mark.parametrize(
    ("suffix", "depth", "colour"),
    [(".png", "uint8", True), (".png", "uint16", False), (".tif", "float32", False), (".tif", "uint16", True)],
)
def test_blur_and_deblur_a_photograph(
    convpinv: Callable, listing: Callable, tmp_path: Path, photograph: np.ndarray, suffix: str, depth: str, colour: bool
):
    sharp = stored(photograph if colour else photograph[..., 1], depth)
    names = [f"{name}{suffix}" for name in ("sharp", "blurred", "restored")]
    save(tmp_path / names[0], sharp)
    run = convpinv(f"blur {names[0]} {names[1]} --psf {MOTION} --noise 0.005 --seed 3")
    assert (run.code, run.err) == (0, "")
    assert "112x112 became 104x108" in run.out

    run = convpinv(f"deblur {names[1]} {names[2]} --psf {MOTION} --report report.json")
    assert (run.code, run.err) == (0, "")
    blurred, restored = load(tmp_path / names[1]), load(tmp_path / names[2])
    assert restored.dtype == sharp.dtype
    assert restored.shape == blurred.shape
    assert gain(sharp, blurred.astype(float), restored.astype(float)) > 3.0
    assert listing() == {*names, "report.json"}

    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert report["input"] == names[1]
    assert report["output"] == names[2]
    assert report["psf"] == MOTION
    assert report["device"] == "cpu"
    assert report["prior"] == "tv"
    assert report["boundary"] == "unknown"
    assert report["seconds"] > 0
    assert isinstance(report["clipped_pixels"], int)
    for key in (
        "version",
        "strength",
        "strength_rule",
        "noise",
        "noise_rule",
        "solver",
        "iterations",
        "residual",
        "status",
        "warnings",
    ):
        assert key in report
    for word in ("prior", "strength", "noise", "solver", "time", "clipped"):
        assert f"\n{word}" in run.out


def test_a_photograph_of_a_camera_keeps_what_belongs_to_it(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    exif = Pillow.Exif()
    exif[0x0112], exif[0x0110] = 6, "A camera"
    Pillow.fromarray(photograph).save(tmp_path / "in.jpg", quality=95, exif=exif.tobytes(), icc_profile=b"a profile")
    assert convpinv("blur in.jpg blurred.jpg --psf box:size=3").code == 0
    run = convpinv("deblur blurred.jpg out.jpg --psf box:size=3 --noise 0.01")
    assert run.code == 0
    assert "note      stored turned (EXIF orientation 6)" in run.out
    with Pillow.open(tmp_path / "out.jpg") as picture:
        assert picture.info["exif"] == exif.tobytes()
        assert picture.info["icc_profile"] == b"a profile"
        assert picture.size == (110, 110)
        assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--noise 0.05 --prior tikhonov", {"noise": 0.05, "prior": "tikhonov"}),
        ("--noise 0.02 --strength 0.3 --prior tikhonov", {"noise": 0.02, "strength": 0.3, "prior": "tikhonov"}),
        ("--prior gradient --boundary circular", {"prior": "gradient", "boundary": "circular"}),
        ("--boundary reflect", {"boundary": "reflect"}),
        ("", {}),
    ],
)
def test_the_command_is_the_function(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray, line: str, options: dict
):
    from convpinv.imaging import deblur, psf

    save(tmp_path / "in.tif", stored(photograph[:48, :54, 1], "float64"))
    run = convpinv(f"deblur in.tif out.tif --psf gaussian:sigma=1 {line}")
    assert run.code == 0
    expected = deblur(tifffile.imread(tmp_path / "in.tif"), psf.gaussian(1.0), **options)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.tif"), expected, atol=1e-9)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_leaves_bad_pixels_out(
    convpinv: Callable, listing: Callable, tmp_path: Path, photograph: np.ndarray, suffix: str
):
    from convpinv.imaging import deblur, psf

    picture = stored(photograph[:48, :54, 1], "float64")
    seen = np.random.default_rng(0).random(picture.shape) > 0.1
    save(tmp_path / "in.tif", np.where(seen, picture, 5.0))
    save(tmp_path / f"mask{suffix}", seen.astype(np.uint8) * 255)
    run = convpinv(f"deblur in.tif out.tif --psf gaussian:sigma=1 --mask mask{suffix} --report out.json")
    assert (run.code, run.err) == (0, "")
    assert f"mask      mask{suffix}" in run.out
    expected = deblur(picture, psf.gaussian(1.0), mask=seen)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.tif"), expected, atol=1e-9)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["mask"] == f"mask{suffix}"
    assert report["masked"] == int((~seen).sum())
    # NaN says the same, and needs no mask.
    save(tmp_path / "nan.tif", np.where(seen, picture, np.nan))
    run = convpinv("deblur nan.tif filled.tif --psf gaussian:sigma=1")
    assert "NaN or infinite" in " ".join(run.out.split())
    np.testing.assert_allclose(tifffile.imread(tmp_path / "filled.tif"), expected, atol=1e-9)
    run = convpinv("blur nan.tif blurred.tif --psf gaussian:sigma=1")
    assert run.code == 2
    assert "nan.tif: holds " in run.error_line


def test_a_mask_that_does_not_fit_is_refused(
    convpinv: Callable, listing: Callable, tmp_path: Path, photograph: np.ndarray
):
    save(tmp_path / "in.png", photograph[:48, :54])
    save(tmp_path / "small.png", np.ones((9, 9), np.uint8))
    save(tmp_path / "black.png", np.zeros((48, 54), np.uint8))
    before = listing()
    for name, says in (
        ("small.png", "small.png: is 9x9 pixels, and the picture 54x48"),
        ("black.png", "black.png: is 0 everywhere"),
        ("none.png", "none.png: no such file"),
    ):
        run = convpinv(f"deblur in.png out.png --psf box:size=3 --mask {name}")
        assert run.code == 2
        assert says in run.error_line
        assert listing() == before
    run = convpinv("deblur in.png black.png --psf box:size=3 --mask black.png --overwrite")
    assert run.code == 2
    assert listing() == before


def test_the_words_of_the_help_are_those_of_the_library():
    # "none" here and there; a denoiser of one's own has no place on a command line.
    from convpinv.imaging.deblur import BOUNDARIES, PRIORS

    assert {word.value for word in cli.Prior} == set(PRIORS)
    assert {word.value for word in cli.Border} == set(BOUNDARIES)


@pytest.mark.parametrize(
    "options",
    [
        *(f"--prior {word.value}" for word in cli.Prior if word != "none"),
        *(f"--prior tikhonov --boundary {word.value}" for word in cli.Border),
    ],
)
def test_every_word_of_the_help_is_accepted(convpinv: Callable, tmp_path: Path, photograph: np.ndarray, options: str):
    save(tmp_path / "in.png", photograph[:30, :34, 0])
    run = convpinv(f"deblur in.png out.png --psf box:size=3 --noise 0.01 --strength 0.01 {options}")
    assert (run.code, run.err) == (0, "")


@pytest.mark.parametrize("boundary", [word.value for word in cli.BlurBorder])
def test_every_border_of_blur_is_accepted(convpinv: Callable, tmp_path: Path, photograph: np.ndarray, boundary: str):
    save(tmp_path / "in.png", photograph[:30, :34, 0])
    run = convpinv(f"blur in.png blurred.png --psf box:size=3 --boundary {boundary}")
    assert (run.code, run.err) == (0, "")
    assert load(tmp_path / "blurred.png").shape == ((28, 32) if boundary == "valid" else (30, 34))


def test_the_plain_pseudo_inverse_undoes_a_blur_without_noise(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray
):
    save(tmp_path / "sharp.tif", stored(photograph[:48, :48, 1], "float64"))
    assert convpinv("blur sharp.tif blurred.tif --psf gaussian:sigma=0.5 --boundary circular").code == 0
    run = convpinv("deblur blurred.tif restored.tif --psf gaussian:sigma=0.5 --boundary circular --prior none")
    assert run.code == 0
    sharp = tifffile.imread(tmp_path / "sharp.tif")
    np.testing.assert_allclose(tifffile.imread(tmp_path / "restored.tif"), sharp, atol=1e-6)


@pytest.mark.parametrize(("suffix", "depth", "scale"), [(".png", "uint16", 1 / 65535), (".tif", "float32", 1.0)])
def test_noise_is_of_full_scale_or_in_the_values_of_a_float_picture(
    convpinv: Callable, tmp_path: Path, suffix: str, depth: str, scale: float
):
    level = 30000 if depth == "uint16" else 500.0
    noise = 0.05 if depth == "uint16" else 20.0
    save(tmp_path / f"flat{suffix}", np.full((100, 100), level, dtype=depth))
    assert convpinv(f"blur flat{suffix} noisy{suffix} --psf box:size=3 --noise {noise} --seed 1").code == 0
    noisy = load(tmp_path / f"noisy{suffix}").astype(float)
    assert noisy.shape == (98, 98)
    assert noisy.mean() == pytest.approx(level, rel=0.01)
    assert noisy.std() * scale == pytest.approx(noise, rel=0.05)


def test_alpha_passes_through_and_follows_the_window(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    alpha = np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)
    save(tmp_path / "in.png", np.dstack([photograph[:60, :50], alpha]))
    assert convpinv("blur in.png out.png --psf box:size=4x7").code == 0
    blurred = load(tmp_path / "out.png")
    assert blurred.shape == (57, 44, 4)
    np.testing.assert_array_equal(blurred[..., 3], alpha[1:58, 3:47])
    # The window is where the light is: a PSF of one bright centre pixel cuts and does not move.
    point = np.zeros((4, 7))
    point[2, 3] = 1
    np.save(tmp_path / "point.npy", point)
    assert convpinv("blur in.png moved.png --psf point.npy").code == 0
    np.testing.assert_array_equal(load(tmp_path / "moved.png"), load(tmp_path / "in.png")[1:58, 3:47])

    assert convpinv("deblur in.png restored.png --psf box:size=3").code == 0
    np.testing.assert_array_equal(load(tmp_path / "restored.png")[..., 3], alpha)


def test_blur_is_reproducible_by_its_seed(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    save(tmp_path / "in.png", photograph[:40, :40])
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert convpinv(f"blur in.png {name}.png --psf box:size=3 --noise 0.02 --seed {seed}").code == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_cuda_is_refused_where_there_is_none(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    save(tmp_path / "in.png", photograph)
    run = convpinv("deblur in.png out.png --psf box:size=3 --device cuda")
    assert run.code == 2
    assert run.error_line == (
        "convpinv deblur: in.png: --device cuda: torch sees no such device here; use --device cpu"
    )
