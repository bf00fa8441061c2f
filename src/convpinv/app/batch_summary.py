"""What is said of a run over many pictures: a bar on the way, a line of JSON for each, a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app.batch_plan import Plan
from convpinv.app.console import row

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Names of files that were left aside: more than these tell nothing more.
_NAMED = 3


class Tally:
    """Counts how the pictures of a run went."""

    def __init__(self, plan: Plan, kept: int):
        self._start = time.perf_counter()
        self.plan = plan
        self.kept = kept
        self.restored = 0
        self.warned = 0
        self.failures: list[tuple[Path, str]] = []

    @property
    def count(self) -> int:
        """All pictures of the run."""
        return len(self.plan.tasks) + len(self.plan.failed)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def finish(self, report: Mapping[str, Any] | None) -> None:
        """Count a restored picture."""
        self.restored += 1
        self.warned += bool(report and report.get("warnings"))

    def fail(self, source: Path, reason: str) -> None:
        """Count a picture that could not be restored."""
        self.failures.append((source, reason))


def line_of(source: Path, outcome: str, **facts: Any) -> dict[str, Any]:
    """Return the entry of a report on many: ``restored``, ``kept``, ``failed`` or ``skipped``, and more facts."""
    if "output" in facts:
        facts["output"] = str(facts["output"])
    return {"outcome": outcome, "input": str(source)} | facts


def summary(tally: Tally, removed: int) -> list[str]:
    """Return the table of a run."""
    plan = tally.plan
    rate = f", {tally.restored / tally.seconds:.3g} a second" if tally.restored > 1 else ""
    rows = [("restored", f"{tally.restored} of {tally.count} pictures into {plan.folder}, {tally.seconds:.1f} s{rate}")]
    if tally.kept:
        rows.append(("kept", f"{tally.kept} that an earlier run finished"))
    if tally.warned:
        rows.append(("warnings", f"on {tally.warned} pictures; --report FILE.jsonl holds them"))
    if plan.skipped:
        names = ", ".join(str(one.source) for one in plan.skipped[:_NAMED])
        more = f" and {len(plan.skipped) - _NAMED} more" if len(plan.skipped) > _NAMED else ""
        rows.append(("skipped", f"{len(plan.skipped)} files that are no pictures: {names}{more}"))
    if plan.hidden:
        rows.append(("skipped", f"{plan.hidden} hidden"))
    if plan.folders:
        rows.append(("skipped", f"{plan.folders} folders; --recursive enters them"))
    if removed:
        rows.append(("removed", f"{removed} unfinished files of an earlier run"))
    if tally.failures:
        rows.append(("failed", f"{len(tally.failures)} of {tally.count}:"))
        rows += [("", f"{source}: {reason}") for source, reason in tally.failures]
    return [line for name, text in rows for line in row(name, text)]


class Bar:
    """The progress of a run, with its rate and the time left; on a terminal only: in a log, a bar is noise."""

    def __init__(self, total: int):
        self._total = total
        self._start = time.perf_counter()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}  {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("deblur", total=self._total, rate="")
            self._bar.start()
        return self

    def advance(self, failures: int) -> None:
        """Count one more picture; ``failures`` of them so far could not be restored."""
        if self._bar is None or self._task is None:
            return
        self._bar.advance(self._task)
        rate = self._bar.tasks[0].completed / (time.perf_counter() - self._start)
        failed = f", {failures} failed" if failures else ""
        self._bar.update(self._task, rate=f"{rate:.3g} a second{failed}")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
