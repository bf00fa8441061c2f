"""The plan: every pixel once, within the memory, printed and nothing done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convpinv.app.tiles import memory
from convpinv.app.tiles.plan import Layout, fitting
from convpinv.arguments import ArgumentError
from convpinv.imaging import border_gap, window_length
from convpinv.imaging.model import BlurModel
from tiled import ENVIRONMENT


def layout(size: tuple[int, int], halo: int, core: int, grain: int, taps: int, linear: bool) -> Layout:
    gap = (border_gap(size[0], taps, "unknown"), border_gap(size[1], taps, "unknown"))
    return Layout(2, size, (taps, taps), gap, halo, core, grain, linear)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 700),
    columns=st.integers(1, 700),
    halo=st.integers(0, 90),
    core=st.integers(1, 8),
    grain=st.sampled_from([1, 16, 32]),
    taps=st.integers(1, 25),
    linear=st.booleans(),
)
def test_every_pixel_is_written_once_with_its_halo(
    rows: int, columns: int, halo: int, core: int, grain: int, taps: int, linear: bool
) -> None:
    cut = layout((rows, columns), halo, max(core * grain, 8), grain, taps, linear)
    written = np.zeros((2, rows, columns), int)
    tiles = list(cut.tiles())
    assert [tile.index for tile in tiles] == list(range(cut.count))
    assert Layout.from_dict(cut.to_dict()) == cut
    for tile in tiles:
        source = [np.concatenate([np.arange(*read) for read in axis.reads]) for axis in (tile.rows, tile.columns)]
        for down, right, row, column in tile.pieces():
            written[tile.plane, slice(*down), slice(*right)] += 1
            # What comes out of the window at a place is what went in there.
            assert np.array_equal(source[0][row], np.arange(*down))
            assert np.array_equal(source[1][column], np.arange(*right))
            assert down[0] % grain == right[0] % grain == 0
        for axis, place, length in ((tile.rows, source[0], rows), (tile.columns, source[1], columns)):
            assert axis.length <= length
            for start, stop, offset in axis.cores:
                near = np.arange(max(start - halo, 0), min(stop + halo, length))
                inside = place[max(offset - halo, 0) : offset + stop - start + halo]
                assert set(near) <= set(inside)
    assert (written == 1).all()


@pytest.mark.parametrize("whole", [9000, 16384, 33333])
@pytest.mark.parametrize("taps", [3, 17, 64])
def test_windows_at_the_border_see_the_gap_of_the_whole(whole: int, taps: int) -> None:
    gap = border_gap(whole, taps, "unknown")
    psf = torch.full((taps, taps), 1 / taps**2)
    assert BlurModel.build(psf, (whole, whole), "unknown").grid == (whole + gap, whole + gap)
    for least in (500, 2000, 4999):
        length = window_length(least, taps, gap)
        # Sought among the windows that get that gap by themselves, one in three was more than twice as long.
        assert least <= length <= 1.15 * least
        assert BlurModel.build(psf, (length, length), "unknown", (gap, gap)).grid == (length + gap, length + gap)


def test_the_largest_core_that_fits() -> None:
    wide = layout((9000, 9000), 40, 8192, 256, 17, True)

    def cost(rows: int, columns: int, inside: bool) -> float:
        return rows * columns * (10 if inside else 100)

    budget = 2.0e8
    found = fitting(wide, cost, budget)
    assert max(cost(rows, columns, inside) for rows, columns, inside, _ in found.windows()) <= budget
    assert found.core >= 1024
    with pytest.raises(ArgumentError, match="more than --memory allows"):
        fitting(wide, cost, 1e5)


@pytest.mark.parametrize(
    ("text", "size"), [("4G", 2**32), ("1.5GiB", 3 * 2**29), ("800M", 800 * 2**20), ("512kb", 2**19), ("123", 123)]
)
def test_sizes(text: str, size: int) -> None:
    assert memory.parse(text) == size


def test_the_kernel_counts_what_is_held() -> None:
    before = memory.peak()
    block = np.ones(2**25 + memory.peak() - memory.held(), np.uint8)
    assert memory.peak() - before >= 2**25 * 0.9
    del block


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    """A picture of 65536 x 65536 pixels, of which a corner is there."""
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        tmp_path / "sheet.zarr", shape=(65536, 65536), chunks=(512, 512), dtype="uint16", fill_value=900
    )
    array[:512, :512] = np.random.default_rng(0).integers(0, 60000, (512, 512))
    return tmp_path / "sheet.zarr"


def test_a_dry_run_prints_the_plan_and_does_nothing(
    sheet: Path, convpinv: Callable[[str], Any], listing: Callable[[], set[str]]
) -> None:
    before = listing()
    run = convpinv(
        "deblur sheet.zarr out.zarr --psf gaussian:sigma=2 --prior gradient --strength 0.02 --memory 3G --dry-run"
    )
    assert run.code == 0, run.err
    assert "65536x65536" in run.out
    assert "halo" in run.out
    assert "(bound)" in run.out
    assert "limit 3 GiB" in run.out
    assert "estimated on a block" in run.out
    assert listing() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--memory much", "--memory is 'much'; it may be a size like 4G"),
        ("--memory 100M", "more than --memory allows"),
        ("--memory 3G --prior none", "--prior none has no end to its reach"),
        ("--memory 3G --strength gcv", "--strength gcv restores the whole picture many times"),
        ("--memory 3G --mask m.png", "--mask is not for tiles"),
        ("--workers 2 --scheduler tcp://127.0.0.1:1", "give one of them"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    sheet: Path, convpinv: Callable[[str], Any], listing: Callable[[], set[str]], options: str, message: str
) -> None:
    before = listing()
    run = convpinv(f"deblur sheet.zarr out.zarr --psf gaussian:sigma=2 {options}")
    assert run.code == 2
    assert message in run.error_line
    assert listing() == before


def test_names_that_tiles_do_not_serve(sheet: Path, convpinv: Callable[[str], Any]) -> None:
    run = convpinv("deblur sheet.zarr out.png --psf gaussian:sigma=2 --memory 2G")
    assert run.code == 2
    assert "out.png: in tiles .zarr, .tif, .tiff, .npy are written" in run.error_line
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    run = convpinv("deblur picture.png out.tif --psf gaussian:sigma=2 --memory 2G")
    assert run.code == 2
    assert "is PNG; in tiles TIFF, Zarr and .npy are read" in run.error_line


def test_the_peak_stays_below_the_limit(tmp_path: Path) -> None:
    """A window of the whole picture would take 0.6 GB, beyond the base of 0.3: a process of its own is asked."""
    np.save(tmp_path / "in.npy", np.random.default_rng(0).integers(0, 65536, (3200, 3100), np.uint16))
    call = (
        "import sys; from convpinv.app.cli import main; from convpinv.app.tiles import memory;"
        "code = main(sys.argv[1:]); print('peak', memory.peak()); sys.exit(code)"
    )
    words = "deblur in.npy out.npy --psf gaussian:sigma=2 --prior gradient --strength 0.1 --boundary circular"
    command = [sys.executable, "-c", call, *words.split(), "--noise", "0.01", "--memory", "700M"]
    run = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "1 of at most" not in run.stdout
    assert int(run.stdout.rpartition("peak ")[2]) < 700 * 2**20
    assert np.load(tmp_path / "out.npy").std() > 0


@pytest.mark.parametrize(
    "option",
    ["--plot p.png", "--linear on", "--clip 0,1", "--bounds 0,", "--prior hyperlaplacian --exponent 0.5"],
)
def test_what_tiles_do_not_serve_is_refused(sheet: Path, convpinv: Callable[[str], Any], option: str) -> None:
    run = convpinv(f"deblur sheet.zarr out.zarr --psf gaussian:sigma=2 --memory 2G {option}")
    assert run.code == 2
    assert "is not for tiles" in run.error_line
    assert not Path("out.zarr").exists()
