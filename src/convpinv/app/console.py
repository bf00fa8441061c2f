"""What every command does at its end and on its way: one line for an error, an exit code, a progress bar."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from convpinv.app.files import MissingExtraError, TargetError, UnreadableFileError
from convpinv.app.psf_source import without_call
from convpinv.arguments import ArgumentError, ConvpinvError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
# Work that takes less is over before a bar could be read.
_SILENT_SECONDS = 1.0
# Columns of a summary; a single word that is longer goes beyond.
_WIDTH = 100
_INDENT = " " * 10


class ComputationError(ConvpinvError):
    """The work on a readable file failed; the message names the file."""


class InterruptedWorkError(ConvpinvError):
    """The user ended a work that keeps what it has finished; the message says what that is."""


def run(command: str, work: Callable[[], None]) -> int:
    """Do a command's work and return its exit code; an expected error becomes one line on standard error."""
    try:
        work()
    except (ArgumentError, UnreadableFileError, TargetError, MissingExtraError) as error:
        return complain(command, str(error), BAD_INPUT)
    except InterruptedWorkError as error:
        return complain(command, str(error), INTERRUPTED)
    except ConvpinvError as error:
        return complain(command, str(error), FAILED)
    except MemoryError:
        return complain(command, "not enough memory; close other programs or cut the picture into parts", FAILED)
    except KeyboardInterrupt:
        return complain(command, "interrupted; nothing was written", INTERRUPTED)
    return DONE


def complain(command: str, text: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    line = " ".join(text.split())
    print(f"convpinv {command}: {line}" if command else f"convpinv: {line}", file=sys.stderr)
    return code


def row(name: str, text: str) -> list[str]:
    """Return the lines of one entry of a summary: its name, its text, and the rest of a long text below it."""
    return textwrap.wrap(
        f"{name:<9} {' '.join(text.split())}",
        _WIDTH,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Working:
    """Around the computation on one file: names the file in its errors, and holds the progress bar.

    Calling it with (iteration, total) moves the bar, which appears after a second and on a terminal only: in a log,
    a bar is noise.
    """

    def __init__(self, name: str):
        self.name = name
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, iteration: int, total: int) -> None:
        """Move the bar to ``iteration`` of ``total``."""
        if self._bar is None:
            if time.perf_counter() - self._start < _SILENT_SECONDS or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.name, total=total)
            self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, completed=iteration, total=total)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def __enter__(self) -> Working:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if isinstance(error, ArgumentError):
            raise ArgumentError(f"{self.name}: {without_call(error)}") from error
        if isinstance(error, ConvpinvError):
            raise ComputationError(f"{self.name}: {without_call(error)}") from error
        if isinstance(error, RuntimeError) and out_of_memory(error):
            problem = "not enough memory for this picture on this device; cut it into parts or use another device"
            raise ComputationError(f"{self.name}: {problem}") from error


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory is short."""
    # On a graphics card torch raises a class of its own; on the CPU a plain RuntimeError.
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
