"""``convpinv psf``: what it shows, writes and measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from app.folders import save
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
