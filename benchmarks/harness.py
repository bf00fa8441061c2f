"""What the benchmarks share: interleaved timing, peak memory in a process of its own, and rows of one form.

A file of results is ``{"claim", "sentence", "context", "rows", "bounds"}``; ``schema.json`` says what each may hold.
A row is one contender in one case; a bound is a number of the claim beside what it may be.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCHEMA = HERE / "schema.json"
THREADS = 2
# Cases by the dozen are a plot, and this one a table.
SUMMARY = "all of them"
# Distributions whose versions a result depends on; those of them that are not installed are named as missing.
PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "deepinv", "pylops")

Row = dict[str, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Options:
    """How a benchmark is run: ``quick`` shrinks sizes and runs, for tests of the benchmarks themselves."""

    quick: bool
    output: Path

    def runs(self, full: int) -> int:
        """Runs a call is given."""
        return min(full, 2) if self.quick else full


def options(description: str | None) -> Options:
    """Read the command line that every benchmark has."""
    return given_by(parser(description).parse_args())


def given_by(given: argparse.Namespace) -> Options:
    """Take the options common to all from a command line, and as many threads for everyone.

    Quick figures are no measurement: without ``--output`` they are checked and thrown away.
    """
    import torch

    torch.set_num_threads(threads(given.quick))
    return Options(given.quick, given.output or (Path(os.devnull) if given.quick else RESULTS))


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options common to all."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="small sizes and few runs: whether it runs, not how fast")
    found.add_argument("--output", type=Path, help="folder of the results (benchmarks/results)")
    return found


# Rounds whose threads were taken off their cores more often than this are taken again: two threads that wait for each
# other lose whole time slices to one other process. Measured on two cores: 10 to 80 a second where nothing else runs,
# 200 to 290 beside one other process, and a round trip of 4 ms then takes 12 to 30.
QUIET_SWITCHES_PER_SECOND = 100.0
MOST_ROUNDS = 3
PATIENCE = 45.0
# How often the kept rounds of this process were interrupted, the median of each call of ``interleaved``. It goes into
# the results: beside another process the FFT slows down more than what is done to its result, and ratios flatter us
# (1.01 round trips at (16, 3, 256, 256) where the quiet machine gives 1.18).
INTERRUPTIONS: list[float] = []


# OpenBLAS's threads, which NumPy's and SciPy's products wake, go on spinning for 2^26 cycles, some 25 ms, after their
# work: whoever was timed next shared its cores with them (a round trip of 0.3 ms took 27).
SPIN = 0.04
SHORT = 0.1


def interleaved(
    calls: Mapping[str, Call], runs: int = 20, warmup: int = 3, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn, so that a machine that drifts drifts for all alike.

    Who comes first changes from round to round: what a call leaves in the caches and the allocator is found by each.
    On a machine that is not quiet up to three times as many rounds are run, and those kept in which the operating
    system interrupted the process least. Which rounds are kept does not depend on the times that they gave.

    ``settle`` is for contenders with threads of their own: the others' come to rest before each is timed, and a short
    call is run once more untimed, so that its own threads are awake.
    """
    rounds: list[tuple[float, dict[str, float]]] = []
    names, start, last = tuple(calls), time.perf_counter(), dict[str, float]()
    for number in range(warmup + MOST_ROUNDS * runs):
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
        first = number % len(names)
        seconds = {}
        for name in (*names[first:], *names[:first]):
            if settle:
                time.sleep(SPIN)
                if last.get(name, 1.0) < SHORT:
                    calls[name]()
            seconds[name] = last[name] = timed(calls[name])[0]
        if number < warmup:
            continue
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
        # Two are forgiven: in a round of a few milliseconds one timer tick says nothing.
        rounds.append((max(switches - 2, 0) / (time.perf_counter() - begun), seconds))
        quiet = sum(rate <= QUIET_SWITCHES_PER_SECOND for rate, _ in rounds)
        if quiet >= runs or (len(rounds) >= runs and time.perf_counter() - start > PATIENCE):
            break
    kept = sorted(rounds, key=lambda found: found[0])[:runs]
    INTERRUPTIONS.append(statistics.median(rate for rate, _ in kept))
    return {name: [seconds[name] for _, seconds in kept] for name in calls}


def timed(call: Call) -> tuple[float, Any]:
    """Seconds of one run, and what it gave."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def median_ratio(seconds: Mapping[str, Sequence[float]], name: str, reference: str) -> float:
    """Ratio of the two medians."""
    return statistics.median(seconds[name]) / statistics.median(seconds[reference])


def spread(seconds: Sequence[float]) -> dict[str, float | int]:
    """Median and quartiles."""
    if len(seconds) == 1:
        return {"median": seconds[0], "lower_quartile": seconds[0], "upper_quartile": seconds[0], "runs": 1}
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "lower_quartile": lower, "upper_quartile": upper, "runs": len(seconds)}


def measured(case: str, contender: str, seconds: Sequence[float] | None = None, **facts: Any) -> Row:
    """One contender in one case. ``facts`` are keys of the schema; whatever else was found goes into ``figures``."""
    timing = {} if seconds is None else {"seconds": spread(seconds)}
    return {"case": case, "contender": contender, "status": "measured", **timing, **facts}


def compared(
    case: str,
    seconds: Mapping[str, Sequence[float]],
    reference: str,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    **common: Any,
) -> list[Row]:
    """A row for each contender that was timed in turn with the others, its time beside that of the reference."""
    rows = []
    for name, found in seconds.items():
        ratio = median_ratio(seconds, name, reference)
        rows.append(
            measured(case, name, found, ratio=ratio, reference=reference, **common, **(facts or {}).get(name, {}))
        )
        show(rows[-1])
    return rows


def missing(case: str, contender: str, package: str) -> Row:
    """A peer that is not installed is in the table all the same."""
    return {"case": case, "contender": contender, "status": "missing", "note": f"{package} is not installed"}


def at_most(sentence: str, value: float | None, limit: float) -> Row:
    """A bound from above; None where there was nothing to measure it against."""
    return {"sentence": sentence, "value": value, "at_most": limit, "holds": None if value is None else value <= limit}


def at_least(sentence: str, value: float | None, limit: float) -> Row:
    """A bound from below."""
    return {"sentence": sentence, "value": value, "at_least": limit, "holds": None if value is None else value >= limit}


def median_of(rows: Sequence[Row], case: str, contender: str) -> float | None:
    """Median of a contender in a case, None where it is missing."""
    found = [row for row in rows if row["case"] == case and row["contender"] == contender and "seconds" in row]
    return found[0]["seconds"]["median"] if found else None


def quotient(left: float | None, right: float | None) -> float | None:
    """Quotient of two figures, None where one is missing."""
    return None if left is None or right is None else left / right


def versions() -> tuple[dict[str, str], list[str]]:
    """Versions of what is installed, and the names of what is not."""
    found, absent = {"python": platform.python_version()}, []
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    import convpinv

    return found | {"convpinv": convpinv.__version__}, absent


def commit() -> dict[str, Any]:
    """The commit that was measured, and whether the package's own files were changed since."""
    git = ["git", "-C", str(HERE)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "../src"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}
    return {"commit": head, "changed": bool(changed.strip())}


def processor() -> str:
    """Name of the processor, which ``platform`` does not know on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def threads(quick: bool) -> int:
    """One where nothing is measured: it runs beside the other workers of the tests."""
    return 1 if quick else THREADS


def context(quick: bool) -> dict[str, Any]:
    """What a figure was measured on."""
    found, absent = versions()
    return {
        **commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.system(),
            "device": "cpu",
        },
        "threads": threads(quick),
        "interruptions_per_second": max(INTERRUPTIONS, default=None),
        "versions": found,
        "missing": absent,
        "quick": quick,
    }


def check(results: Mapping[str, Any]) -> None:
    """Raise where results do not follow the schema."""
    import jsonschema

    jsonschema.Draft202012Validator(
        json.loads(SCHEMA.read_text(encoding="utf-8")), format_checker=jsonschema.FormatChecker()
    ).validate(results)


def write(claim: str, sentence: str, rows: Sequence[Row], given: Options, bounds: Sequence[Row] = ()) -> None:
    """Check the rows of a claim and write them, with the machine and the versions they were measured on."""
    results = {
        "claim": claim,
        "sentence": sentence,
        "context": context(given.quick),
        "rows": rows,
        "bounds": bounds,
    }
    text = laid_out(results)
    check(json.loads(text))
    for bound in bounds:
        said = f"at most {bound['at_most']:g}" if "at_most" in bound else f"at least {bound['at_least']:g}"
        value = "not measured" if bound["value"] is None else f"{bound['value']:.3g}"
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "open"}[bound["holds"]]
        print(f"  {bound['sentence']}: {value} ({said}): {verdict}")
    if given.output == Path(os.devnull):
        return
    given.output.mkdir(parents=True, exist_ok=True)
    path = given.output / f"{claim}.json"
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}", flush=True)


def laid_out(results: Mapping[str, Any]) -> str:
    """JSON with one row a line: what changed between two runs is then what a difference shows."""
    parts = []
    for key, value in results.items():
        shown = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(value, Sequence) and not isinstance(value, str):
            lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value]
            shown = "[\n  " + ",\n  ".join(lines) + "\n ]" if lines else "[]"
        parts.append(f' "{key}": {shown}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def show(row: Row) -> None:
    """One line on the terminal."""
    parts = [row["status"]] if row["status"] != "measured" else []
    if "seconds" in row:
        parts.append(f"{1e3 * row['seconds']['median']:.4g} ms")
    for key in ("ratio", "iterations", "residual", "error", "psnr", "reported"):
        if key in row:
            parts.append(f"{key} {row[key]:.3g}" if isinstance(row[key], float) else f"{key} {row[key]}")
    parts += [f"{key} {row[key] / 2**20:.0f} MiB" for key in ("peak_bytes", "working_bytes") if key in row]
    print(f"  {row['case']} | {row['contender']}: {', '.join(parts)}", flush=True)
