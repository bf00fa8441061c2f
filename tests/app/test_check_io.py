"""``--check-io`` as an option: what it refuses, reports and does not write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.folders import OPTIONS, picture, save


@pytest.mark.parametrize(
    "option",
    [
        "--dry-run",
        "--mask nothere.png",
        "--plot p.png",
        "--memory 4G",
        "--workers 2",
        "--scheduler tcp://h:1",
        "--resume",
    ],
)
def test_an_option_that_a_copy_does_not_serve_is_refused(
    convpinv: Callable, listing: Callable, tmp_path: Path, option: str
):
    save(tmp_path / "in.png", picture(0))
    run = convpinv(f"deblur in.png out.png --check-io {option} {OPTIONS}")
    assert run.code == 2
    said = f"--check-io only reads, writes and compares; leave out {option.split()[0]}"
    assert run.error_line == f"convpinv deblur: {said}"
    assert listing() == {"in.png"}


def test_all_that_is_not_served_is_named_at_once(convpinv: Callable, listing: Callable, tmp_path: Path):
    save(tmp_path / "in.png", picture(0))
    run = convpinv("deblur in.png out.png --check-io --dry-run --mask nothere.png --plot p.png")
    assert run.code == 2
    assert run.error_line.endswith("leave out --dry-run, --mask, --plot")
    assert listing() == {"in.png"}
    # What is about the restoration alone may stay: a command is tried by adding one word to it.
    assert convpinv(f"deblur in.png out.png --check-io {OPTIONS}").code == 0
