"""Many pictures: what each becomes, failures, reports, what is left aside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from app.folders import OPTIONS, contents, fill, picture, save, unfinished
from convpinv.app import batch_summary


def alone(convpinv: Callable, sources: list[Path], options: str = OPTIONS) -> dict[str, bytes]:
    """What the command makes of each picture by itself."""
    made = {}
    for source in sources:
        assert convpinv(f"deblur {source} alone.png {options} --overwrite").code == 0
        made[source.name] = Path("alone.png").read_bytes()
    Path("alone.png").unlink()
    return made


@pytest.mark.parametrize("options", [OPTIONS, "--psf gaussian:sigma=1"])
def test_a_folder_holds_what_each_picture_gives_alone(convpinv: Callable, tmp_path: Path, options: str):
    names = fill(tmp_path / "in", 3, (30, 34))
    expected = alone(convpinv, [tmp_path / "in" / name for name in names], options)
    run = convpinv(f"deblur in out {options}")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("restored  3 of 3 pictures into out, ")
    assert contents(tmp_path / "out") == expected


def test_worker_processes_make_the_same(convpinv: Callable, tmp_path: Path):
    names = fill(tmp_path / "in", 5)
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / names[0]).read_bytes()[:200])
    assert convpinv(f"deblur in one {OPTIONS} --jobs 1").code == 1
    run = convpinv(f"deblur in two {OPTIONS} --jobs 2 --report two.jsonl")
    assert run.code == 1
    assert run.error_line == "convpinv deblur: 1 of 6 pictures failed; two.jsonl says more"
    # Another number of threads adds up in another order: a level of 255 at the most.
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert set(one) == set(two) == set(names)
    for name in names:
        difference = imagecodecs.png_decode(one[name]).astype(int) - imagecodecs.png_decode(two[name])
        assert np.abs(difference).max() <= 1
    lines = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert sorted(line["outcome"] for line in lines) == ["failed", *["restored"] * 5]


def test_what_is_no_picture_is_left_aside_and_counted(convpinv: Callable, tmp_path: Path):
    fill(tmp_path / "in", 2)
    save(tmp_path / "in" / "psf.png", np.full((3, 3), 9, np.uint8))
    (tmp_path / "in" / "notes.txt").write_text("notes")
    (tmp_path / "in" / ".DS_Store").write_bytes(b"\0")
    os.mkfifo(tmp_path / "in" / "fifo")
    (tmp_path / "in" / "deep").mkdir()
    # The content decides: a PNG without its ending is a picture, but what would its output be called?
    shutil.copy(tmp_path / "in" / "p000.png", tmp_path / "in" / "scan")
    options = OPTIONS.replace("gaussian:sigma=0.8", "in/psf.png")
    run = convpinv(f"deblur in out {options} --report r.jsonl")
    assert run.code == 1
    assert set(contents(tmp_path / "out")) == {"p000.png", "p001.png"}
    lines = {line["input"]: line for line in map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())}
    assert {name: line["outcome"] for name, line in lines.items()} == {
        "in/p000.png": "restored",
        "in/p001.png": "restored",
        "in/scan": "failed",
        "in/notes.txt": "skipped",
        "in/fifo": "skipped",
        "in/psf.png": "skipped",
    }
    assert "--format" in lines["in/scan"]["reason"]
    for said in ("skipped   3 files that are no pictures", "skipped   1 hidden", "skipped   1 folders; --recursive"):
        assert said in run.out
    assert convpinv(f"deblur in again {options} --format png").code == 0
    assert "scan.png" in contents(tmp_path / "again")


def test_bad_files_do_not_stop_the_others(convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = fill(tmp_path / "in", 5)
    expected = alone(convpinv, [tmp_path / "in" / name for name in names])
    good = (tmp_path / "in" / "p000.png").read_bytes()
    (tmp_path / "in" / "a_cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    (tmp_path / "in" / "p001_denied.png").write_bytes(good)
    (tmp_path / "in" / "text.png").write_text("no picture, whatever its name says")
    save(tmp_path / "in" / "tiny.png", picture(0, (2, 2)))  # smaller than the PSF
    before = Path.read_bytes

    def refuse(path: Path) -> bytes:  # root may read everything
        if path.name == "p001_denied.png":
            raise PermissionError(13, "Permission denied")
        return before(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    run = convpinv(f"deblur in nowhere.png out {OPTIONS} --report r.jsonl --jobs 1")
    assert run.code == 1
    assert run.error_line == "convpinv deblur: 6 of 11 pictures failed; r.jsonl says more"
    assert contents(tmp_path / "out") == expected
    assert unfinished(tmp_path) == []
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    reasons = {line["input"]: line["reason"] for line in lines if line["outcome"] == "failed"}
    for name, said in {
        "in/a_cut.png": "",
        "in/empty.png": "is empty",
        "in/p001_denied.png": "permission denied",
        "in/text.png": "is not a picture",
        "in/tiny.png": "psf",
        "nowhere.png": "no such file",
    }.items():
        assert said in reasons.pop(name)
        table = " ".join(run.out.split())
        assert f" {name}: " in table
        assert said in table
    assert reasons == {}
    (done,) = [line for line in lines if line["input"] == "in/p000.png"]
    assert done["output"] == "out/p000.png"
    assert done["psf"] == "gaussian:sigma=0.8"
    assert done["prior"] == "tikhonov"


def test_an_error_that_nobody_expected_is_one_pictures(
    convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from convpinv import imaging

    fill(tmp_path / "in", 4)
    before = imaging.deblur
    errors = iter([KeyError("odd"), MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: allocate memory")])

    def fail(*words, **options):
        if (error := next(errors, None)) is not None:
            raise error
        return before(*words, **options)

    monkeypatch.setattr(imaging, "deblur", fail)
    run = convpinv(f"deblur in out {OPTIONS}")
    assert run.code == 1
    assert "in/p000.png: cannot be restored (KeyError: 'odd')" in run.out
    assert run.out.count("not enough memory") == 2
    assert set(contents(tmp_path / "out")) == {"p003.png"}


def test_a_full_disk_is_a_failure_of_its_pictures(convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path / "in", 3)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    run = convpinv(f"deblur in out {OPTIONS}")
    assert run.code == 1
    assert run.out.count("No space left on device") == 3
    assert contents(tmp_path / "out") == {}
    assert unfinished(tmp_path) == []
    monkeypatch.undo()
    os.chdir(tmp_path)
    # What has a record and no file is not finished.
    run = convpinv(f"deblur in out {OPTIONS} --resume")
    assert (run.code, len(contents(tmp_path / "out"))) == (0, 3)


def test_in_place(convpinv: Callable, tmp_path: Path):
    names = fill(tmp_path / "in", 3)
    expected = alone(convpinv, [tmp_path / "in" / name for name in names])
    assert convpinv(f"deblur in in {OPTIONS} --overwrite").code == 0
    assert contents(tmp_path / "in") == expected
    # A pattern means the same files.
    assert "in/p000.png: the output would replace its input" in convpinv(f"deblur 'in/*.png' in {OPTIONS}").error_line
    # Going on deblurs nothing twice.
    run = convpinv(f"deblur in in {OPTIONS} --overwrite --resume")
    assert run.code == 0
    assert "kept      3 that an earlier run finished" in run.out
    assert contents(tmp_path / "in") == expected


def test_a_mask_is_for_all(convpinv: Callable, tmp_path: Path):
    names = fill(tmp_path / "in", 2)
    seen = np.full((20, 24), 255, np.uint8)
    seen[3:5, 3:5] = 0
    save(tmp_path / "in" / "mask.png", seen)
    options = f"{OPTIONS} --mask in/mask.png"
    expected = alone(convpinv, [tmp_path / "in" / name for name in names], options)
    run = convpinv(f"deblur in out {options}")
    assert (run.code, run.err) == (0, "")
    assert contents(tmp_path / "out") == expected


def test_the_bar_says_rate_and_time_left_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with batch_summary.Bar(2) as bar:
        bar.advance(0)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with batch_summary.Bar(3) as bar:
        bar.advance(0)
        bar.advance(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/3" in captured.err
    assert "a second, 1 failed" in captured.err
