"""``convpinv deblur`` on folders: many pictures in, many out, and what happens to one is no matter to the others."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from convpinv.app import batch_journal, batch_plan, batch_pool, batch_work, images, outputs, psf_source
from convpinv.app.batch_plan import Naming, Plan, Task
from convpinv.app.batch_summary import Bar, Tally, line_of, summary
from convpinv.app.batch_work import Event, Finished, Work
from convpinv.app.console import ComputationError, InterruptedWorkError
from convpinv.app.files import TargetError, reason
from convpinv.app.restoring import Request
from convpinv.arguments import ArgumentError

# A worker process takes about as long to start as half a megabyte of PNG takes to restore: for less, one process does.
_WORTH_PROCESSES = 2**19


@dataclasses.dataclass(frozen=True)
class Folders:
    """What the user asked of a run over many pictures."""

    sources: tuple[str, ...]
    target: str
    naming: Naming
    recursive: bool = False
    resume: bool = False
    jobs: int | None = None


def deblur_folder(request: Request, folders: Folders, echo: Callable[[str], None]) -> None:
    """Restore many pictures, with the options of ``request``.

    Parameters
    ----------
    request
        The options; its source and target are not looked at. ``report`` is a file of JSON lines.
    folders
        The pictures and the folder for the results.
    echo
        Takes the lines of the summary.

    Raises
    ------
    ArgumentError, TargetError, UnreadableFileError
        Before any work is done.
    ComputationError
        After it, if pictures failed.
    InterruptedWorkError
        If the user ended it; what is finished stays.
    """
    _check_options(request, folders)
    apart = [psf_source.file_of(request.psf_text), request.mask]
    plan = batch_plan.make(
        folders.sources,
        folders.target,
        folders.naming,
        recursive=folders.recursive,
        apart=apart,
        overwrite=request.overwrite,
    )
    _check_report(request, folders, plan, apart)
    psf_source.load(request.psf_text)
    if request.mask is not None:
        images.read(request.mask, gaps=True)
    work = Work(request, plan.folder, batch_journal.settings_digest(request))
    todo, kept = _left_to_do(plan, work, folders.resume)
    batch_plan.make_folders(plan)
    with batch_journal.locked(plan.folder), _Report(request.report, append=folders.resume) as report:
        batch_journal.mend(plan.folder)
        tally = Tally(plan, len(kept))
        report.write(line_of(task.source, "kept", output=task.target) for task in kept)
        report.write(line_of(one.source, "skipped", reason=one.reason) for one in plan.skipped)
        for source, problem in plan.failed:
            tally.fail(source, problem)
            report.write([line_of(source, "failed", reason=problem)])
        removed = batch_journal.remove_unfinished(plan.tasks)
        try:
            _run(work, todo, _jobs(todo, folders.jobs, request.device), tally, report)
        except KeyboardInterrupt:
            done = f"{tally.restored + len(kept)} of {len(plan.tasks)} pictures are finished in {plan.folder}"
            raise InterruptedWorkError(f"interrupted; {done}; the same command with --resume goes on") from None
        finally:
            batch_journal.remove_unfinished(plan.tasks)
    for line in summary(tally, removed):
        echo(line)
    if tally.failures:
        where = f"; {request.report} says more" if request.report is not None else ""
        raise ComputationError(f"{len(tally.failures)} of {tally.count} pictures failed{where}")


def _check_options(request: Request, folders: Folders) -> None:
    if request.plot is not None:
        raise ArgumentError("--plot is for one picture; name one file IN and one file OUT")
    if folders.jobs is not None and folders.jobs > 1 and request.device != "cpu":
        raise ArgumentError(f"--jobs is {folders.jobs}; on --device {request.device} it may be 1")


def _check_report(request: Request, folders: Folders, plan: Plan, apart: Sequence[Path | None]) -> None:
    """Refuse a report that has no place, or whose place is an input's or an output's."""
    if request.report is None:
        return
    if request.report.suffix.lower() != ".jsonl":
        raise TargetError(request.report, "the report on many pictures is written as JSON lines; name it .jsonl")
    place = os.path.realpath(request.report)
    taken = [path for task in plan.tasks for path in (task.source, task.target)] + [path for path in apart if path]
    if any(os.path.realpath(path) == place for path in taken):
        raise TargetError(request.report, "--report is an input or an output; give it another name")
    outputs.check_target(request.report, overwrite=request.overwrite or folders.resume)


def _left_to_do(plan: Plan, work: Work, resume: bool) -> tuple[list[Task], list[Task]]:
    """Return the pictures to restore and those that an earlier run has finished, and refuse to replace others."""
    records = batch_journal.read(plan.folder) if resume else {}
    todo, kept, taken = [], [], []
    for task in plan.tasks:
        if not os.path.lexists(task.target):
            todo.append(task)
            continue
        entry = batch_journal.is_ours(task, records.get(task.name, ()))
        if entry is not None and batch_journal.is_current(task, entry, work.settings):
            kept.append(task)
        elif work.request.overwrite:
            todo.append(task)
        else:
            taken.append((task.target, entry))
    if taken:
        target, entry = taken[0]
        more = f" (and so do {len(taken) - 1} more)" if len(taken) > 1 else ""
        if not resume:
            what = f"exists already{more}; --overwrite replaces what exists, --resume goes on with a run that was ended"
        elif entry is None:
            what = f"exists{more}, and is not what an earlier run wrote; --overwrite replaces it, or move it away"
        else:
            what = f"exists{more}, made with other options or of another input; --overwrite replaces it"
        raise TargetError(target, what)
    return todo, kept


def _jobs(todo: Sequence[Task], asked: int | None, device: str) -> int:
    """Return how many pictures are worked on at once."""
    if asked is None:
        size = sum(task.source.stat().st_size for task in todo if task.source.is_file())
        asked = batch_pool.cores() if device == "cpu" and size >= _WORTH_PROCESSES else 1
    return max(1, min(asked, len(todo)))


def _run(work: Work, todo: Sequence[Task], jobs: int, tally: Tally, report: _Report) -> None:
    if not todo:
        return
    telling = threading.Lock()
    with Bar(len(todo)) as bar:

        def tell(event: Event) -> None:
            if not isinstance(event, Finished):
                return
            task = event.task
            with telling:
                if event.failure is not None:
                    tally.fail(task.source, event.failure)
                    report.write([line_of(task.source, "failed", output=task.target, reason=event.failure)])
                else:
                    tally.finish(event.report)
                    report.write([line_of(task.source, "restored", output=task.target) | dict(event.report or {})])
                bar.advance(len(tally.failures))

        if jobs == 1:
            following = iter(todo)
            batch_work.go_through(work, lambda: next(following, None), tell)
            return

        def is_done(task: Task) -> bool:
            records = batch_journal.read(work.folder).get(task.name, ())
            entry = batch_journal.is_ours(task, records)
            return entry is not None and batch_journal.is_current(task, entry, work.settings)

        batch_pool.go_through(work, todo, jobs, tell, is_done)


class _Report:
    """The file of JSON lines, written as the pictures finish; without a path, nothing."""

    def __init__(self, path: Path | None, *, append: bool):
        self._path = path
        self._append = append
        self._file: IO[str] | None = None

    def write(self, lines: Any) -> None:
        if self._file is None:
            return
        for line in lines:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> _Report:
        if self._path is not None:
            try:
                self._file = open(self._path, "a+" if self._append else "w", encoding="utf-8")
            except OSError as error:
                raise TargetError(self._path, f"cannot be written ({reason(error)}); choose another") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
