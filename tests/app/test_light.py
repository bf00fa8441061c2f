"""Pictures for the screen are worked on in light; files of measurements are taken as they are."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from astropy.io import fits
from PIL import Image as Pillow
from PIL import ImageCms
from skimage import data

from convpinv.app import images, light
from convpinv.imaging import blur, deblur, psf

SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = np.random.default_rng(1).integers(0, 256, (8, 9), dtype=np.uint8)
RGB = np.dstack([GREY, GREY[::-1], GREY])


def profile(curve: bytes) -> bytes:
    """An ICC profile of three equal tone curves and nothing else."""
    start = 132 + 3 * 12
    table = b"".join(struct.pack(">4sII", name, start, len(curve)) for name in (b"rTRC", b"gTRC", b"bTRC"))
    return b"\0" * 128 + struct.pack(">I", 3) + table + curve


def para(kind: int, *numbers: float) -> bytes:
    return (
        b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)
    )


def table(values: np.ndarray) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + np.rint(values * 65535).astype(">u2").tobytes()


def png(array: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    data = bytes(imagecodecs.png_encode(array))
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:33] + more + data[33:]


def saved(array: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: bytes) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(buffer, array, photometric=photometric, iccprofile=options.get("icc"))
    return buffer.getvalue()


def sky() -> bytes:
    buffer = io.BytesIO()
    fits.PrimaryHDU(GREY).writeto(buffer)
    return buffer.getvalue()


STEPS = np.linspace(0, 1, 1024)
# name → (file, the curve that is undone, None for none)
FILES = {
    "8-bit PNG": (png(GREY), "sRGB"),
    "16-bit PNG": (png(GREY.astype(np.uint16) * 257), "sRGB"),
    "PNG of gamma 1": (png(GREY, (b"gAMA", struct.pack(">I", 100000))), None),
    "PNG of gamma 1 / 2.2": (png(GREY, (b"gAMA", struct.pack(">I", 45455))), "sRGB"),
    "PNG of gamma 1 / 1.8": (png(GREY, (b"gAMA", struct.pack(">I", 55556))), "gamma 1.8"),
    "PNG, linear by cICP": (png(GREY, (b"cICP", bytes([9, 8, 0, 1]))), None),
    "PNG, PQ by cICP": (png(GREY, (b"cICP", bytes([9, 16, 0, 1]))), None),
    "sRGB wins over gamma": (png(GREY, (b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100000))), "sRGB"),
    "JPEG": (saved(RGB, "JPEG"), "sRGB"),
    "JPEG with sRGB": (saved(RGB, "JPEG", icc_profile=SRGB_PROFILE), "sRGB"),
    "JPEG with gamma": (saved(RGB, "JPEG", icc_profile=profile(b"curv\0\0\0\0\0\0\0\1\x02\x33")), "gamma 2.2"),
    "JPEG with parametric gamma": (saved(RGB, "JPEG", icc_profile=profile(para(0, 1.8))), "gamma 1.8"),
    "JPEG with ProPhoto's curve": (
        saved(RGB, "JPEG", icc_profile=profile(para(3, 1.8, 1, 0, 1 / 16, 1 / 32))),
        "the profile's",
    ),
    "JPEG with a table of sRGB": (saved(RGB, "JPEG", icc_profile=profile(table(light.SRGB.decode(STEPS)))), "sRGB"),
    "JPEG with another table": (saved(RGB, "JPEG", icc_profile=profile(table(STEPS**3))), "sRGB"),
    "JPEG of light": (saved(RGB, "JPEG", icc_profile=profile(table(STEPS))), None),
    "JPEG with a broken profile": (saved(RGB, "JPEG", icc_profile=b"nothing"), "sRGB"),
    "WebP": (saved(RGB, "WEBP"), "sRGB"),
    "TIFF with sRGB": (tiff(RGB, icc=SRGB_PROFILE), "sRGB"),
    "TIFF without a profile": (tiff(RGB), None),
    "grey TIFF": (tiff(GREY), None),
    "16-bit TIFF with sRGB": (tiff(RGB.astype(np.uint16), icc=SRGB_PROFILE), None),
    "FITS": (sky(), None),
}


@pytest.mark.parametrize("name", FILES)
def test_which_curve_is_undone(name: str):
    data, expected = FILES[name]
    image = images.decode(data, name)
    found = light.choose(image, "auto")
    assert (None if found.curve is None else found.curve.name) == expected
    assert light.choose(image, "off").curve is None
    assert light.choose(image, "on").curve is not None
    if name == "JPEG with another table":
        assert "not a plain one" in found.text


def test_the_curve_of_srgb():
    # Levels of 8 bits and their light, from the table that comes with IEC 61966-2-1.
    np.testing.assert_allclose(
        light.SRGB.decode(np.array([0.0, 10, 11, 128, 188, 255]) / 255),
        [0, 0.003035, 0.003347, 0.215861, 0.502886, 1],
        atol=1e-6,
    )


@pytest.mark.parametrize("curve", [light.SRGB, light.Curve("gamma", 2.2), light.Curve("p", 1.8, 1, 0, 1 / 16, 1 / 32)])
def test_curves_and_their_inverses(curve: light.Curve):
    values = np.linspace(-0.5, 1.5, 4001)
    shown = curve.decode(values)
    assert (np.diff(shown) > 0).all()  # so that clipped stays clipped
    np.testing.assert_allclose(curve.encode(shown), values, atol=2e-5)
    levels = np.arange(65536, dtype=np.float32) / np.float32(65535)
    np.testing.assert_array_equal(np.rint(curve.encode(curve.decode(levels)) * 65535), np.arange(65536))


def test_noise_in_light_is_that_of_the_values():
    generator = np.random.default_rng(0)
    values = generator.random((300, 300, 3)) * [0.2, 0.7, 1.0]
    noisy = values + 0.005 * generator.standard_normal(values.shape)
    measured = (light.SRGB.decode(noisy) - light.SRGB.decode(values)).std((0, 1))
    np.testing.assert_allclose(light.SRGB.noise(0.005, values), measured, rtol=0.02)
    np.testing.assert_allclose(light.SRGB.noise(0.005, values[..., 0]), measured[0], rtol=0.02)


def test_blur_mixes_light(convpinv: Callable, tmp_path: Path):
    edge = np.zeros((9, 12), np.uint8)
    edge[:, 6:] = 255
    (tmp_path / "edge.png").write_bytes(png(edge))
    for options, middle in (("", 188), ("--linear off", 128)):
        assert convpinv(f"blur edge.png out.png --psf box:size=1x2 --overwrite {options}").code == 0
        out = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
        assert set(np.unique(out)) == {0, middle, 255}


def test_noise_is_added_to_the_values_of_the_file(convpinv: Callable, tmp_path: Path):
    (tmp_path / "dark.png").write_bytes(png(np.full((100, 100), 9000, np.uint16)))
    assert convpinv("blur dark.png out.png --psf box:size=3 --noise 0.01 --seed 1").code == 0
    out = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
    assert out.std() / 65535 == pytest.approx(0.01, rel=0.05)


def test_deblurring_in_light_is_better_and_is_the_default(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    spec, truth = "motion:length=9,angle=30", photograph / 255.0
    shown = light.SRGB.encode(blur(light.SRGB.decode(truth), spec))
    shown += 0.007 * np.random.default_rng(0).standard_normal(shown.shape)
    (tmp_path / "in.png").write_bytes(png(np.rint(shown.clip(0, 1) * 255).astype(np.uint8)))
    top, left = (psf.parse(spec).shape[-2] - 1) // 2, (psf.parse(spec).shape[-1] - 1) // 2
    window = truth[top : top + shown.shape[0], left : left + shown.shape[1]]
    errors, reports = {}, {}
    for word in ("auto", "on", "off"):
        line = f"deblur in.png {word}.png --psf {spec} --linear {word} --report {word}.json"
        assert convpinv(line).code == 0
        out = imagecodecs.png_decode((tmp_path / f"{word}.png").read_bytes()) / 255
        errors[word] = float(np.mean((out - window) ** 2))
        reports[word] = json.loads((tmp_path / f"{word}.json").read_text())
    assert errors["auto"] == errors["on"]
    assert errors["auto"] < 0.8 * errors["off"]
    assert reports["auto"]["light"].startswith(
        "linear: the curve of the file is undone before and put back after (sRGB"
    )
    assert "in the values of the file" in reports["auto"]["noise_rule"]
    assert reports["off"]["light"] == "the values of the file are taken as light, as asked"
    expected = light.SRGB.noise(np.full(3, 0.007), imagecodecs.png_decode((tmp_path / "in.png").read_bytes()) / 255)
    np.testing.assert_allclose(reports["auto"]["noise"], expected, rtol=0.15)


def test_given_noise_and_a_mask_go_into_light(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    picture = np.ascontiguousarray(photograph[:48, :54])
    seen = np.random.default_rng(0).random(picture.shape[:2]) > 0.1
    spoilt = np.where(seen[..., None], picture, 255).astype(np.uint8)
    (tmp_path / "in.png").write_bytes(png(spoilt))
    (tmp_path / "mask.png").write_bytes(png(seen.astype(np.uint8) * 255))
    run = convpinv("deblur in.png out.png --psf gaussian:sigma=1 --noise 0.01 --mask mask.png")
    assert (run.code, run.err) == (0, "")
    values = spoilt.astype(np.float32) / np.float32(255)
    noise = light.SRGB.noise(0.01, values)
    expected = light.SRGB.encode(deblur(light.SRGB.decode(values), psf.gaussian(1.0), noise=noise, mask=seen))
    out = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
    np.testing.assert_array_equal(out, np.rint(expected.clip(0, 1) * 255))


def test_a_point_gives_the_picture_back_in_light_too(convpinv: Callable, tmp_path: Path, photograph: np.ndarray):
    (tmp_path / "in.png").write_bytes(png(photograph))
    assert convpinv("deblur in.png out.png --psf box:size=1").code == 0
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), photograph)


def test_one_masked_pixel_does_not_change_the_noise(convpinv: Callable, tmp_path: Path):
    scene = data.camera()[100:220, 100:230] / 255.0
    (tmp_path / "scene.png").write_bytes(png(np.rint(scene * 255).astype(np.uint8)))
    assert convpinv("blur scene.png in.png --psf motion:length=11,angle=30 --noise 0.01 --seed 1").code == 0
    seen = np.full(imagecodecs.png_decode((tmp_path / "in.png").read_bytes()).shape, 255, np.uint8)
    seen[40, 50] = 0
    (tmp_path / "mask.png").write_bytes(png(seen))
    found = []
    for more in ("", "--mask mask.png"):
        line = f"deblur in.png out.png --overwrite --psf motion:length=11,angle=30 --report out.json {more}"
        assert convpinv(line).code == 0
        found.append(json.loads((tmp_path / "out.json").read_text()))
    assert found[1]["noise"] == pytest.approx(found[0]["noise"], rel=0.05)
    assert "in the values of the file" in found[1]["noise_rule"]
