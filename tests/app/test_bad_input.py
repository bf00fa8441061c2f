"""Every bad input: exit code 2, one line that names the file and a remedy, and a folder as it was before."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

PSF = "gaussian:sigma=1"
GREY = np.tile(np.arange(32, dtype=np.uint8) * 7, (24, 1))
COLOUR = np.dstack([GREY, GREY[:, ::-1], GREY])
ALPHA = np.dstack([COLOUR, GREY])


def saved(array: np.ndarray | Pillow.Image, kind: str, **options) -> bytes:
    picture = array if isinstance(array, Pillow.Image) else Pillow.fromarray(array)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def claiming_png(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def claiming_jpeg() -> bytes:
    data = bytearray(saved(COLOUR, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 12000, 12000)
    return bytes(data)


def claiming_tiff() -> bytes:
    data = bytearray(tiff(GREY, metadata=None, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for name in ("ImageWidth", "ImageLength"):
            tag = file.pages.first.tags[name]
            form = "<I" if int(tag.dtype) == 4 else "<H"
            struct.pack_into(form, data, tag.valueoffset, 60000)
    return bytes(data)


def damaged(data: bytes, at: float = 0.6) -> bytes:
    place = int(len(data) * at)
    return data[:place] + bytes(255 - byte for byte in data[place : place + 40]) + data[place + 40 :]


NOISY = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
HALF = {kind: (data := saved(NOISY, kind))[: len(data) // 2] for kind in ("PNG", "JPEG", "TIFF")}

# name → (content, what the line has to say)
FILES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"not a picture at all, but long enough\n" * 9, "not a picture that this version knows"),
    "film.png": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC"),
    "picture.gif": (saved(GREY, "GIF"), "is a GIF"),
    "cut.webp": (saved(NOISY, "WEBP")[:900], "is a damaged WebP"),
    "packed.fits.gz": (b"\x1f\x8b" + b"\0" * 99, "is gzip-compressed"),
    "signature_only.png": (b"\x89PNG\r\n\x1a\n", "cut off"),
    "cut.png": (HALF["PNG"], "cut off"),
    "cut.jpg": (HALF["JPEG"], "damaged"),
    "cut.tif": (HALF["TIFF"], "cut off"),
    "cut_after_directory.tif": (tiff(NOISY, photometric="rgb", metadata=None)[:-100], "cut off"),
    "corrupt.png": (damaged(saved(NOISY, "PNG")), "damaged PNG"),
    "noise.jpg": (b"\xff\xd8\xff" + bytes(range(1, 200)), "is a damaged JPEG (cannot identify image file); get"),
    "corrupt_header.jpg": (saved(NOISY, "JPEG")[:30] + b"\0" * 500, "damaged JPEG"),
    "corrupt.tif": (damaged(tiff(NOISY, photometric="rgb", metadata=None, compression="zlib")), "damaged TIFF"),
    "tiff_header_only.tif": (b"II*\0\x08\0\0\0", "holds no picture"),
    "animated.png": (
        saved(Pillow.fromarray(GREY), "PNG", save_all=True, append_images=[Pillow.fromarray(GREY[::-1])]),
        "animated (2 frames)",
    ),
    "pages.tif": (tiff(np.stack([GREY] * 5), photometric="minisblack", metadata=None), "has 3 axes (5 x 24 x 32)"),
    "unnamed.npy": (npy(np.stack([GREY] * 4)), "name them with --axes, like --axes ZYX"),
    "line.npy": (npy(GREY[0]), "a picture has two"),
    "cut.npy": (npy(GREY)[:-1], "cut off"),
    "lettered.npy": (npy(np.array([["a"]])), "holds str32 values"),
    "cmyk.jpg": (saved(Pillow.fromarray(COLOUR).convert("CMYK"), "JPEG"), "CMYK; convert it to RGB"),
    "cmyk.tif": (saved(Pillow.fromarray(COLOUR).convert("CMYK"), "TIFF"), "save it as grey or RGB"),
    "palette.tif": (saved(Pillow.fromarray(COLOUR).quantize(8), "TIFF"), "save it as grey or RGB"),
    "int64.tif": (tiff(GREY.astype(np.int64)), "int64"),
    "int64.npy": (npy(GREY.astype(np.uint64)), "uint64"),
    "twelve_bits.tif": (tiff(GREY.astype(np.uint16), bitspersample=12), "12-bit"),
    "complex.tif": (tiff(GREY.astype(np.complex64)), "complex64"),
    "five_channels.tif": (tiff(np.dstack([GREY] * 5), photometric="minisblack", planarconfig="contig"), "5 channels"),
    "nan.tif": (tiff(np.full(GREY.shape, np.nan, np.float32)), "NaN or infinite"),
    "absurd.png": (claiming_png(60000, 60000), "26.8 GiB"),
    "absurd.jpg": (claiming_jpeg(), "claims 12000x12000"),
    "absurd.tif": (claiming_tiff(), "claims 60000x60000"),
    "no_pixels.png": (claiming_png(0, 7), "none at all"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_picture(
    convpinv: Callable, listing: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
):
    content, expected = FILES[name]
    (tmp_path / name).write_bytes(content)
    run = convpinv(f"deblur {name} out.tif --psf {PSF} --report out.json")
    assert run.code == 2
    assert run.error_line.startswith(f"convpinv deblur: {name}: ")
    assert expected in run.error_line
    assert len(run.error_line) < 250
    assert "object at 0x" not in run.error_line
    assert caplog.records == []  # outside of tests, what is logged ends on the terminal
    assert listing() == {name}
    assert run.out == ""


@pytest.mark.parametrize(
    "command", [f"deblur IN out.png --psf {PSF}", f"blur IN out.png --psf {PSF}", "psf IN -o out.png"]
)
@pytest.mark.parametrize("name", ["folder", "cut.png", "damaged.npy"])
def test_every_command_says_what_is_wrong_with_a_file(
    convpinv: Callable, listing: Callable, tmp_path: Path, command: str, name: str
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.png").write_bytes(HALF["PNG"])
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\0" + b"\0" * 20)
    before = listing()
    run = convpinv(command.replace("IN", name))
    assert run.code == 2
    if command.startswith("deblur") and name == "folder":  # all pictures in it, for which out.png is no place
        assert "out.png: several pictures go into a folder" in run.error_line
    else:
        assert f"{name}: is " in run.error_line
    assert listing() == before


def test_missing_file(convpinv: Callable, listing: Callable):
    run = convpinv(f"deblur nowhere.png out.png --psf {PSF}")
    assert run.code == 2
    assert run.error_line == "convpinv deblur: nowhere.png: no such file; check the name and the folder"
    assert listing() == set()


def test_a_pipe_is_refused_and_not_waited_for(convpinv: Callable, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    run = convpinv(f"deblur pipe.png out.png --psf {PSF}")
    assert run.code == 2
    assert "pipe.png: is not a regular file" in run.error_line


def test_permission_denied(convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "secret.png").write_bytes(saved(GREY, "PNG"))
    if os.geteuid() == 0:  # root reads everything: the refusal has to be played

        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "read_bytes", refuse)
    else:
        (tmp_path / "secret.png").chmod(0)
    run = convpinv(f"deblur secret.png out.png --psf {PSF}")
    assert run.code == 2
    assert run.error_line == "convpinv deblur: secret.png: permission denied; make the file readable for you"


# output name → what the line has to say
TARGETS = {
    "nowhere/out.png": "the folder nowhere does not exist",
    "folder": "is a folder",
    "folder.png": "is a folder",
    "in.png/out.png": "the folder in.png is not a folder",
    "out.bmp": "the ending '.bmp' is not one that is written; name it .png, .jpg",
    "out": "the name has no ending",
    "exists.png": "exists already; give --overwrite",
    "in.png": "OUT and IN are one file; give --overwrite",
    "x" * 300 + ".png": "cannot be a file's name",
    "link_to_in.png": "OUT and IN are one file; give --overwrite",
}
if Path("/proc/self").exists():  # a folder that refuses root too, whatever its permissions say
    TARGETS["/proc/out.png"] = "the folder /proc cannot be written"


@pytest.mark.parametrize("command", ["deblur", "blur"])
@pytest.mark.parametrize("name", TARGETS)
def test_bad_target(convpinv: Callable, listing: Callable, tmp_path: Path, command: str, name: str):
    (tmp_path / "in.png").write_bytes(saved(GREY, "PNG"))
    (tmp_path / "exists.png").write_bytes(b"precious")
    for folder in ("folder", "folder.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link_to_in.png").symlink_to("in.png")
    before = listing()
    run = convpinv(f"{command} in.png {name} --psf {PSF}")
    if command == "deblur" and name.startswith("folder"):
        assert run.code == 0  # a folder is written into: tests/app/test_batch.py
        return
    assert run.code == 2
    assert f"{name}: " in run.error_line
    assert TARGETS[name] in run.error_line
    assert listing() == before
    assert (tmp_path / "exists.png").read_bytes() == b"precious"
    assert (tmp_path / "in.png").read_bytes() == saved(GREY, "PNG")


@pytest.mark.parametrize(
    ("source", "data", "target", "expected"),
    [
        ("in.tif", tiff(GREY.astype(np.uint16) * 200), "out.jpg", "name it .png or .tif"),
        ("in.tif", tiff(GREY.astype(np.float32)), "out.png", "name it .tif"),
        ("in.tif", tiff(GREY.astype(np.float16)), "out.jpg", "name it .tif"),
        ("in.png", saved(ALPHA, "PNG"), "out.jpg", "transparency"),
    ],
)
def test_a_format_that_cannot_hold_the_picture(
    convpinv: Callable, listing: Callable, tmp_path: Path, source: str, data: bytes, target: str, expected: str
):
    (tmp_path / source).write_bytes(data)
    run = convpinv(f"deblur {source} {target} --psf {PSF}")
    assert run.code == 2
    assert run.error_line.startswith(f"convpinv deblur: {target}: the picture ")
    assert expected in run.error_line
    assert listing() == {source}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--psf nothing_like_it", "--psf 'nothing_like_it' is neither a file that exists nor a PSF like"),
        ("--psf gausian:sigma=2", "neither a file that exists nor a PSF like"),
        ("--psf gaussian:sigma=-2", "--psf gaussian:sigma=-2: "),
        ("--psf motion:lenght=9", "--psf motion:lenght=9: "),
        (
            f"--psf {PSF} --strength much",
            "--strength is 'much'; it may be auto, a number above 0, or a rule: ",
        ),
        (f"--psf {PSF} --strength -1", "--strength"),
        (f"--psf {PSF} --strength 0", "--strength is '0'"),
        (f"--psf {PSF} --noise nan", "--noise is 'nan'"),
        (f"--psf {PSF} --prior best", "--prior"),
        (f"--psf {PSF} --boundary none", "--boundary"),
        (f"--psf {PSF} --device tpu", "--device"),
        (f"--psf {PSF} --report in.png", "in.png: --report and IN are one file"),
        (f"--psf {PSF} --report out.png", "out.png: --report and OUT are one file"),
        (f"--psf {PSF} --report report.txt", "report.txt: reports are written as JSON; name it .json"),
        (f"--psf {PSF} --strength", "Option '--strength' requires an argument; see 'convpinv deblur --help'"),
        (f"--psf {PSF} --report exists.json", "exists.json: exists already; give --overwrite"),
        (f"--psf {PSF} --report no/r.json", "no/r.json: the folder no does not exist"),
        ("--psf gaussian:sigma=30", "in.png: "),
        ("", "--psf"),
    ],
)
def test_bad_option(convpinv: Callable, listing: Callable, tmp_path: Path, options: str, expected: str):
    (tmp_path / "in.png").write_bytes(saved(GREY, "PNG"))
    (tmp_path / "exists.json").write_bytes(b"{}")
    run = convpinv(f"deblur in.png out.png {options}")
    assert run.code == 2
    assert run.error_line.startswith("convpinv deblur: ")
    assert expected in run.error_line
    assert listing() == {"in.png", "exists.json"}


@pytest.mark.parametrize("psf", ["psf.png", "./psf.png"])
def test_the_psf_is_never_overwritten(convpinv: Callable, tmp_path: Path, psf: str):
    (tmp_path / "in.png").write_bytes(saved(GREY, "PNG"))
    (tmp_path / "psf.png").write_bytes(saved(GREY[:3, :3], "PNG"))
    before = (tmp_path / "psf.png").read_bytes()
    run = convpinv(f"deblur in.png psf.png --psf {psf} --overwrite")
    assert run.code == 2
    assert "psf.png: OUT and --psf are one file" in run.error_line
    assert (tmp_path / "psf.png").read_bytes() == before


@pytest.mark.parametrize("overwrite", ["", "--overwrite"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deblur in.png out.png --psf psf.png --report in.png", "in.png: --report and IN are one file"),
        ("deblur in.png out.png --psf psf.png --report link.json", "link.json: --report and IN are one file"),
        ("deblur in.png in.png --psf in.png", "in.png: OUT and --psf are one file"),
        ("deblur in.png out.png --psf psf.png --report psf.png", "psf.png: --report and --psf are one file"),
        ("blur in.png psf.png --psf psf.png", "psf.png: OUT and --psf are one file"),
        ("psf psf.png -o psf.png", "psf.png: -o and the PSF are one file"),
        ("psf psf.png --plot psf.png", "psf.png: --plot and the PSF are one file"),
        ("inspect --psf psf.png --size 24x32 --plot psf.png", "psf.png: --plot and --psf are one file"),
    ],
)
def test_no_input_is_destroyed(
    convpinv: Callable, listing: Callable, tmp_path: Path, line: str, expected: str, overwrite: str
):
    contents = {"in.png": saved(GREY, "PNG"), "psf.png": saved(GREY[:3, :3], "PNG")}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.json").symlink_to("in.png")
    run = convpinv(f"{line} {overwrite}")
    assert run.code == 2
    assert expected in run.error_line
    assert "overwrite" not in run.error_line
    assert listing() == {*contents, "link.json"}
    for name, content in contents.items():
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "convpinv: Missing command"),
        ("sharpen in.png", "convpinv: No such command 'sharpen'"),
        ("deblur", "convpinv deblur: Missing argument 'IN...'"),
        ("blur a.png b.png --psf box:size=3 --noise -1", "convpinv blur: Invalid value for '--noise'"),
        ("inspect --psf box:size=3", "convpinv inspect: Missing option '--size'"),
        ("inspect --psf box:size=3 --size 12", "convpinv inspect: --size is '12'"),
        ("inspect --psf box:size=3 --size 0x12", "convpinv inspect: --size is '0x12'"),
        (
            "inspect --psf box:size=3 --size 999999x999999",
            "convpinv inspect: --size 999999x999999 is over the limit of 100 megapixels; give a smaller one",
        ),
        ("inspect --psf box:size=3 --size 9x9 --noise inf", "convpinv inspect: --noise is inf"),
        ("inspect --psf box:size=3 --size 9x9 --noise nan", "convpinv inspect: "),
        (f"psf {'x' * 300}", "convpinv psf: the PSF 'xxx"),
        ("inspect --psf box:size=9 --size 5x5", "convpinv inspect: --size 5x5 is smaller than the PSF (9x9)"),
        ("psf gaussian:sigma=1 -o psf.jpg", "convpinv psf: psf.jpg: a PSF is written as .tif"),
        ("psf gaussian:sigma=1 --plot plot.pdf", "convpinv psf: plot.pdf: plots are written as PNG"),
        ("psf gaussian:sigma=1 -o x.png --plot x.png", "convpinv psf: x.png: --plot and -o are one file"),
        ("psf gaussian", "convpinv psf: the PSF gaussian: "),
    ],
)
def test_bad_usage(convpinv: Callable, listing: Callable, line: str, expected: str):
    run = convpinv(line)
    assert run.code == 2
    assert run.error_line.startswith(expected)
    assert listing() == set()
