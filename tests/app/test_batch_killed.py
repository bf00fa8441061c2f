"""Runs that end before their time: kill -9 of the run or of its workers, Ctrl-C."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import convpinv as package
from app.folders import OPTIONS, contents, fill, unfinished
from convpinv.app import batch_journal, batch_pool
from convpinv.app.batch_plan import Task
from convpinv.app.batch_work import Computing, Event, Finished, Work
from convpinv.app.restoring import Request

COUNT = 40


def begin(folder: Path, line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "convpinv", *shlex.split(line)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(package.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    """Wait until that many outputs are there, or the run has ended."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and len(list(folder.glob("*.png"))) < count:
        time.sleep(0.001)
    assert time.monotonic() < end, "nothing happened"


@pytest.fixture
def expected(convpinv: Callable, tmp_path: Path) -> dict[str, bytes]:
    """Pictures in the folder ``in``, and what each gives by itself."""
    made = {}
    for name in fill(tmp_path / "in", COUNT, (200, 210)):
        assert convpinv(f"deblur in/{name} alone.png {OPTIONS} --overwrite").code == 0
        made[name] = (tmp_path / "alone.png").read_bytes()
    return made


def test_kill_at_any_moment(expected: dict[str, bytes], tmp_path: Path):
    moments = random.Random(5)
    out = tmp_path / "out"
    left = 0
    for attempt in range(4):
        jobs = 2 if attempt == 1 else 1
        before = contents(out)
        process = begin(tmp_path, f"deblur in out {OPTIONS} --jobs {jobs} {'--resume' if attempt else ''}")
        wait_for(process, out, len(before) + moments.randint(1, 4))
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        time.sleep(0.3)  # workers notice that they are alone
        # Whatever has its name is whole and right, and what was there stays.
        found = contents(out)
        assert found.items() <= expected.items()
        assert before.items() <= found.items()
        left = len(found)
    assert 0 < left < COUNT
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    process = begin(tmp_path, f"deblur in out {OPTIONS} --jobs 1 --resume")
    said, complaints = process.communicate(timeout=120)
    assert (process.returncode, complaints) == (0, "")
    assert f"kept      {left} that an earlier run finished" in said
    assert contents(out) == expected
    assert unfinished(out) == []
    # Nothing that was finished was done again.
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished


@pytest.mark.parametrize("jobs", [1, 2])
def test_interruption_is_one_line_and_keeps_what_is_finished(expected: dict[str, bytes], tmp_path: Path, jobs: int):
    process = begin(tmp_path, f"deblur in out {OPTIONS} --jobs {jobs}")
    wait_for(process, tmp_path / "out", 2)
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    (line,) = complaints.splitlines()
    found = contents(tmp_path / "out")
    assert line.startswith("convpinv deblur: interrupted; ")
    assert line.endswith(f"of {COUNT} pictures are finished in out; the same command with --resume goes on")
    assert said == ""
    assert 2 <= len(found) < COUNT
    assert found.items() <= expected.items()
    assert unfinished(tmp_path / "out") == []


def test_a_kill_between_record_and_name(convpinv: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In place nothing may be deblurred twice, whichever side of the renaming the run dies on."""
    names = fill(tmp_path / "in", 4)
    originals = contents(tmp_path / "in")
    assert convpinv(f"deblur in once {OPTIONS}").code == 0
    expected = contents(tmp_path / "once")

    class Killed(BaseException):
        pass

    replace = os.replace
    for when in ("before", "after"):
        for name, data in originals.items():
            (tmp_path / "in" / name).write_bytes(data)
        count = 0

        def dying(source: str, target: str, when: str = when) -> None:
            nonlocal count
            count += 1
            if count < 3:
                replace(source, target)
                return
            if when == "after":
                replace(source, target)
            raise Killed

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            convpinv(f"deblur in in {OPTIONS} --overwrite --jobs 1")
        monkeypatch.setattr(os, "replace", replace)
        run = convpinv(f"deblur in in {OPTIONS} --overwrite --resume --jobs 1")
        assert run.code == 0
        assert f"kept      {2 if when == 'before' else 3} that" in run.out
        assert contents(tmp_path / "in") == expected
        (tmp_path / "in" / batch_journal.NAME).unlink()
    assert set(names) == set(expected)


class Killing:
    """Kills worker processes while they compute certain pictures."""

    def __init__(self, names: set[str], *, once: bool):
        self.names = names
        self.once = once
        self.ends: dict[str, str | None] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            assert event.task.name not in self.ends, "told twice"
            self.ends[event.task.name] = event.failure
        elif isinstance(event, Computing) and event.task.name in self.names:
            if self.once:
                self.names.clear()
            for child in multiprocessing.active_children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid or 0, signal.SIGKILL)


@pytest.mark.parametrize("once", [True, False])
def test_a_worker_that_dies_takes_no_picture_with_it_but_the_culprit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: bool
):
    monkeypatch.setattr(batch_pool, "cores", lambda: 1)
    names = fill(tmp_path / "in", 4, (120, 120))
    tasks = [Task(tmp_path / "in" / name, tmp_path / "out" / name, name) for name in names]
    (tmp_path / "out").mkdir()
    request = Request(Path("-"), Path("-"), "gaussian:sigma=1")
    work = Work(request, tmp_path / "out", "settings")
    tell = Killing({names[1]}, once=once)

    def is_done(task: Task) -> bool:
        return task.target.exists()

    batch_pool.go_through(work, tasks, 2 if once else 1, tell, is_done)
    assert set(tell.ends) == set(names)
    failed = {name: failure for name, failure in tell.ends.items() if failure is not None}
    if once:
        assert failed == {}
    else:
        assert set(failed) == {names[1]}
        assert "was killed by signal 9, perhaps for lack of memory" in (failed[names[1]] or "")
    assert set(contents(tmp_path / "out")) == set(names) - set(failed)
