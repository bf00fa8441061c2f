"""Many pictures: going on with a run that was ended, and the journal that says what is finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zarr

from app.folders import OPTIONS, contents, fill, picture, save, unfinished
from convpinv.app import batch_journal
from convpinv.app.request import Request


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
