"""``convpinv psf``: what it shows, writes and measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Pillow

from app.photographs import MOTION, load, save
from convpinv.app import light
from convpinv.imaging import blur, psf

TRUTH = psf.gaussian(1.4, 13).numpy()


def for_the_screen(path: Path, scene: np.ndarray) -> None:
    """Write light as a camera does: by the curve of sRGB, in 8 bits."""
    levels = np.rint(light.SRGB.encode(np.asarray(scene)).clip(0, 1) * 255).astype(np.uint8)
    path.write_bytes(bytes(imagecodecs.png_encode(np.ascontiguousarray(levels))))


@pytest.fixture
def seen(tmp_path: Path, photograph: np.ndarray) -> None:
    """Points, an edge and a pair in files for the screen, all blurred by TRUTH in light."""
    beads = np.zeros((80, 90))
    beads[20, 25], beads[55, 60] = 9, 7
    for_the_screen(tmp_path / "beads.png", blur(beads, TRUTH, boundary="zeros") + 0.02)
    across = np.arange(64) - 32 - 0.1 * np.arange(64)[:, None] + 3.2
    for_the_screen(tmp_path / "edge.png", blur(0.1 + 0.8 * np.clip(across + 0.5, 0, 1), TRUTH))
    scene = light.SRGB.decode(photograph / 255.0)
    for_the_screen(tmp_path / "sharp.png", scene)
    for_the_screen(tmp_path / "blurred.png", np.dstack([blur(scene[..., c], TRUTH) for c in range(3)]))


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    ("options", "worst", "times"),
    # Round by assumption, the PSF of an edge averages most of what the curve does to it.
    [
        ("--from-points beads.png", 0.02, 10),
        ("--from-edge edge.png", 0.1, 1.2),
        ("--from-pair sharp.png blurred.png", 0.02, 5),
    ],
)
def test_a_psf_is_measured_in_light(convpinv: Callable, tmp_path: Path, options: str, worst: float, times: float):
    errors = {}
    for word in ("auto", "on", "off"):
        run = convpinv(f"psf {options} --size 13 -o found.npy --overwrite --linear {word}")
        assert run.code == 0, run.err
        errors[word] = np.abs(np.load(tmp_path / "found.npy") - TRUTH).max() / TRUTH.max()
        name = options.split()[-1]
        undone = f"{name}: the curve of the file is undone (sRGB)"
        assert (undone if word != "off" else f"{name}: the values of the file are taken as light, as asked") in run.out
    assert errors["auto"] == errors["on"] < worst
    assert errors["off"] > times * errors["auto"]


def test_a_psf_measured_in_pictures_for_the_screen_restores_them(
    convpinv: Callable, tmp_path: Path, photograph: np.ndarray
):
    save(tmp_path / "sharp.png", photograph)
    assert convpinv("blur sharp.png blurred.png --psf motion:length=9,angle=30").code == 0
    errors = {}
    for word in ("auto", "off"):
        made = f"psf --from-pair sharp.png blurred.png --size 13 -o found.npy --overwrite --linear {word}"
        assert convpinv(made).code == 0
        assert convpinv("deblur blurred.png out.png --psf found.npy --overwrite").code == 0
        out = imagecodecs.png_decode((tmp_path / "out.png").read_bytes()).astype(float)
        errors[word] = float(np.mean((out - photograph[2:-2, 4:-4]) ** 2))
    assert errors["auto"] < 0.75 * errors["off"]


def test_measurements_in_files_of_light_stay_as_they_are(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    scene = photograph[..., 1] / 255.0
    tifffile.imwrite(tmp_path / "sharp.tif", scene.astype("float32"))
    tifffile.imwrite(tmp_path / "blurred.tif", blur(scene, TRUTH).astype("float32"))
    run = convpinv("psf --from-pair sharp.tif blurred.tif --size 13 -o found.npy")
    assert "sharp.tif: the values of the file are taken as light" in run.out
    assert np.abs(np.load(tmp_path / "found.npy") - TRUTH).max() < 0.01 * TRUTH.max()


def test_linear_is_for_what_is_measured(convpinv: Callable):
    run = convpinv("psf box:size=3 --linear on")
    assert run.code == 2
    assert "--linear is for a PSF that is measured in pictures" in run.error_line


@pytest.mark.parametrize(
    "line",
    ["deblur in.tif out.tif --psf NAME", "blur in.tif out.tif --psf NAME", "psf NAME", "inspect --psf NAME --size 9x9"],
)
def test_a_psf_of_several_planes_says_what_to_do(convpinv: Callable, listing: Callable, tmp_path: Path, line: str):
    tifffile.imwrite(tmp_path / "in.tif", np.ones((20, 20), np.float32))
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for _ in range(3):
            file.write(np.ones((3, 3), np.float32), metadata=None)
    spectral = np.ones((3, 3, 5), np.uint8)
    tifffile.imwrite(tmp_path / "channels.tif", spectral, photometric="minisblack", planarconfig="contig")
    zarr.create_array(tmp_path / "planes.zarr", data=np.ones((3, 3, 3)))
    before = listing()
    for name, what in (
        ("pages.tif", "has 3 axes (3 x 3 x 3)"),
        ("channels.tif", "holds 5 channels in each pixel"),
        ("planes.zarr", "has 3 axes (3 x 3 x 3)"),
    ):
        run = convpinv(line.replace("NAME", name))
        assert run.code == 2
        # --axes names those of IN, and helps no PSF.
        assert run.error_line.endswith(f"{name}: {what} where one picture is needed; save one plane of it")
    assert listing() == before


def test_what_is_measured_is_one_picture(convpinv: Callable, tmp_path: Path):
    np.save(tmp_path / "stars.npy", np.ones((3, 40, 40)))
    run = convpinv("psf --from-points stars.npy --size 9")
    assert run.code == 2
    assert "stars.npy: has 3 axes (3 x 40 x 40) where one picture is needed; save one plane of it" in run.error_line


def test_a_psf_in_zarr_is_read(convpinv: Callable, tmp_path: Path):
    tifffile.imwrite(tmp_path / "in.tif", np.random.default_rng(0).random((20, 20)))
    zarr.create_array(tmp_path / "psf.zarr", data=TRUTH)
    np.save(tmp_path / "psf.npy", TRUTH)
    for name in ("zarr", "npy"):
        run = convpinv(f"blur in.tif {name}.tif --psf psf.{name}")
        assert (run.code, run.err) == (0, "")
    assert (tmp_path / "zarr.tif").read_bytes() == (tmp_path / "npy.tif").read_bytes()
    assert "13 rows x 13 columns" in convpinv("psf psf.zarr").out
    (tmp_path / "folder").mkdir()
    assert "folder: is a folder; name one file in it" in convpinv("psf folder").error_line


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
