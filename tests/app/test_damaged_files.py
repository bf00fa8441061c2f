"""Damaged files of every format are read or refused in one line: nothing else, soon, and in little memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from astropy.io import fits

import damage
from convpinv.app import images, ngff
from convpinv.app.files import UnreadableFileError

TIMES = 130
NAMES = (
    "grey.png", "colour.png", "colour.jpg", "colour.webp", "lossy.webp", "plain.tif", "packed.tif", "lzw.tif",
    "zstd.tif", "ome.tif", "imagej.tif", "planar.tif", "grey.npy", "sky.fits", "sky_of_floats.fits", "third.zarr",
    "second.zarr", "blosc.zarr",
)  # fmt: skip
# Above what the interpreter holds by then; a sound file here takes a few kilobytes.
ROOM = 2**30
LONGEST = 10.0


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, damage.Content]:
    return damage.sound_files(tmp_path_factory.mktemp("sound"))


def test_every_format_is_damaged(sound: dict[str, damage.Content]):
    assert set(NAMES) == set(sound)
    assert {images.format_of(Path(name)) for name in NAMES} == set(images.FORMATS.values())
    assert TIMES * len(NAMES) >= 2000


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(
    sound: dict[str, damage.Content], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], name: str
):
    images.decode(sound[name], name, gaps=True, axes=None)
    generator = np.random.default_rng(NAMES.index(name))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    lines = []
    try:
        resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, before[1]))
        for _ in range(TIMES):
            content = damage.damaged(sound[name], generator)
            start = time.perf_counter()
            try:
                images.decode(content, name, gaps=True)
            except UnreadableFileError as error:
                lines.append(str(error))
            assert time.perf_counter() - start < LONGEST
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert len(lines) > TIMES // 10
    assert all(line.startswith(f"{name}: ") and len(line) < 300 for line in lines)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def claiming() -> dict[str, damage.Content]:
    """Files of about a kilobyte whose headers claim 60000 x 60000 pixels."""
    header = fits.Header([("SIMPLE", True), ("BITPIX", 16), ("NAXIS", 2), ("NAXIS1", 60000), ("NAXIS2", 60000)])
    npy = b"{'descr': '<u2', 'fortran_order': False, 'shape': (60000, 60000), }\n"
    vp8 = struct.pack("<BBHBHH", 0x10, 0, 0, 0x9D, 0x2A01, 16383) + struct.pack("<H", 16383)
    level = {
        "zarr_format": 2, "shape": [60000, 60000], "chunks": [60000, 60000], "dtype": "<u2", "compressor": None,
        "fill_value": 0, "order": "C", "filters": None,
    }  # fmt: skip
    third = ngff._new(np.zeros((4, 4), np.uint16), "YX")
    third["0/zarr.json"] = third["0/zarr.json"].replace(
        b'"shape": [\n    4,\n    4', b'"shape": [\n    60000,\n    60000'
    )
    return {
        "bomb.fits": header.tostring().encode() + b"\0" * 500,
        "bomb.npy": b"\x93NUMPY\x01\0" + struct.pack("<H", len(npy)) + npy + b"\0" * 900,
        "bomb.webp": b"RIFF" + struct.pack("<I", 900) + b"WEBPVP8 " + struct.pack("<I", 880) + vp8 + b"\0" * 870,
        "second.zarr": {".zarray": json.dumps(level).encode()},
        "third.zarr": third,
    }


@pytest.mark.parametrize("name", ["bomb.fits", "bomb.npy", "bomb.webp", "second.zarr", "third.zarr"])
def test_files_that_claim_far_too_much(convpinv: Callable, listing: Callable, tmp_path: Path, name: str):
    content = claiming()[name]
    for file, body in ({name: content} if isinstance(content, bytes) else content).items():
        place = tmp_path / file if isinstance(content, bytes) else tmp_path / name / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    before = listing()
    run = convpinv(f"deblur {name} out.tif --psf gaussian:sigma=1")
    assert run.code == 2
    assert run.error_line.startswith(f"convpinv deblur: {name}: ")
    assert "damaged" in run.error_line or "cut off" in run.error_line
    assert listing() == before


def test_zarr_folders_that_are_not_whole(convpinv: Callable, listing: Callable, tmp_path: Path):
    group = zarr.create_group(tmp_path / "two.zarr")
    for name in ("a", "b"):
        group.create_array(name, shape=(4, 4), dtype="u1")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    (tmp_path / "plain").mkdir()
    before = listing()
    for name, says in (
        ("two.zarr", "is a Zarr group of 2 arrays; name the folder of one of them"),
        ("broken.zarr", "is a damaged Zarr folder"),
        ("plain", "is a folder; name one file in it"),
    ):
        run = convpinv(f"deblur {name} out.zarr --check-io")
        assert run.code == 2
        assert f"{name}: {says}" in run.error_line
    assert listing() == before


def test_a_wrong_ending_is_no_harm(convpinv: Callable, tmp_path: Path):
    np.save(tmp_path / "in.npy", np.arange(12, dtype=np.uint16).reshape(3, 4))
    (tmp_path / "in.npy").rename(tmp_path / "in.png")
    run = convpinv("deblur in.png out.tif --check-io")
    assert (run.code, run.err) == (0, "")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("name", ["second.zarr", "blosc.zarr"])
def test_blosc_is_not_trusted(sound: dict[str, damage.Content], name: str):
    content = sound[name]
    assert not isinstance(content, bytes)
    files = dict(content)
    chunk = next(key for key in files if key[-1].isdigit())
    # The first block of a file: its header claims more bytes than there are, which the decoder would read.
    files[chunk] = files[chunk][:12] + b"\x99\x99\x99\x39" + files[chunk][16:]
    with pytest.raises(UnreadableFileError, match="is cut off or changed"):
        images.decode(files, name)


@pytest.mark.parametrize("target", ["out.tif", "out.npy", "out.fits", "out.zarr", "out.png", "out.webp"])
def test_a_disk_that_fills_up_leaves_nothing(convpinv: Callable, listing: Callable, tmp_path: Path, target: str):
    # A limit on the size of files stops a write half-way, as a full disk does, and needs no disk of its own.
    np.save(tmp_path / "in.npy", np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, before[1]))
        run = convpinv(f"deblur in.npy {target} --check-io --report out.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.code == 1
    assert f"{target}: could not be written (File too large); free space" in run.error_line
    assert listing() == {"in.npy"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everywhere")
def test_folders_without_permission(convpinv: Callable, tmp_path: Path):
    zarr.create_array(tmp_path / "in.zarr", shape=(4, 4), dtype="u1")[...] = 1
    (tmp_path / "in.zarr" / "zarr.json").chmod(0)
    run = convpinv("deblur in.zarr out.zarr --check-io")
    assert run.code == 2
    assert "in.zarr: permission denied" in run.error_line


def test_overwriting_a_zarr_folder_replaces_all_of_it(convpinv: Callable, listing: Callable, tmp_path: Path):
    for name, value in (("in.zarr", 1), ("out.zarr", 2)):
        zarr.create_array(tmp_path / name, shape=(4, 4), dtype="u1")[...] = value
    (tmp_path / "out.zarr" / "more").write_text("of the old one")
    run = convpinv("deblur in.zarr out.zarr --check-io")
    assert run.code == 2
    assert "out.zarr: exists already; give --overwrite" in run.error_line
    assert convpinv("deblur in.zarr out.zarr --check-io --overwrite").code == 0
    assert {name.replace("out", "in") for name in listing()} == {name for name in listing() if "out" not in name}
    np.testing.assert_array_equal(np.asarray(zarr.open_array(tmp_path / "out.zarr")[...]), 1)
    assert convpinv("deblur in.zarr in.zarr --psf box:size=3 --strength 0.01 --overwrite").code == 0
    (tmp_path / "plain.zarr").mkdir()
    run = convpinv("deblur in.zarr plain.zarr --check-io --overwrite")
    assert run.code == 2
    assert "plain.zarr: is a folder; name a file in it" in run.error_line
