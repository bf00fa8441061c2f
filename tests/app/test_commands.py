"""The commands, end to end: real photographs in files, blurred, restored, looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from convpinv import __version__
from convpinv.app import cli, console, demo, files, outputs, plots, restoring
from convpinv.arguments import ConvergenceError

MOTION = "motion:length=9,angle=30"


def save(path: Path, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    if path.suffix == ".png":
        path.write_bytes(bytes(imagecodecs.png_encode(array)))
    else:
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None)


def load(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes()) if path.suffix == ".png" else tifffile.imread(path)


def gain(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> float:
    """How many decibels nearer to the truth."""
    height, width = before.shape[:2]
    top, left = (truth.shape[0] - height) // 2, (truth.shape[1] - width) // 2
    window = truth[top : top + height, left : left + width].astype(float)
    return 10 * float(np.log10(np.mean((before - window) ** 2) / np.mean((after - window) ** 2)))


def stored(photograph: np.ndarray, depth: str) -> np.ndarray:
    """The photograph in another depth."""
    if depth == "uint8":
        return photograph
    if depth == "uint16":
        return photograph.astype(np.uint16) * 257
    return (photograph / 255).astype(depth)


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


@pytest.mark.parametrize("name", ["psf.tif", "psf.png", "psf.npy"])
def test_psf_goes_to_a_file_and_back(convpinv: Callable, tmp_path: Path, photograph: np.ndarray, name: str):
    run = convpinv(f"psf {MOTION} -o {name}")
    assert run.code == 0
    assert "5 rows x 9 columns" in run.out
    assert "sum       1\n" in run.out
    assert "centroid  row 2.00, column 4.00" in run.out
    assert convpinv(f"psf {MOTION} -o {name}").code == 2
    if name == "psf.png":
        array = imagecodecs.png_decode((tmp_path / name).read_bytes())
        assert array.dtype == np.uint16
        assert array.max() == 65535
    save(tmp_path / "in.png", photograph[:40, :40])
    assert convpinv(f"blur in.png by_file.png --psf {name}").code == 0
    assert convpinv(f"blur in.png by_text.png --psf {MOTION}").code == 0
    difference = load(tmp_path / "by_file.png").astype(int) - load(tmp_path / "by_text.png")
    assert np.abs(difference).max() <= 1


def test_the_drawing_shows_the_shape(convpinv: Callable):
    out = convpinv("psf box:size=2x3").out
    assert out.endswith("  @@@@@@\n  @@@@@@\n")
    drawing = convpinv("psf motion:length=9,angle=90").out.splitlines()[-9:]
    assert drawing == ["  @@"] * 9
    assert max(len(line) for line in convpinv("psf defocus:radius=90").out.splitlines()) < 100


def test_a_grey_psf_saved_as_colour_is_grey_and_a_colour_one_is_not(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray
):
    grey = np.zeros((5, 5), np.uint8)
    grey[1:4, 2] = 100, 200, 100
    Pillow.fromarray(np.dstack([grey] * 3)).save(tmp_path / "grey.png")
    Pillow.fromarray(np.dstack([grey, grey.T, grey])).save(tmp_path / "colour.png")
    assert "5 rows x 5 columns\n" in convpinv("psf grey.png").out
    assert "5 rows x 5 columns, 3 channels\n" in convpinv("psf colour.png").out
    save(tmp_path / "in.png", photograph[:30, :30])
    assert convpinv("blur in.png out.png --psf colour.png --linear off").code == 0
    out = load(tmp_path / "out.png").astype(float)
    window = photograph[:30, :30].astype(float)
    along = (window[1:-3] + 2 * window[2:-2] + window[3:-1]) / 4
    across = (window[:, 1:-3] + 2 * window[:, 2:-2] + window[:, 3:-1]) / 4
    assert np.abs(out[..., 0] - along[:, 2:-2, 0]).max() <= 0.51
    assert np.abs(out[..., 1] - across[2:-2, :, 1]).max() <= 0.51


def test_an_off_centre_psf_is_warned_of(convpinv: Callable, tmp_path: Path):
    array = np.zeros((9, 9))
    array[0, 0] = 1
    np.save(tmp_path / "corner.npy", array)
    assert "warning   the centre of mass" in convpinv("psf corner.npy").out


def test_what_is_wrong_with_a_psf_is_said_and_put_right(convpinv: Callable, tmp_path: Path):
    from convpinv.imaging import psf

    shifted = 100 + 1000 * np.roll(np.pad(psf.gaussian(1.5).numpy(), 8), (3, -2), (0, 1))
    np.save(tmp_path / "shifted.npy", shifted)
    out = convpinv("psf shifted.npy -o good.npy").out
    assert "corrected the PSF stands on a constant background" in out
    assert "corrected the PSF is point-symmetric" in out
    assert "corrected" not in convpinv("psf good.npy").out
    good = np.load(tmp_path / "good.npy")
    middle = good.shape[0] // 2
    assert np.abs(good[middle - 6 : middle + 7, middle - 6 : middle + 7] - psf.gaussian(1.5).numpy()).max() < 1e-6
    assert "was recentred" in " ".join(convpinv("inspect --psf shifted.npy --size 64x64").out.split())


def test_a_psf_is_measured_in_pictures(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    from convpinv.imaging import blur, psf

    truth = psf.gaussian(1.4, 13).numpy()
    beads = np.zeros((80, 90))
    beads[20, 25], beads[55, 60] = 9, 7
    save(tmp_path / "beads.tif", (blur(beads, truth, noise=0.003, seed=0, boundary="zeros") + 0.1).astype("float32"))
    across = np.arange(64) - 32 - 0.1 * np.arange(64)[:, None] + 3.2
    save(tmp_path / "edge.tif", blur(np.clip(across + 0.5, 0, 1), truth, noise=0.002, seed=0).astype("float32"))
    grey = photograph.mean(-1) / 255
    save(tmp_path / "sharp.tif", grey.astype("float32"))
    save(tmp_path / "blurred.tif", blur(grey, truth, noise=0.001, seed=0).astype("float32"))
    for options, said, error in (
        ("--from-points beads.tif", "2 points used", 0.05),
        ("--from-edge edge.tif", "slanted by 5.7 degrees", 0.1),
        ("--from-pair sharp.tif blurred.tif", "0 rows lower", 0.1),
    ):
        run = convpinv(f"psf {options} --size 13 -o found.npy --overwrite")
        assert run.code == 0, run.err
        assert said in run.out
        assert "of the peak" in run.out
        found = np.load(tmp_path / "found.npy")
        assert np.abs(found - truth).max() < error * truth.max()
    assert convpinv("deblur blurred.tif out.tif --psf found.npy").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("psf", "give one of SPEC|FILE, --from-points, --from-edge, --from-pair"),
        ("psf box:size=3 --from-edge a.png --size 9", "give one of"),
        ("psf --from-points grey.png", "--from-points needs --size N"),
        ("psf box:size=3 --size 9", "--size is for a PSF that is measured"),
        ("psf --from-points grey.png --size 8", "grey.png: size is 8; it must be odd"),
        ("psf --from-points grey.png --size 9", "grey.png: image is without a usable point"),
        ("psf --from-edge grey.png --size 9", "grey.png: image is without an edge"),
        ("psf --from-pair grey.png grey.png --size 9", "grey.png and grey.png: sharp is constant"),
        ("psf --from-pair grey.png nothing.png --size 9", "nothing.png: no such file"),
        ("psf --from-points grey.png --size 9 -o grey.png", "grey.png: -o and --from-points are one file"),
    ],
)
def test_what_cannot_be_measured_is_one_line(convpinv: Callable, tmp_path: Path, line: str, said: str):
    save(tmp_path / "grey.png", np.full((40, 40), 90, np.uint8))
    run = convpinv(line)
    assert run.code == 2
    assert said in run.error_line


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
