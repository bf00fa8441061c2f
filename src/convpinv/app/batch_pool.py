"""Worker processes for many pictures: each takes the next picture when it has room for it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from convpinv.app import batch_work
from convpinv.app.batch_plan import Task
from convpinv.app.batch_work import Event, Finished, Work
from convpinv.app.console import ComputationError

# A process that dies before its first word will not fare better a third time.
_STARTS = 3
_SECONDS_TO_LEAVE = 5.0


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def go_through(
    work: Work, tasks: Sequence[Task], jobs: int, tell: Callable[[Event], None], is_done: Callable[[Task], bool]
) -> None:
    """Restore pictures in ``jobs`` processes, which share the cores between them.

    Parameters
    ----------
    work
        What the pictures share.
    tasks
        The pictures.
    jobs
        The number of processes.
    tell
        Is told how every picture went.
    is_done
        Whether a picture whose process died was finished before that.
    """
    pool = _Pool(work, tasks, max(1, cores() // jobs), tell, is_done)
    try:
        for _ in range(jobs):
            pool.start()
        pool.run()
    finally:
        pool.end()


@dataclasses.dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    tasks: list[Task] = dataclasses.field(default_factory=list)
    has_room: bool = False
    has_spoken: bool = False
    # One of several pictures that a process died over: until it is finished, this worker gets no other.
    on_trial: bool = False


class _Pool:
    def __init__(
        self,
        work: Work,
        tasks: Sequence[Task],
        threads: int,
        tell: Callable[[Event], None],
        is_done: Callable[[Task], bool],
    ):
        self._work = work
        self._threads = threads
        self._tell = tell
        self._is_done = is_done
        self._waiting = collections.deque(tasks)
        self._suspects: collections.deque[Task] = collections.deque()
        self._left = len(tasks)
        self._workers: list[_Worker] = []
        self._dead_at_start = 0

    def start(self) -> None:
        # Neither fork, which copies other threads' locks, nor the parent's own torch: a fresh interpreter.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._work, self._threads), daemon=True)
        with _no_interruption():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def run(self) -> None:
        while self._left:
            for ready in wait([worker.connection for worker in self._workers]):
                worker = next(one for one in self._workers if one.connection is ready)
                try:
                    event = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                else:
                    self._hear(worker, event)
            self._feed()

    def end(self) -> None:
        """Let the workers go: those that wait are told to, and whatever else they do is ended."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.connection.send(None)
            if self._left:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_SECONDS_TO_LEAVE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def _hear(self, worker: _Worker, event: Event | None) -> None:
        worker.has_spoken = True
        if event is None:
            worker.has_room = True
            return
        if isinstance(event, Finished):
            worker.tasks = [task for task in worker.tasks if task.name != event.task.name]
            worker.on_trial = False
            self._left -= 1
        self._tell(event)

    def _feed(self) -> None:
        for worker in self._workers:
            if worker.has_room and (task := self._next_for(worker)) is not None:
                worker.has_room = False
                worker.tasks.append(task)
                with contextlib.suppress(OSError):  # it died; its end is heard next
                    worker.connection.send(task)

    def _next_for(self, worker: _Worker) -> Task | None:
        if worker.on_trial:
            return None
        # Towards the end a picture that is read ahead would wait for one worker while another has nothing to do.
        if self._waiting and (not worker.tasks or len(self._waiting) >= len(self._workers)):
            return self._waiting.popleft()
        if self._suspects and not worker.tasks:
            worker.on_trial = True
            return self._suspects.popleft()
        return None

    def _bury(self, worker: _Worker) -> None:
        """Find out what a process died over, and put another one in its place.

        It may have been reading one picture, computing the next and writing a third; each of them is tried again, with
        nothing else in its process. The picture that ends that process too is the culprit.
        """
        self._workers.remove(worker)
        worker.process.join()
        worker.connection.close()
        lost = []
        for task in worker.tasks:
            if self._is_done(task):
                self._left -= 1
                self._tell(Finished(task))
            else:
                lost.append(task)
        if worker.on_trial and lost:
            self._left -= 1
            self._tell(Finished(lost[0], failure=_cause(worker.process.exitcode)))
        else:
            self._suspects.extend(lost)
        if not worker.has_spoken:
            self._dead_at_start += 1
            if self._dead_at_start == _STARTS:
                raise ComputationError(
                    f"worker processes cannot be started ({_how(worker.process.exitcode)}): --jobs 1"
                )
        if self._left:
            self.start()


def _cause(code: int | None) -> str:
    return f"the process that worked on it {_how(code)}, perhaps for lack of memory; fewer at once need less: --jobs 1"


def _how(code: int | None) -> str:
    return f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"


@contextlib.contextmanager
def _no_interruption() -> Iterator[None]:
    """Let a process start deaf to Ctrl-C, which reaches all processes of a terminal: the first one decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, work: Work, threads: int) -> None:
    """Do the work of one process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    speaking = threading.Lock()

    def tell(event: Event | None) -> None:
        with speaking:
            connection.send(event)

    def following() -> Task | None:
        tell(None)
        return connection.recv()

    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        batch_work.go_through(work, following, tell)


def _leave_with_parent() -> None:
    """End this process with its parent, however that one ended: nobody else would hear of the work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
