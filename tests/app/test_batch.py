"""Many pictures: names, folders, failures, reports, what is replaced and what is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr

from app.folders import OPTIONS, contents, fill, picture, save, unfinished
from convpinv.app import batch_journal, batch_plan, batch_summary
from convpinv.app.batch_plan import Naming, Plan, Task
from convpinv.app.request import Request


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


@pytest.mark.parametrize(
    ("sources", "written"),
    [
        ("in/a.png in/deep/c.png", {"a.png", "c.png"}),
        ("in/a.png", {"a.png"}),
        ("in", {"a.png", "b.jpg"}),
        ("in --recursive", {"a.png", "b.jpg", "deep/c.png", "deep/er/d.png"}),
        ("'in/*.png'", {"a.png"}),
        ("'in/**/*.png'", {"a.png", "deep/c.png", "deep/er/d.png"}),
        ("'in/*/*.png' in/a.png", {"a.png", "deep/c.png"}),
        ("in in/a.png in", {"a.png", "b.jpg"}),
        ("in --suffix=-sharp", {"a-sharp.png", "b-sharp.jpg"}),
        ("in --format png", {"a.png", "b.png"}),
    ],
)
def test_names(convpinv: Callable, tmp_path: Path, sources: str, written: set[str]):
    for name in ("a.png", "b.jpg", "deep/c.png", "deep/er/d.png"):
        save(tmp_path / "in" / name, picture(1))
    run = convpinv(f"deblur {sources.partition(' --')[0]} out/ {OPTIONS} {sources[len(sources.partition(' --')[0]) :]}")
    assert (run.code, run.err) == (0, "")
    assert set(contents(tmp_path / "out")) == written


@pytest.mark.parametrize(
    ("sources", "target", "folder"),
    [
        (["a.png"], "b.png", False),
        (["a.png"], "new", False),
        (["a.png"], "new/", True),
        (["a.png"], "there", True),
        (["a.png", "b.png"], "new", True),
        (["there"], "new", True),
        (["*.png"], "new", True),
        (["[1].png"], "b.png", False),
        (["volume.zarr"], "new.zarr", False),
        (["a.png"], "volume.zarr", False),
    ],
)
def test_when_out_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], target: str, folder: bool
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "volume.zarr").mkdir()
    (tmp_path / "[1].png").touch()
    assert batch_plan.is_for_folders(sources, target) is folder


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("in/a.png in/a.jpg out --format png", "out/a.png: in/a.png and in/a.jpg would both be written there"),
        ("in/a.png other/a.png out", "out/a.png: in/a.png and other/a.png would both be written there"),
        ("in in", "in/a.jpg: the output would replace its input; give --overwrite"),
        ("in in/a.png in/", "the output would replace its input; give --overwrite"),
        ("in in --suffix=-x", "in/a-x.png: the output of in/a.png is another input"),
        ("in in/a.png", "in/a.png: is a file; several pictures go into a folder"),
        ("in out.png", "out.png: several pictures go into a folder, and this is a picture's name; write out.png/"),
        ("empty out", "empty: no picture to restore"),
        ("nested out", "nested: no picture to restore; 1 folders were not entered, --recursive does"),
        ("'in/*.tif' out", "in/*.tif: no file matches this pattern"),
        ("in out --format bmp", "--format is 'bmp'; it may be png, "),
        ("in out --suffix a/b", "--suffix is 'a/b'"),
        ("in out --report r.json", "r.json: the report on many pictures is written as JSON lines; name it .jsonl"),
        ("in out --report in/a.png", "in/a.png: the report on many"),
        ("in out --report no/r.jsonl", "no/r.jsonl: the folder no does not exist"),
        ("in out --plot p.png", "--plot is for one picture"),
        ("in out --psf nonsense", "--psf 'nonsense' is neither a file"),
        ("in out --mask no.png", "no.png: no such file"),
        ("in out --jobs 0", "Invalid value for '--jobs'"),
        ("in /proc/out", "/proc/out: "),
        ("in there", "there/a.jpg: exists already (and so do 1 more); --overwrite replaces what exists, --resume"),
        ("in there --resume", "there/a.jpg: exists (and so do 1 more), and is not what an earlier run wrote"),
        ("in/a.png out.png --recursive", "--recursive is for folders"),
        ("in/a.png out.png --jobs 2", "--jobs is for folders"),
        ("in/a.png out.png --suffix x", "--suffix is for folders"),
        ("in/a.png out.png --format png", "--format is for folders"),
        ("in/a.png - --recursive", "--recursive is for folders, and this is a pipe"),
        ("- in/a.png -", "- is one picture"),
    ],
)
def test_what_is_refused_before_any_work(convpinv: Callable, tmp_path: Path, listing: Callable, line: str, said: str):
    for name in ("in/a.png", "in/a.jpg", "other/a.png", "in/a-x.png", "nested/deep/a.png"):
        if name != "in/a-x.png" or "-x" in line:
            save(tmp_path / name, picture(1))
    (tmp_path / "empty").mkdir()
    for name in ("a.png", "a.jpg"):
        save(tmp_path / "there" / name, picture(2))
    before, precious = listing(), contents(tmp_path)
    run = convpinv(f"deblur {line} {OPTIONS if '--psf' not in line else ''}")
    assert run.code == 2
    assert said in run.error_line
    assert run.out == ""
    assert listing() == before
    assert contents(tmp_path) == precious


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


def test_results_in_the_tree_of_the_inputs_are_no_inputs(convpinv: Callable, tmp_path: Path):
    fill(tmp_path / "in", 2)
    for _ in range(2):
        assert convpinv(f"deblur in in/sharp {OPTIONS} --recursive --overwrite").code == 0
    assert convpinv(f"deblur 'in/**/*.png' in/sharp {OPTIONS} --overwrite").code == 0
    assert set(contents(tmp_path / "in")) == {"p000.png", "p001.png", "sharp/p000.png", "sharp/p001.png"}


def test_links_to_folders_have_an_end(convpinv: Callable, tmp_path: Path):
    fill(tmp_path / "in", 1)
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    run = convpinv(f"deblur in out {OPTIONS} --recursive")
    assert run.code == 0
    assert set(contents(tmp_path / "out")) == {"p000.png"}


def test_going_on_keeps_what_is_finished_and_nothing_else(convpinv: Callable, tmp_path: Path):
    names = fill(tmp_path / "in", 4)
    line = f"deblur in out {OPTIONS} --report r.jsonl"
    assert convpinv(line).code == 0
    out = tmp_path / "out"
    stamps = {name: (out / name).stat().st_mtime_ns for name in names}
    expected = contents(out)
    (out / "p001.png").unlink()
    save(tmp_path / "in" / "new.png", picture(9))
    run = convpinv(f"{line} --resume")
    assert (run.code, run.err) == (0, "")
    assert "restored  2 of 5" in run.out
    assert "kept      3" in run.out
    assert {name: data for name, data in contents(out).items() if name != "new.png"} == expected
    assert [name for name in names if (out / name).stat().st_mtime_ns != stamps[name]] == ["p001.png"]
    outcomes = [json.loads(one)["outcome"] for one in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert outcomes == ["restored"] * 4 + ["kept"] * 3 + ["restored"] * 2

    # Another input, other settings, an output that was painted over: each is told, none is replaced unasked.
    save(tmp_path / "in" / "p002.png", picture(77))
    run = convpinv(f"{line} --resume")
    assert run.code == 2
    assert "out/p002.png: exists, made with other options or of another input; --overwrite" in run.error_line
    run = convpinv(f"{line.replace('0.02', '0.03')} --resume")
    assert "exists (and so do 4 more), made with other options or of another input" in run.error_line
    save(out / "p003.png", picture(5))
    precious = contents(out)
    run = convpinv(f"{line} --resume")
    assert run.code == 2
    assert contents(out) == precious
    run = convpinv(f"{line} --resume --overwrite")
    assert run.code == 0
    assert "restored  2 of 5" in run.out
    assert contents(out)["p003.png"] == expected["p003.png"]
    assert contents(out)["p002.png"] != expected["p002.png"]


def test_a_torn_journal_and_what_killed_runs_leave(convpinv: Callable, tmp_path: Path):
    fill(tmp_path / "in", 3)
    assert convpinv(f"deblur in out {OPTIONS}").code == 0
    out = tmp_path / "out"
    expected = contents(out)
    journal = out / batch_journal.NAME
    journal.write_bytes(journal.read_bytes()[:-30])  # the last record is torn
    (out / "p002.png").unlink()
    (out / ".p002.png.0123abcd.part").write_bytes(b"half a picture")
    (out / ".stranger.png.0123abcd.part").write_bytes(b"somebody else's")
    run = convpinv(f"deblur in out {OPTIONS} --resume")
    assert (run.code, run.err) == (0, "")
    assert "removed   1 unfinished" in run.out
    assert contents(out) == expected
    assert [path.name for path in unfinished(out)] == [".stranger.png.0123abcd.part"]
    assert "kept      3" in convpinv(f"deblur in out {OPTIONS} --resume").out


def test_two_runs_do_not_share_a_folder(convpinv: Callable, tmp_path: Path):
    fill(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    with batch_journal.locked(tmp_path / "out"):
        run = convpinv(f"deblur in out {OPTIONS}")
    assert run.code == 2
    assert "out: another run is writing into this folder" in run.error_line
    assert contents(tmp_path / "out") == {}


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


def test_the_settings_that_pixels_depend_on(tmp_path: Path):
    psf = save(tmp_path / "psf.png", picture(0, (3, 3)))
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"strength": 0.1},
        {"clip": False},
        {"bounds": (0.0, None)},
        {"prior": "gradient"},
    )
    digests = [
        batch_journal.settings_digest(Request(Path("a"), Path("b"), "box:size=3", **options)) for options in cases
    ]
    digests.append(batch_journal.settings_digest(Request(Path("a"), Path("b"), str(psf))))
    save(psf, picture(1, (3, 3)))
    digests.append(batch_journal.settings_digest(Request(Path("a"), Path("b"), str(psf))))
    assert len(set(digests)) == len(digests)
    same = batch_journal.settings_digest(Request(Path("x"), Path("y"), "box:size=3", overwrite=True))
    assert same == digests[0]


def test_the_content_of_a_folder_that_is_a_psf_or_a_mask_counts(tmp_path: Path):
    def digest(**options: Any) -> str:
        return batch_journal.settings_digest(Request(Path("a"), Path("b"), **options))

    folder = tmp_path / "a.zarr"
    ways: tuple[dict[str, Any], ...] = ({"psf": str(folder)}, {"psf": "box:size=3", "mask": folder})
    zarr.create_array(folder, data=picture(0))
    before = [digest(**way) for way in ways]
    assert [digest(**way) for way in ways] == before
    zarr.create_array(folder, data=picture(1), overwrite=True)
    for way, old in zip(ways, before, strict=True):
        assert digest(**way) != old


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


def test_a_name_without_a_folder_and_one_with_dots():
    assert Naming("-x", "tif").of(Path("a/b.c.png")) == Path("a/b.c-x.tif")
    tally = batch_summary.Tally(Plan(Path("out"), (Task(Path("a"), Path("b"), "b"),)), 0)
    assert tally.count == 1
