"""The page of the documentation that shows the committed results: its tables and its plots, all from the JSON.

python benchmarks/page.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import HERE, QUIET_SWITCHES_PER_SECOND, RESULTS, SUMMARY, Row, check

DOCS = HERE.parent / "docs"
PAGE = DOCS / "performance.md"
Results = Mapping[str, Any]

# In the order of the page. Whatever else has results is on a page of its own.
CLAIMS = {
    "prepared_circular": "Circular, prepared",
    "one_shot_circular": "Circular, a new kernel each time",
    "multichannel_circular": "Circular, many channels",
    "large_circular": "Large pictures",
    "awkward_sizes": "Prime sides",
    "valid_motion": "Camera shake, the border unknown",
    "hard_boundaries": "Zero, reflected and replicated borders",
    "krylov_iterations": "Iterations",
    "automatic_choice": "The automatic choice of a solver",
    "singular_values": "Singular values",
    "deblur_speed": "Restoring a picture",
    "growth": "Growth with the picture",
    "folders": "Many small pictures",
    "tiles": "Pictures larger than memory",
    "start": "Import and start",
}
SILENT = "silent_failures"

HEAD = """# Performance

<!-- Made by benchmarks/page.py from benchmarks/results/*.json: edit those. -->

Everything here was measured beside its peers in one run: in turn in one process, with as many threads, in the same
dtype, to the same accuracy. Times are medians, with the quartiles in brackets; the ratio is that of the medians. Rows
marked *stopped* met a limit before the goal, so that their time is a lower bound. What does not hold stands in the
table like what does.

```console
python -m pip install -e '.[bench]'                                  # the peers
python benchmarks/run_all.py                                         # all, or: make bench
python benchmarks/run_all.py prepared_circular one_shot_circular     # some
```

Peers that are not installed are named as missing. A round trip is `irfft2(rfft2(x))` of the picture in torch: what any
method by FFTs costs at least.
"""


def load(folder: Path = RESULTS) -> dict[str, Results]:
    """All results, checked."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        check(found[path.stem])
    return found


def number(value: float) -> str:
    """Three digits, so that what lies beside a bound is told from it; very small ones with an exponent."""
    if value == 0:
        return "0"
    if abs(value) < 1e-2:
        return f"{value:.1e}"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{decimals}f}"


def duration(seconds: float) -> str:
    """With the unit that leaves a number between 1 and 1000."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 1e-6)} µs"


def timing(row: Row) -> str:
    seconds = row["seconds"]
    text = duration(seconds["median"])
    if seconds["runs"] > 1:
        text += f" ({duration(seconds['lower_quartile'])} to {duration(seconds['upper_quartile'])})"
    return text


COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "seconds": ("time", timing),
    "ratio": ("ratio", lambda row: number(row["ratio"])),
    "iterations": ("iterations", lambda row: str(row["iterations"])),
    "residual": ("residual", lambda row: f"{row['residual']:.1e}"),
    "error": ("error", lambda row: f"{row['error']:.1e}"),
    "psnr": ("PSNR, dB", lambda row: f"{row['psnr']:.2f}"),
    "peak_bytes": ("memory, MiB", lambda row: number(row["peak_bytes"] / 2**20)),
    "working_bytes": ("beside the result, MiB", lambda row: number(row["working_bytes"] / 2**20)),
    "figures": ("", lambda row: ", ".join(f"{key} {shown(value)}" for key, value in row["figures"].items())),
    "note": ("", lambda row: row["note"]),
}


def shown(value: float | str | bool) -> str:
    return number(value) if isinstance(value, float) else str(value)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Rows by case, with the columns that any of them has."""
    keys = [key for key in COLUMNS if any(key in row for row in rows)]
    reference = {row["reference"] for row in rows if "reference" in row}
    titles = {key: COLUMNS[key][0] for key in keys}
    if "ratio" in titles and len(reference) == 1:
        titles["ratio"] = f"in that of: {next(iter(reference))}"
    yield "| | " + " | ".join(titles.values()) + " |"
    yield "|---|" + "---|" * len(keys)
    case = None
    for row in rows:
        if row["case"] != case:
            case = row["case"]
            yield f"| **{case}** |" + " |" * len(keys)
        name = row["contender"] if row["status"] == "measured" else f"{row['contender']} *({row['status']})*"
        cells = (COLUMNS[key][1](row) if key in row else "" for key in keys)
        yield f"| {name} | " + " | ".join(cells) + " |"


def bounds(results: Mapping[str, Results]) -> Iterator[str]:
    """Every bound of the page."""
    yield "| | measured | may be | |"
    yield "|---|---|---|---|"
    for claim in (*CLAIMS, SILENT):
        for bound in results[claim]["bounds"] if claim in results else ():
            limit = f"≤ {number(bound['at_most'])}" if "at_most" in bound else f"≥ {number(bound['at_least'])}"
            value = "not measured" if bound["value"] is None else number(bound["value"])
            verdict = {True: "holds", False: "**does not hold**", None: "open"}[bound["holds"]]
            yield f"| {bound['sentence']} | {value} | {limit} | {verdict} |"


def origin(results: Results) -> str:
    """One line: of which code, on what, with what."""
    context = results["context"]
    machine = context["machine"]
    code = f"commit {context['commit'][:10]}" if context["commit"] else "a commit that was not recorded"
    if context["changed"]:
        code += " with changes"
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    cores = f", {machine['cores']} cores" if machine["cores"] else ""
    device = "" if machine["device"] == "cpu" else f", {machine['device']}"
    absent = f"; missing: {', '.join(context['missing'])}" if context["missing"] else ""
    interruptions = context.get("interruptions_per_second")
    noise = "; the machine was not quiet" if interruptions and interruptions > QUIET_SWITCHES_PER_SECOND else ""
    return (
        f"Measured on {context['date']} of {code}; {machine['processor']}{cores}{device}, "
        f"{context['threads']} threads; {versions}{absent}{noise}."
    )


def silent(results: Results) -> Iterator[str]:
    """Counts for each contender."""
    yield "| | cases | wrong | wrong and not a word | told of a failure |"
    yield "|---|---|---|---|---|"
    for contender in dict.fromkeys(row["contender"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["contender"] == contender]
        if any(row["status"] == "missing" for row in rows):
            yield f"| {contender} *(missing)* | | | | |"
            continue
        wrong = sum(row.get("error", 1.0) > 1e-2 for row in rows)
        told = sum(row["reported"] == "failure" for row in rows)
        yield f"| {contender} | {len(rows)} | {wrong} | {sum(row['silent_failures'] for row in rows)} | {told} |"


def text(results: Mapping[str, Results]) -> str:
    """The page."""
    lines = [HEAD, "## What is claimed, and what holds", "", *bounds(results), ""]
    for claim, title in CLAIMS.items():
        if claim not in results:
            continue
        found = results[claim]
        lines += [f"## {title}", "", f"{found['sentence']} (`benchmarks/{claim}.py`)", ""]
        if claim in PLOTS:
            lines += [f"![{title}](images/performance-{claim.replace('_', '-')}.png)", ""]
        summary = [row for row in found["rows"] if row["case"] == SUMMARY]
        lines += [*table(summary or found["rows"]), "", origin(found), ""]
    if SILENT in results:
        found = results[SILENT]
        lines += ["## Wrong without a word", "", f"{found['sentence']} (`benchmarks/{SILENT}.py`)", ""]
        lines += ["An answer is wrong where it lies further than 1 % from that of the dense pseudo-inverse.", ""]
        lines += [*silent(found), "", origin(found), ""]
    lines += ["How the restored pictures compare is on [another page](restoration.md).", ""]
    return "\n".join(lines)


def by_side(results: Results, axes: Any, quantity: Callable[[Row], float | None], only: Sequence[str] = ()) -> None:
    """A line for each contender, against the pixels along a side, both logarithmic."""
    for contender in dict.fromkeys(row["contender"] for row in results["rows"]):
        if only and contender not in only:
            continue
        points = [(row["side"], quantity(row)) for row in results["rows"] if row["contender"] == contender]
        points = [(side, value) for side, value in points if value is not None]
        if points:
            mine = contender.startswith("convpinv")
            axes.loglog(*zip(*points, strict=True), "o-" if mine else "s--", label=contender, markersize=4)
    sides = sorted({row["side"] for row in results["rows"]})
    axes.set_xticks(sides, [f"{side}²" for side in sides])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def seconds_of(row: Row) -> float | None:
    return row["seconds"]["median"] if "seconds" in row else None


def plot_growth(results: Results, figure: Any) -> None:
    axes = figure.subplots()
    by_side(results, axes, seconds_of)
    axes.set(xlabel="picture", ylabel="seconds")


def plot_one_shot(results: Results, figure: Any) -> None:
    axes = figure.subplots()
    by_side(results, axes, seconds_of)
    axes.set(xlabel="picture", ylabel="seconds")


def plot_large(results: Results, figure: Any) -> None:
    left, right = figure.subplots(1, 2)
    contenders = ("FFT round trip", "convpinv")
    by_side(results, left, seconds_of, contenders)
    left.set(xlabel="picture", ylabel="seconds")
    by_side(results, right, lambda row: row["peak_bytes"] / 2**20 if "peak_bytes" in row else None, contenders)
    # Less than two decades: the powers of ten alone would leave one number on the axis.
    ticks = [
        row["peak_bytes"] / 2**20
        for row in results["rows"]
        if row["contender"] == contenders[0] and "peak_bytes" in row
    ]
    right.set_yticks(ticks, [number(value) for value in ticks])
    right.set(xlabel="picture", ylabel="MiB above the data")


def plot_valid(results: Results, figure: Any) -> None:
    """Time to the goal: a row for each contender, a mark for each case."""
    rows = [row for row in results["rows"] if "seconds" in row and row["contender"] != "FFT round trip"]
    names = list(dict.fromkeys(row["contender"] for row in rows))[::-1]
    axes = figure.subplots()
    for case, marker in zip(dict.fromkeys(row["case"] for row in rows), "os^vDP", strict=False):
        mine = [row for row in rows if row["case"] == case]
        # Hollow: stopped, or content with less than the goal.
        short = [row["status"] != "measured" or row["residual"] > 1.01e-6 for row in mine]
        colour = None
        for hollow in (False, True):
            points = [
                (row["seconds"]["median"], names.index(row["contender"]))
                for row, is_short in zip(mine, short, strict=True)
                if is_short == hollow
            ]
            if not points:
                continue
            (drawn,) = axes.semilogx(
                *zip(*points, strict=True),
                marker,
                color=colour,
                markerfacecolor="none" if hollow else None,
                label=None if hollow else case,
            )
            colour = drawn.get_color()
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="seconds to a residual of 1e-6; hollow: did not get there")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False)


def plot_choice(results: Results, figure: Any) -> None:
    """Foretold and measured: a mark for each problem and solver, hollow where another one was chosen."""
    for place, (quantity, axes) in enumerate(zip(("prepare", "apply"), figure.subplots(1, 2), strict=True)):
        rows = [row for row in results["rows"] if row["case"] != SUMMARY]
        for contender in dict.fromkeys(row["contender"] for row in rows):
            colour = None
            for chosen in (True, False):
                mine = [row for row in rows if row["contender"] == contender]
                mine = [row for row in mine if bool(row["figures"]["chosen_for_1"]) == chosen]
                measured = [row["figures"]["apply_seconds"] if place else seconds_of(row) for row in mine]
                foretold = [row["figures"][f"forecast_{quantity}"] for row in mine]
                (drawn,) = axes.loglog(
                    foretold,
                    measured,
                    "o",
                    markersize=4,
                    color=colour,
                    markerfacecolor=None if chosen else "none",
                    label=contender if chosen else None,
                )
                colour = drawn.get_color()
        ends = max(min(axes.get_xlim()[0], axes.get_ylim()[0]), 1e-4), max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot(ends, ends, color="tab:gray", linewidth=1)
        axes.set(xlabel="foretold, seconds", ylabel="measured, seconds", title=f"to {quantity} (hollow: passed by)")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)


PLOTS: dict[str, Callable[[Results, Any], None]] = {
    "one_shot_circular": plot_one_shot,
    "large_circular": plot_large,
    "valid_motion": plot_valid,
    "growth": plot_growth,
    "automatic_choice": plot_choice,
}


def draw(results: Mapping[str, Results]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for claim, plot in PLOTS.items():
        if claim not in results:
            continue
        figure = pyplot.figure(figsize=(7.5, 4.4), layout="constrained")
        plot(results[claim], figure)
        figure.savefig(DOCS / "images" / f"performance-{claim.replace('_', '-')}.png", dpi=100)
        pyplot.close(figure)


def main() -> None:
    results = load()
    PAGE.write_text(text(results), encoding="utf-8")
    draw(results)
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
