"""Claim: importing the package costs little beside importing torch, and the command answers at once.

Processes of their own, in turn. What convpinv adds is timed within a process that has torch already, so that torch's
own spread is not in it. The package loads its parts where they are first named: how long naming the two main ones
takes stands beside it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from harness import at_most, measured, median_of, options, show, timed, write

ADDED = """
import time, torch
start = time.perf_counter()
import convpinv
middle = time.perf_counter()
convpinv.conv_pinv2d, convpinv.deblur
print(middle - start, time.perf_counter() - start)
"""
HELP = "import sys; sys.argv[0] = 'convpinv'; from convpinv.app.cli import main; sys.exit(main())"
CASE = "a process of its own"
ALONE, NAMED = "import convpinv, after torch", "import convpinv and name conv_pinv2d and deblur, after torch"


def run(code: str, *words: str) -> str:
    return subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout


def main() -> None:
    given = options(__doc__)
    found: dict[str, list[float]] = {}

    def add(name: str, seconds: Any) -> None:
        found.setdefault(name, []).append(float(seconds))

    for _ in range(1 + given.runs(9)):
        add("an interpreter, nothing imported", timed(lambda: run("pass"))[0])
        add("import torch", timed(lambda: run("import torch"))[0])
        alone, named = run(ADDED).split()
        add(ALONE, alone)
        add(NAMED, named)
        add("convpinv --help", timed(lambda: run(HELP, "--help"))[0])
    # The first of each reads from the disk.
    rows = [measured(CASE, name, seconds[1:]) for name, seconds in found.items()]
    for row in rows:
        show(row)
    bounds = [
        at_most(f"seconds of {ALONE}", median_of(rows, CASE, ALONE), 0.15),
        # What loads lazily is still to be loaded.
        at_most(f"seconds of {NAMED}", median_of(rows, CASE, NAMED), 0.15),
        at_most("seconds of convpinv --help", median_of(rows, CASE, "convpinv --help"), 0.4),
    ]
    write(
        "start",
        "Importing the package costs little beside importing torch, and the command answers at once.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
