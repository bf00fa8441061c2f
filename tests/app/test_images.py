"""Every format, depth and layout goes in and out without a changed pixel; the files come from other libraries."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from app.samples import SHAPES, through, values
from convpinv.app import files, images, raster

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 6) -> bytes:
    block = Pillow.Exif()
    block[0x0112] = orientation
    block[0x010F] = "A camera"
    return block.tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def plain_png(array: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG straight from its specification: no library between the numbers and the file."""
    height, width = array.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    header = struct.pack(">IIBBBBB", width, height, array.dtype.itemsize * 8, colour, 0, 0, 0)
    big = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def unpack_png(data: bytes) -> np.ndarray:
    """Read a PNG's numbers by undoing its row filters by hand, 16 bits as 16 bits."""
    position, pixels, header = 8, b"", (0, 0, 8, 0)
    while position < len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        if name == b"IHDR":
            header = struct.unpack(">IIBB", body[:10])
        if name == b"IDAT":
            pixels += body
        position += 12 + length
    width, height, bits, colour = header
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    stride, near = width * channels * bits // 8, channels * bits // 8
    raw = zlib.decompress(pixels)
    above, rows = bytearray(stride), []
    for index in range(height):
        kind, line = raw[index * (stride + 1)], bytearray(raw[index * (stride + 1) + 1 : (index + 1) * (stride + 1)])
        for at in range(stride):
            left = line[at - near] if at >= near else 0
            corner = above[at - near] if at >= near else 0
            # Paeth prefers left, then above, then the corner, at equal distance.
            distances = [(abs(above[at] - corner), left), (abs(left - corner), above[at])]
            distances.append((abs(left + above[at] - 2 * corner), corner))
            predicted = min(distances, key=lambda pair: pair[0])[1]
            line[at] = (line[at] + (0, left, above[at], (left + above[at]) // 2, predicted)[kind]) & 255
        rows.append(bytes(line))
        above = line
    array = np.frombuffer(b"".join(rows), dtype=">u2" if bits == 16 else "u1")
    return array.reshape((height, width) if channels == 1 else (height, width, channels))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("layout", SHAPES)
def test_png_keeps_every_pixel(tmp_path: Path, dtype: str, layout: str):
    array = values(dtype, SHAPES[layout])
    (tmp_path / "in.png").write_bytes(plain_png(array))
    image = through(tmp_path / "in.png", tmp_path / "out.png")
    assert image.layout == layout
    assert image.dtype == dtype
    assert image.pixels.min() == 0
    assert image.pixels.max() == 1
    np.testing.assert_array_equal(unpack_png((tmp_path / "out.png").read_bytes()), array)


@pytest.mark.parametrize("layout", SHAPES)
def test_png_written_by_pillow_keeps_every_pixel(tmp_path: Path, layout: str):
    array = values("uint8", SHAPES[layout])
    Pillow.fromarray(array).save(tmp_path / "in.png")
    through(tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.png")), array)


def test_png_written_by_imageio_16_bit_grey(tmp_path: Path):
    array = values("uint16", SHAPES["grey"])
    imageio.imwrite(tmp_path / "in.png", array)
    through(tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(imageio.imread(tmp_path / "out.png"), array)


@pytest.mark.parametrize("shape", [(40, 56), (40, 56, 3)])
def test_jpeg_reads_exactly_and_writes_closely(tmp_path: Path, photograph: np.ndarray, shape: tuple[int, ...]):
    array = photograph[:40, :56] if len(shape) == 3 else photograph[:40, :56, 1]
    Pillow.fromarray(np.ascontiguousarray(array)).save(tmp_path / "in.jpg", quality=97, subsampling=0)
    decoded = np.asarray(Pillow.open(tmp_path / "in.jpg"))
    image = through(tmp_path / "in.jpg", tmp_path / "out.jpg")
    np.testing.assert_array_equal(np.rint(image.pixels * 255), decoded)
    written = np.asarray(Pillow.open(tmp_path / "out.jpg")).astype(int)
    assert written.shape == shape
    assert np.abs(written - decoded).mean() < 2.5
    through(tmp_path / "in.jpg", tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.png")), decoded)


def test_jpeg_is_written_with_full_colour_resolution(tmp_path: Path):
    # Red and blue columns, one pixel each: halved colour resolution makes them one purple.
    columns = np.zeros((16, 16, 3))
    columns[:, ::2, 0], columns[:, 1::2, 2] = 1.0, 1.0
    for name, stripes in (("across.jpg", columns), ("down.jpg", columns.transpose(1, 0, 2))):
        image = raster.Image(pixels=stripes, dtype="uint8", format="png")
        (tmp_path / name).write_bytes(images.encode(image, name)[0])
        assert np.abs(images.read(tmp_path / name).pixels - stripes).mean() < 0.05


def test_the_photograph_of_a_phone_with_more_behind_it(tmp_path: Path, photograph: np.ndarray):
    first = Pillow.fromarray(photograph)
    first.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[Pillow.fromarray(255 - photograph)])
    image = images.read(tmp_path / "in.jpg")
    assert np.abs(image.pixels * 255 - photograph).mean() < 8
    assert "2 pictures" in image.notes[0]


@pytest.mark.parametrize("source", ["in.png", "in.jpg", "in.tif"])
@pytest.mark.parametrize("target", ["out.png", "out.jpg", "out.tif"])
def test_profile_orientation_and_resolution_travel(tmp_path: Path, source: str, target: str):
    array = values("uint8", SHAPES["RGB"])
    if source.endswith("tif"):
        tifffile.imwrite(
            tmp_path / source, array, photometric="rgb", iccprofile=PROFILE, metadata=None,
            resolution=(300, 200), resolutionunit="inch", extratags=[(274, "H", 1, 6, True)],
        )  # fmt: skip
    else:
        Pillow.fromarray(array).save(tmp_path / source, icc_profile=PROFILE, exif=exif(), dpi=(300, 200))
    through(tmp_path / source, tmp_path / target)
    if target.endswith("tif"):
        size = tifffile.imread(tmp_path / target).shape[1::-1]  # Pillow would turn a TIFF by its tag
    else:
        with Pillow.open(tmp_path / target) as written:
            size = written.size
    # The pixels stay as stored: turning them and keeping the tag would turn the picture twice.
    assert size == (34, 21)
    with Pillow.open(tmp_path / target) as written:
        assert written.info["icc_profile"] == PROFILE
        assert written.info["dpi"] == pytest.approx((300, 200), abs=0.02)
        assert written.getexif()[0x0112] == 6
        if not source.endswith("tif") and not target.endswith("tif"):
            block = written.info["exif"]
            assert block.removeprefix(b"Exif\0\0") == exif().removeprefix(b"Exif\0\0")


def test_png_keeps_its_describing_chunks(tmp_path: Path):
    kept = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tEXt", b"Title\0A title") + chunk(b"sRGB", b"\0")
    (tmp_path / "in.png").write_bytes(plain_png(values("uint16", (5, 6)), kept))
    through(tmp_path / "in.png", tmp_path / "out.png")
    assert kept in (tmp_path / "out.png").read_bytes()
    with Pillow.open(tmp_path / "out.png") as picture:
        assert picture.info["Title"] == "A title"


def test_a_doubtful_profile_makes_no_noise(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    doubtful = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")) + chunk(b"cHRM", b"\0" * 10)
    (tmp_path / "in.png").write_bytes(plain_png(values("uint8", (5, 6)), doubtful))
    through(tmp_path / "in.png", tmp_path / "out.png")
    assert doubtful in (tmp_path / "out.png").read_bytes()
    assert caplog.records == []  # outside of tests, what is logged ends on the terminal


def test_palette_and_one_bit_png_are_expanded(tmp_path: Path):
    colours = Pillow.fromarray(values("uint8", SHAPES["RGB"])).quantize(9)
    colours.save(tmp_path / "palette.png")
    image = through(tmp_path / "palette.png", tmp_path / "rgb.png")
    assert "palette" in image.notes[0]
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "rgb.png")), np.asarray(colours.convert("RGB")))

    bits = Pillow.fromarray(values("uint8", SHAPES["grey"]) > 127)
    bits.save(tmp_path / "bits.png")
    image = through(tmp_path / "bits.png", tmp_path / "grey.png")
    assert "1-bit" in image.notes[0]
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "grey.png")), np.asarray(bits) * 255)


def test_a_palette_with_transparency_gives_alpha(tmp_path: Path):
    colours = Pillow.fromarray(values("uint8", SHAPES["RGB"])).quantize(9)
    colours.save(tmp_path / "in.png", transparency=3)
    through(tmp_path / "in.png", tmp_path / "out.png")
    expected = np.asarray(Pillow.open(tmp_path / "in.png").convert("RGBA"))
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.png")), expected)


def test_the_content_decides_not_the_name(tmp_path: Path):
    array = values("uint8", (9, 8))
    tifffile.imwrite(tmp_path / "really_a_tiff.jpg", array)
    image = images.read(tmp_path / "really_a_tiff.jpg")
    assert image.format == "tiff"
    np.testing.assert_array_equal(np.rint(image.pixels * 255), array)


def test_rounding_is_to_nearest_and_clipping_is_counted():
    pixels = np.array([[0.5 / 255 + 1e-6, 0.5 / 255 - 1e-6, 254.6 / 255], [-0.2, 1.3, 1 + 0.4 / 255]])
    image = raster.Image(pixels=pixels, dtype="uint8", format="png")
    data, clipped = images.encode(image, "x.png")
    assert clipped == 2
    np.testing.assert_array_equal(unpack_png(data), [[1, 0, 255], [0, 255, 255]])
    colour = raster.Image(pixels=np.full((2, 2, 3), 1.5), dtype="uint16", format="png")
    assert images.encode(colour, "x.png")[1] == 4  # pixels, not samples


def test_floating_point_is_never_clipped():
    pixels = np.array([[-3.5, 0.0], [1.0, 70000.0]])
    data, clipped = images.encode(raster.Image(pixels=pixels, dtype="float32", format="tiff"), "x.tif")
    assert clipped == 0
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), pixels)
    with pytest.raises(files.WriteError, match="float16"):
        images.encode(raster.Image(pixels=pixels, dtype="float16", format="tiff"), "x.tif")


def test_what_jpeg_cannot_hold_is_one_error():
    wide = raster.Image(pixels=np.zeros((1, 70000)), dtype="uint8", format="tiff")
    with pytest.raises(files.WriteError, match="cannot be written as JPEG"):
        images.encode(wide, "x.jpg")


def test_a_turned_picture_is_remarked():
    assert "stored pixels" in raster.Image(np.zeros((1, 1)), "uint8", "png", orientation=6).remarks[0]
    assert raster.Image(np.zeros((1, 1)), "uint8", "png").remarks == ()


def test_a_result_that_is_no_number_is_not_written():
    image = raster.Image(pixels=np.array([[np.nan, 0.0]]), dtype="uint8", format="png")
    with pytest.raises(files.WriteError, match=r"x\.png: the result holds NaN"):
        images.encode(image, "x.png")


def test_alpha_follows_the_window():
    alpha = values("uint8", (10, 12))
    image = raster.Image(pixels=np.zeros((10, 12)), dtype="uint8", format="png", alpha=alpha)
    cut = image.with_pixels(np.zeros((6, 7)), 2, 3).alpha
    assert cut is not None
    np.testing.assert_array_equal(cut, alpha[2:8, 3:10])
