"""What belongs to a picture goes along with it, or a note says that it does not."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from convpinv.app import images, light

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/">\xc3\xa9</x:xmpmeta><?xpacket end="w"?>'
SIGNATURE = b"http://ns.adobe.com/xap/1.0/\0"
FURTHER = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 3, 0) + b"abc"
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0b\x1c\x02\x78\0\6a dune\0"
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(PICTURE).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"".join(segment(*one) for one in segments) + data[2:]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """All segments of a JPEG before its pixels."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def png(array: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    data = bytes(imagecodecs.png_encode(array))
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:33] + more + data[33:]


def said(text: str) -> str:
    return " ".join(text.split())


def test_what_a_photographer_wrote_into_a_jpeg_stays(convpinv: Callable, tmp_path: Path):
    own = [(0xE1, SIGNATURE + XMP), (0xE1, FURTHER), (0xED, IPTC), (0xFE, b"first"), (0xFE, b"second\xff")]
    (tmp_path / "in.jpg").write_bytes(jpeg(*own))
    run = convpinv("deblur in.jpg out.jpg --psf box:size=1")
    assert (run.code, run.err) == (0, "")
    assert "no place" not in said(run.out)
    written = segments((tmp_path / "out.jpg").read_bytes())
    assert [one for one in written if one in own] == own
    with Pillow.open(tmp_path / "out.jpg") as picture:
        picture.load()
        assert picture.info["photoshop"][0x0404] == b"\x1c\x02\x78\0\6a dune"


@pytest.mark.parametrize("target", ["out.png", "out.webp", "out.tif", "out.npy"])
def test_what_only_a_jpeg_holds_is_named(convpinv: Callable, tmp_path: Path, target: str):
    (tmp_path / "in.jpg").write_bytes(jpeg((0xE1, SIGNATURE + XMP), (0xE1, FURTHER), (0xED, IPTC), (0xFE, b"hello")))
    run = convpinv(f"deblur in.jpg {target} --psf box:size=1")
    assert (run.code, run.err) == (0, "")
    lost = "the extension of XMP, the Photoshop block with IPTC, the comment"
    name = {"png": "PNG", "webp": "WebP", "tif": "TIFF", "npy": "NPY"}[target[4:]]
    lost = f"XMP, {lost}" if target == "out.npy" else lost
    assert f"{name} has no place here for {lost}" in said(run.out)


def with_xmp(name: str, xmp: bytes = XMP) -> bytes:
    buffer = io.BytesIO()
    if name.endswith("png"):
        return png(PICTURE, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    if name.endswith("jpg"):
        return jpeg((0xE1, SIGNATURE + xmp))
    if name.endswith("webp"):
        Pillow.fromarray(PICTURE).save(buffer, "WEBP", lossless=True, xmp=xmp)
    else:
        tags = [(700, 1, len(xmp), xmp, True)]
        tifffile.imwrite(buffer, PICTURE, photometric="rgb", metadata=None, software=False, extratags=tags)
    return buffer.getvalue()


@pytest.mark.parametrize("source", ["in.png", "in.jpg", "in.webp", "in.tif"])
@pytest.mark.parametrize("target", ["out.png", "out.jpg", "out.webp", "out.tif"])
def test_xmp_travels_between_formats(convpinv: Callable, tmp_path: Path, source: str, target: str):
    (tmp_path / source).write_bytes(with_xmp(source))
    run = convpinv(f"deblur {source} {target} --psf box:size=1")
    assert (run.code, run.err) == (0, "")
    assert "no place" not in said(run.out)
    assert images.read(tmp_path / target).xmp == XMP
    if target.endswith("tif"):
        with tifffile.TiffFile(tmp_path / target) as file:
            assert file.pages.first.tags[700].value == XMP
    else:
        with Pillow.open(tmp_path / target) as written:
            found = written.info["xmp"]
            assert (found.encode() if isinstance(found, str) else found) == XMP


def test_check_io_speaks_of_xmp(convpinv: Callable, tmp_path: Path):
    (tmp_path / "in.webp").write_bytes(with_xmp("in.webp"))
    assert "kept      XMP" in convpinv("deblur in.webp out.png --check-io").out


@pytest.mark.parametrize("length", [65504, 65505])
def test_xmp_of_any_length_into_jpeg(convpinv: Callable, tmp_path: Path, length: int):
    xmp = b"x" * length
    whole = png(PICTURE, (b"iCCP", b"p\0\0" + zlib.compress(PROFILE)), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    (tmp_path / "in.png").write_bytes(whole)
    run = convpinv("deblur in.png out.jpg --psf box:size=1")
    assert (run.code, run.err) == (0, "")
    image = images.read(tmp_path / "out.jpg")
    fits = length == 65504
    assert image.xmp == (xmp if fits else None)
    assert ("JPEG has no place here for XMP" in said(run.out)) is not fits
    assert image.icc == PROFILE


def test_long_segments_of_a_jpeg_fit_again(convpinv: Callable, tmp_path: Path):
    block = IPTC + bytes(65000)
    (tmp_path / "in.jpg").write_bytes(jpeg((0xED, block), (0xED, block), (0xFE, b"c" * 65533)))
    assert convpinv("deblur in.jpg out.jpg --psf box:size=1").code == 0
    written = segments((tmp_path / "out.jpg").read_bytes())
    assert written.count((0xED, block)) == 2
    assert (0xFE, b"c" * 65533) in written


def test_a_packed_xmp_is_unpacked_and_a_damaged_one_is_a_text(tmp_path: Path):
    packed = b"XML:com.adobe.xmp\0\1\0en\0name\0" + zlib.compress(XMP)
    assert images.decode(png(PICTURE, (b"iTXt", packed)), "in.png").xmp == XMP
    for body in (packed[:-9], b"XML:com.adobe.xmp\0", b"XML:com.adobe.xmp\0\0\0"):
        image = images.decode(png(PICTURE, (b"iTXt", body)), "in.png")
        assert image.xmp is None
        assert "the texts of the PNG" in images.losses(image, "out.webp")[0]


LINEAR = (b"gAMA", struct.pack(">I", 100000))
SLOPE = np.tile(np.arange(6, 256, 5, dtype=np.uint8), (24, 1))


@pytest.mark.parametrize("command", ["deblur", "blur"])
@pytest.mark.parametrize("target", ["out.jpg", "out.webp"])
@pytest.mark.parametrize(
    ("chunk", "curve", "lost"),
    [
        (LINEAR, light.Curve("linear", 1.0), "the gamma (gAMA)"),
        ((b"gAMA", struct.pack(">I", 55556)), light.Curve("gamma", 1.8), "the gamma (gAMA)"),
        ((b"cICP", bytes([1, 8, 0, 1])), light.Curve("linear", 1.0), "the colour space (cICP)"),
    ],
)
def test_a_curve_that_has_no_place_becomes_that_of_srgb(
    convpinv: Callable,
    tmp_path: Path,
    command: str,
    target: str,
    chunk: tuple[bytes, bytes],
    curve: light.Curve,
    lost: str,
):
    (tmp_path / "in.png").write_bytes(png(SLOPE, chunk))
    run = convpinv(f"{command} in.png {target} --psf box:size=1")
    assert (run.code, run.err) == (0, "")
    assert f"has no place here for {lost}" in said(run.out)
    assert "the values are encoded by sRGB, and look the same" in said(run.out)
    shown = np.asarray(Pillow.open(tmp_path / target).convert("L")).astype(float)
    expected = 255 * light.SRGB.encode(curve.decode(SLOPE / 255.0))
    assert np.abs(shown - expected).max() <= (0.6 if target == "out.webp" else 3)
    # The PNG itself, and a file of measurements, keep what they were.
    run = convpinv(f"{command} in.png out.png --psf box:size=1")
    assert "sRGB, and look" not in said(run.out)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), SLOPE)
    run = convpinv(f"{command} in.png out.tif --psf box:size=1")
    assert f"TIFF has no place here for {lost}" in said(run.out)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), SLOPE)


@pytest.mark.parametrize(
    ("chunk", "word"),
    [(LINEAR, "off"), (LINEAR, "on"), ((b"cICP", bytes([9, 16, 0, 1])), "auto"), ((b"sRGB", b"\0"), "auto")],
)
def test_values_that_the_user_or_nobody_knows_stay(
    convpinv: Callable, tmp_path: Path, chunk: tuple[bytes, bytes], word: str
):
    (tmp_path / "in.png").write_bytes(png(SLOPE, chunk))
    run = convpinv(f"deblur in.png out.webp --psf box:size=1 --linear {word}")
    assert (run.code, run.err) == (0, "")
    assert ("WebP has no place here for" in said(run.out)) is (chunk[0] != b"sRGB")
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out.webp").convert("L")), SLOPE)


def corners(*numbers: int) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *numbers)


SRGB = corners(31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
WIDE = corners(31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)


@pytest.mark.parametrize(
    ("chunks", "lost"),
    [
        ([(b"gAMA", struct.pack(">I", 45455)), SRGB], ()),
        ([WIDE], ("the primaries (cHRM)",)),
        ([(b"sRGB", b"\0"), WIDE, LINEAR], ()),
        ([(b"cICP", bytes([1, 13, 0, 1])), LINEAR], ()),
        ([(b"iCCP", b"p\0\0" + zlib.compress(PROFILE)), WIDE, LINEAR], ()),
        ([(b"iCCP", b"p\0\0 damaged")], ("the colour profile, which is damaged",)),
        (
            [(b"cICP", bytes([9, 16, 0, 1])), (b"cLLI", bytes(8))],
            ("the colour space (cICP), the brightness of its display (mDCV, cLLI)",),
        ),
        ([(b"pHYs", struct.pack(">IIB", 2, 1, 0))], ("the shape of its pixels (pHYs)",)),
        ([(b"pHYs", struct.pack(">IIB", 1, 1, 0)), (b"gAMA", b"\0"), (b"cHRM", b"\0")], ()),
    ],
)
def test_what_only_a_png_says_is_named(chunks: list[tuple[bytes, bytes]], lost: tuple[str, ...]):
    image = images.decode(png(PICTURE, *chunks), "in.png")
    assert images.losses(image, "out.jpg") == tuple(f"JPEG has no place here for {one}" for one in lost)
    assert images.losses(image, "out.png") == ()


def test_what_only_a_tiff_says_is_named(tmp_path: Path):
    tags: list[Any] = [(315, 2, None, "me", True), (33723, 1, 9, bytes(9), True), (34377, 1, 9, bytes(9), True)]
    tifffile.imwrite(tmp_path / "in.tif", PICTURE, photometric="rgb", metadata=None, extratags=tags)
    notes = images.losses(images.read(tmp_path / "in.tif"), "out.png")
    assert notes == ("PNG has no place here for the texts of the TIFF, IPTC, the Photoshop block",)
    tifffile.imwrite(tmp_path / "plain.tif", PICTURE, photometric="rgb", metadata=None, software="a program")
    assert images.losses(images.read(tmp_path / "plain.tif"), "out.png") == ()


def test_blur_leaves_every_pixel_at_its_place_on_the_earth(convpinv: Callable, tmp_path: Path):
    scale, ties = (0.5, 0.25, 0.0), (0.0, 0.0, 0.0, 600000.0, 5300000.0, 0.0, 10.0, 4.0, 0.0, 600005.0, 5299999.0, 0.0)
    matrix = np.array([[0.4, -0.3, 0, 600000], [-0.3, -0.4, 0, 5300000], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    array = np.random.default_rng(0).random((30, 34)).astype(np.float32)
    for name, tags in (
        ("ties.tif", [(33550, 12, 3, scale, True), (33922, 12, 12, ties, True)]),
        ("matrix.tif", [(34264, 12, 16, tuple(matrix.ravel()), True), (33922, 12, 1, 7.0, True)]),
    ):
        keys = (34735, 3, 4, (1, 1, 0, 0), True)
        tifffile.imwrite(tmp_path / name, array, metadata=None, extratags=[*tags, keys])
        assert convpinv(f"blur {name} out_{name} --psf box:size=3x7").code == 0
    with tifffile.TiffFile(tmp_path / "out_ties.tif") as file:
        found = file.pages.first.tags
        assert found[33550].value == scale
        assert found[34735].value == (1, 1, 0, 0)
        assert found[33922].value == (-3.0, -1.0, *ties[2:6], 7.0, 3.0, *ties[8:])
    with tifffile.TiffFile(tmp_path / "out_matrix.tif") as file:
        moved = np.reshape(file.pages.first.tags[34264].value, (4, 4))
        assert file.pages.first.tags[33922].value == 7.0  # no tie point at all, and kept as it is
    np.testing.assert_allclose(moved @ [2, 5, 0, 1], matrix @ [2 + 3, 5 + 1, 0, 1])
    # Restored, the size stays, and so do the places.
    assert convpinv("deblur ties.tif sharp.tif --psf box:size=3").code == 0
    with tifffile.TiffFile(tmp_path / "sharp.tif") as file:
        assert file.pages.first.tags[33922].value == ties
