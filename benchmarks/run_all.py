"""Run the benchmarks, one after the other, each in a process of its own, and put what they found on the page.

    python benchmarks/run_all.py [--quick] [--output DIR] [CLAIM ...]

Without names all of them run: minutes for each of the claims on speed, hours for ``restoration``. ``--quick`` tells
whether they run, not how fast, and changes no committed result.
"""

from __future__ import annotations

import subprocess
import sys

from harness import HERE, parser

HELPERS = {"harness", "memory", "page", "peers", "run_all"}
# The longest last: what is most asked for is there first.
LAST = ("folders", "tiles", "restoration", "captures")


def claims() -> list[str]:
    """Names of the benchmarks in the order in which they are run."""
    found = {script.stem for script in HERE.glob("*.py")} - HELPERS
    return [*sorted(found.difference(LAST)), *LAST]


def main() -> int:
    words = parser(__doc__)
    words.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(claims()))
    options = words.parse_args()
    unknown = sorted(set(options.claims).difference(claims()))
    if unknown:
        words.error(f"no such claim: {', '.join(unknown)}; there are {', '.join(claims())}")
    passed = ["--quick"] if options.quick else []
    passed += ["--output", str(options.output)] if options.output else []
    failed = []
    for claim in options.claims or claims():
        print(f"== {claim}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{claim}.py"), *passed], check=False).returncode:
            failed.append(claim)
    if not options.quick and not options.output:
        subprocess.run([sys.executable, str(HERE / "page.py")], check=True)
    if failed:
        print("failed: " + ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
