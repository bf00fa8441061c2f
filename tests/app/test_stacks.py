"""Stacks: axes are named and never guessed, and each plane is restored as it would be alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from astropy.io import fits

from convpinv.app import axes
from convpinv.arguments import ArgumentError
from convpinv.imaging import blur, deblur, psf

PSF = "gaussian:sigma=1"
WAY: dict[str, Any] = {"noise": 0.01, "prior": "tikhonov", "strength": 0.02}
OPTIONS = "--psf gaussian:sigma=1 --noise 0.01 --prior tikhonov --strength 0.02"


@pytest.fixture(scope="module")
def stack(photograph: np.ndarray) -> np.ndarray:
    """Six planes of 30 x 34, float64, (2, 3, H, W)."""
    planes = [photograph[y : y + 30, x : x + 34, c] for c, (y, x) in enumerate([(0, 0), (20, 30), (60, 70)])]
    return np.stack([planes, [plane[::-1] for plane in planes]]) / 255.0


def alone(stack: np.ndarray, kernel: object = PSF) -> np.ndarray:
    flat = stack.reshape(-1, *stack.shape[-2:])
    return np.stack([deblur(plane, kernel, **WAY) for plane in flat]).reshape(stack.shape)


def test_each_plane_is_restored_as_if_alone(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    tifffile.imwrite(tmp_path / "in.tif", stack, photometric="minisblack", metadata={"axes": "TZYX"})
    np.save(tmp_path / "in.npy", np.moveaxis(stack, (0, 1), (3, 0)))
    run = convpinv(f"deblur in.tif out.tif {OPTIONS} --report out.json")
    assert (run.code, run.err) == (0, "")
    assert "out.tif: 34x30 grey, float64, T=2, Z=3" in run.out
    expected = alone(stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["axes"] == "TZYX"
    assert report["planes"] == 6
    assert len(report["strength"]) == len(report["residual"]) == 6
    # The order of the file is that of the output, whatever is last in it.
    assert convpinv(f"deblur in.npy out.npy {OPTIONS} --axes ZYXT").code == 0
    np.testing.assert_array_equal(np.moveaxis(np.load(tmp_path / "out.npy"), (3, 0), (0, 1)), expected)


def test_colours_declared_in_a_stack_stay_coupled(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    pair = np.stack([photograph[:30, :34], photograph[40:70, :34]]) / 255.0
    np.save(tmp_path / "in.npy", pair)
    line = f"deblur in.npy coupled.npy --psf {PSF} --noise 0.01 --strength 0.02 --axes TYXS"
    assert convpinv(line).code == 0
    expected = np.stack([deblur(picture, PSF, noise=0.01, strength=0.02) for picture in pair])
    np.testing.assert_array_equal(np.load(tmp_path / "coupled.npy"), expected)
    assert convpinv(f"deblur in.npy alone.npy {OPTIONS} --axes TYXC").code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "alone.npy"), np.moveaxis(alone(np.moveaxis(pair, -1, 1)), 1, -1))


def test_a_psf_of_one_plane_a_channel(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    kernels = np.zeros((3, 7, 7))
    for index, sigma in enumerate((0.6, 0.8, 1.0)):
        kernel = psf.gaussian(sigma, size=7).numpy()
        kernels[index] = kernel
    np.save(tmp_path / "psf.npy", kernels)
    np.save(tmp_path / "in.npy", stack)
    assert (
        convpinv("deblur in.npy out.npy --psf psf.npy --noise 0.01 --prior tikhonov --strength 0.02 --axes TCYX").code
        == 0
    )
    loaded = [psf.from_array(kernel) for kernel in kernels]
    expected = np.stack([[deblur(t[c], loaded[c], **WAY) for c in range(3)] for t in stack])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("in.npy", "", "in.npy: has 3 axes (3 x 30 x 34) and does not say what they are; name them with --axes"),
        ("in.tif", "", "in.tif: has 3 axes (3 x 30 x 34) and does not say what they are; name them with --axes"),
        ("in.npy", "--axes YX", "in.npy: has 3 axes (3 x 30 x 34) and --axes YX names 2; name each of them"),
        ("in.npy", "--axes SZYX", "names 4; name each of them"),
        ("in.npy", "--axes ZZX", "--axes is 'ZZX'; it names each axis of the file by a letter of its own"),
        ("in.npy", "--axes ZTX", "--axes is 'ZTX'"),
        ("in.npy", "--axes Z-YX", "--axes is 'Z-YX'"),
        ("in.npy", "--axes YSX", "has 30 samples (S) a pixel"),
    ],
)
def test_axes_that_are_not_known(
    convpinv: Callable, listing: Callable, tmp_path: Path, stack: np.ndarray, name: str, options: str, says: str
):
    np.save(tmp_path / "in.npy", stack[0])
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        for plane in stack[0]:
            file.write(plane, metadata=None)
    before = listing()
    run = convpinv(f"deblur {name} out.tif {OPTIONS} {options}")
    assert run.code == 2
    assert says in run.error_line
    assert listing() == before
    run = convpinv(f"deblur in.tif out.tif {OPTIONS} --axes tyx")
    assert run.code == 0
    assert "axes TYX (3 x 30 x 34), as asked" in " ".join(run.out.split())


def test_what_the_user_says_counts_for_more(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    tifffile.imwrite(tmp_path / "in.tif", stack[0], photometric="minisblack", metadata={"axes": "ZYX"})
    run = convpinv("deblur in.tif out.tif --check-io --axes TYX")
    assert "as asked; the file calls them ZYX" in " ".join(run.out.split())
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.series[0].axes == "TYX"


def test_a_stack_has_no_place_in_a_picture(convpinv: Callable, listing: Callable, tmp_path: Path, stack: np.ndarray):
    tifffile.imwrite(tmp_path / "in.tif", (stack[0] * 255).astype(np.uint8), imagej=True, metadata={"axes": "ZYX"})
    run = convpinv(f"deblur in.tif out.png {OPTIONS}")
    assert run.code == 2
    assert "out.png: the picture is a stack (34x30 grey, uint8, Z=3) and PNG holds one; name it .tif" in run.error_line
    run = convpinv("deblur in.tif out.tif --psf in.tif")
    assert run.code == 2
    assert "in.tif: holds 3 planes (axes ZYX) where one picture is needed" in run.error_line
    assert listing() == {"in.tif"}


def test_planes_without_numbers_and_masks(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    seen = np.random.default_rng(0).random(stack.shape) > 0.1
    gaps = stack.copy()
    gaps[1, 2] = np.nan
    np.save(tmp_path / "in.npy", gaps)
    np.save(tmp_path / "mask.npy", seen.astype(np.uint8))
    np.save(tmp_path / "flat.npy", seen[0, 0].astype(np.uint8))
    run = convpinv(f"deblur in.npy out.npy {OPTIONS} --axes TZYX --mask mask.npy")
    assert (run.code, run.err) == (0, "")
    assert "plane T=1, Z=2 holds no number at all and was left as it is" in " ".join(run.out.split())
    out = np.load(tmp_path / "out.npy")
    assert np.isnan(out[1, 2]).all()
    for index in ((0, 0), (1, 1)):
        np.testing.assert_array_equal(out[index], deblur(stack[index], PSF, **WAY, mask=seen[index]))
    assert convpinv(f"deblur in.npy flat_out.npy {OPTIONS} --axes TZYX --mask flat.npy").code == 0
    expected = deblur(stack[1, 1], PSF, **WAY, mask=seen[0, 0])
    np.testing.assert_array_equal(np.load(tmp_path / "flat_out.npy")[1, 1], expected)


@pytest.mark.parametrize("kind", ["tif", "npy", "zarr", "pages.tif"])
def test_a_mask_of_all_planes_holds_for_a_folder_too(convpinv: Callable, tmp_path: Path, stack: np.ndarray, kind: str):
    planes = stack[0].astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", planes, photometric="minisblack", metadata={"axes": "ZYX"})
    seen = (np.random.default_rng(0).random(planes.shape) > 0.1).astype(np.uint8)
    if kind == "npy":
        np.save(tmp_path / "mask.npy", seen)
    elif kind == "zarr":
        zarr.create_array(tmp_path / "mask.zarr", data=seen)
    elif kind == "tif":
        tifffile.imwrite(tmp_path / "mask.tif", seen, photometric="minisblack", metadata={"axes": "ZYX"})
    else:
        with tifffile.TiffWriter(tmp_path / "mask.pages.tif") as file:  # pages that do not say what they are
            for plane in seen:
                file.write(plane, metadata=None)
    line = f"{OPTIONS} --mask mask.{kind}"
    assert convpinv(f"deblur in.tif one.tif {line}").code == 0
    run = convpinv(f"deblur in.tif out/ {line}")
    assert (run.code, run.err) == (0, "")
    assert (tmp_path / "out" / "in.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()
    expected = [deblur(plane, PSF, **WAY, mask=mask) for plane, mask in zip(planes, seen != 0, strict=True)]
    np.testing.assert_allclose(tifffile.imread(tmp_path / "one.tif"), expected, atol=1e-6)


def test_a_mask_has_the_order_of_the_file(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    seen = np.random.default_rng(0).random(stack.shape[1:]) > 0.1
    colours = np.random.default_rng(1).random((2, 30, 34, 3))
    np.save(tmp_path / "in.npy", np.moveaxis(stack[0], 0, 2))
    np.save(tmp_path / "mask.npy", np.moveaxis(seen, 0, 2).astype(np.uint8))
    assert convpinv(f"deblur in.npy out.npy {OPTIONS} --axes YXZ --mask mask.npy").code == 0
    expected = [deblur(plane, PSF, **WAY, mask=mask) for plane, mask in zip(stack[0], seen, strict=True)]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.moveaxis(np.array(expected), 0, 2), atol=1e-6)
    # One value a pixel is for all of its colours.
    np.save(tmp_path / "colours.npy", colours)
    np.save(tmp_path / "seen.npy", seen[:2].astype(np.uint8))
    assert convpinv(f"deblur colours.npy out_colours.npy {OPTIONS} --axes TYXS --mask seen.npy").code == 0
    first = deblur(colours[0], PSF, **WAY, mask=seen[0])
    np.testing.assert_allclose(np.load(tmp_path / "out_colours.npy")[0], first, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((30, 34), "mask.npy: is 0 everywhere"),
        ((3, 30, 34), "mask.npy: is 0 everywhere"),
        ((2, 3, 30, 34), "mask.npy: is 0 everywhere"),
        ((30,), "mask.npy: holds 30 values in 1 axes"),
    ],
)
def test_what_is_a_mask_of_nothing_is_refused_before_any_work(
    convpinv: Callable, listing: Callable, tmp_path: Path, stack: np.ndarray, shape: tuple[int, ...], says: str
):
    tifffile.imwrite(tmp_path / "in.tif", stack[0], photometric="minisblack", metadata={"axes": "ZYX"})
    np.save(tmp_path / "mask.npy", np.zeros(shape, np.uint8))
    run = convpinv(f"deblur in.tif out/ {OPTIONS} --mask mask.npy")
    assert run.code == 2
    assert says in run.error_line
    assert listing() == {"in.tif", "mask.npy"}


def test_a_mask_of_more_axes_than_the_picture_is_told_so(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    np.save(tmp_path / "in.npy", stack[0, 0])
    np.save(tmp_path / "mask.npy", np.ones(stack.shape, np.uint8))
    run = convpinv(f"deblur in.npy out.npy {OPTIONS} --mask mask.npy")
    assert run.code == 2
    assert "mask.npy: has 4 axes (2 x 3 x 30 x 34), and the picture 34x30 grey, float64" in run.error_line


def test_blur_cuts_stacks_and_moves_their_coordinates(convpinv: Callable, tmp_path: Path, stack: np.ndarray):
    unit = fits.PrimaryHDU(stack[0].astype(np.float32))
    unit.header["CRPIX1"], unit.header["CRPIX2"], unit.header["CRPIX1A"] = 12.0, 8.5, 3.0
    unit.writeto(tmp_path / "in.fits", checksum=True)
    tifffile.imwrite(
        tmp_path / "in.tif", (stack[0] * 65535).astype(np.uint16), ome=True, photometric="minisblack",
        metadata={"axes": "CYX", "PhysicalSizeX": 0.1},
    )  # fmt: skip
    assert convpinv("blur in.fits out.fits --psf box:size=3x5").code == 0
    with fits.open(tmp_path / "out.fits", checksum=True) as units:  # a wrong checksum warns, and warnings are errors
        unit: Any = units[0]
        np.testing.assert_allclose(
            unit.data, [blur(plane, "box:size=3x5") for plane in stack[0].astype(np.float32)], atol=1e-6
        )
        assert [unit.header[key] for key in ("NAXIS1", "NAXIS2", "CRPIX1", "CRPIX2", "CRPIX1A")] == [30, 28, 10, 7.5, 1]
    assert convpinv("blur in.tif out.tif --psf box:size=3x5").code == 0
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.series[0].axes == "CYX"
        assert file.series[0].shape == (3, 28, 30)
        assert 'PhysicalSizeX="0.1"' in str(file.ome_metadata)


def test_names_of_axes():
    assert axes.parse(" tzyx ") == "TZYX"
    assert axes.parse(None) is None
    for text in ("", "TCZ", "YXY", "Y1X", "ÄYX"):
        with pytest.raises(ArgumentError, match="--axes is"):
            axes.parse(text)
