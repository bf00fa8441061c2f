"""The work on many pictures in one process: while one is computed, the next is read and the last is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from convpinv.app import batch_journal, outputs, psf_source, restoring
from convpinv.app.batch_plan import Task
from convpinv.app.console import out_of_memory
from convpinv.app.files import WriteError, reason, stamp
from convpinv.app.restoring import Loaded, Request
from convpinv.arguments import ConvpinvError


@dataclasses.dataclass(frozen=True)
class Work:
    """What all pictures of a run share: the options, the folder of the journal, the digest of the settings."""

    request: Request
    folder: Path
    settings: str

    def request_for(self, task: Task) -> Request:
        """Return the request for one picture; reports and plots are the run's."""
        return dataclasses.replace(self.request, source=task.source, target=task.target, report=None, plot=None)


@dataclasses.dataclass(frozen=True)
class Computing:
    """A picture's computation has begun."""

    task: Task


@dataclasses.dataclass(frozen=True)
class Finished:
    """A picture is done: its report, or in ``failure`` why there is none."""

    task: Task
    report: Mapping[str, Any] | None = None
    failure: str | None = None


Event = Computing | Finished
_Read = tuple[Task, Loaded | str, tuple[int, int] | None]


def go_through(work: Work, following: Callable[[], Task | None], tell: Callable[[Event], None]) -> None:
    """Restore one picture after the other.

    Parameters
    ----------
    work
        What they share.
    following
        Gives the next picture, None at the end; called by one thread.
    tell
        Is told of every picture that it is computed and how it ended; called by more than one thread.

    Raises
    ------
    ConvpinvError
        If the PSF cannot be had; of a picture, nothing is raised.
    """
    psf = psf_source.load(work.request.psf_text)

    def read() -> _Read | None:
        task = following()
        if task is None:
            return None
        try:
            # Before the bytes: what changes in between is seen as changed.
            before = stamp(task.source) if task.source.exists() else None
            return task, restoring.load(work.request_for(task)), before
        except Exception as error:
            return task, said_of(task, error), None

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        ahead = reader.submit(read)
        while (item := ahead.result()) is not None:
            ahead = reader.submit(read)
            task, loaded, before = item
            if isinstance(loaded, str) or before is None:
                tell(Finished(task, failure=str(loaded)))
                continue
            tell(Computing(task))
            request = work.request_for(task)
            try:
                restored = restoring.restore(request, loaded, psf, bar=False)
            except Exception as error:
                tell(Finished(task, failure=said_of(task, error)))
                continue
            if written is not None:
                written.result()  # one at a time: what waits to be written takes memory

            def write(
                task: Task = task,
                request: Request = request,
                loaded: Loaded = loaded,
                restored: restoring.Restored = restored,
                before: tuple[int, int] = before,
            ) -> None:
                tell(_write(work, task, request, loaded, restored, before))

            written = writer.submit(write)
        if written is not None:
            written.result()


def _write(
    work: Work, task: Task, request: Request, loaded: Loaded, restored: restoring.Restored, before: tuple[int, int]
) -> Finished:
    try:
        files, outcome = restoring.encode(request, loaded, restored)
        entry = batch_journal.record(task, before, work.settings, files[task.target])

        def record() -> None:
            try:
                batch_journal.append(work.folder, entry)
            except OSError as error:
                journal = work.folder / batch_journal.NAME
                raise WriteError(journal, f"could not be written ({reason(error)}); free space") from None

        outputs.write_all(files, record)
    except Exception as error:
        return Finished(task, failure=said_of(task, error))
    return Finished(task, outcome.report)


def said_of(task: Task, error: Exception) -> str:
    """Return what an error says of a picture, without the picture's name.

    Errors of unexpected classes are told too, for one odd file must not end the work on a thousand others.
    """
    if isinstance(error, ConvpinvError):
        return " ".join(str(error).split()).removeprefix(f"{task.source}: ")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error)):
        return "not enough memory; fewer at once need less: --jobs 1"
    return f"cannot be restored ({type(error).__name__}: {reason(error)}); please report this"
