"""Many pictures: what they are called, where they go, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.folders import OPTIONS, contents, fill, picture, save
from convpinv.app import batch_plan, batch_summary
from convpinv.app.batch_plan import Naming, Plan, Task


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


def test_a_name_without_a_folder_and_one_with_dots():
    assert Naming("-x", "tif").of(Path("a/b.c.png")) == Path("a/b.c-x.tif")
    tally = batch_summary.Tally(Plan(Path("out"), (Task(Path("a"), Path("b"), "b"),)), 0)
    assert tally.count == 1
