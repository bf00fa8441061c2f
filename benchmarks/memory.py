"""Resident memory of one call, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from harness import HERE, THREADS

# Reading a status file costs nothing beside what is measured, and the high-water mark can be set back: it then counts
# the call alone, not importing torch. Where the kernel refuses, the figure is None, not a guess.
_CHILD = """
import importlib, json, re, sys
from pathlib import Path
import torch
module, function, threads, arguments = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
torch.set_num_threads(threads)
call = getattr(importlib.import_module(module), function)(*arguments)
def status(name):
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text(), re.M).group(1))
try:
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    result = call()
    found = {"peak": status("VmHWM") - before, "result": result.numel() * result.element_size()}
except OSError:
    found = None
print("found " + json.dumps(found))
"""


def peak_of(module: str, function: str, *arguments: Any) -> dict[str, int]:
    """Resident memory of one call, in a process of its own: above what was there before, and without its result.

    ``function(*arguments)`` of ``module`` prepares and returns the call. Empty where the system does not tell.
    """
    words = [sys.executable, "-c", _CHILD, module, function, str(THREADS), json.dumps(arguments)]
    paths = os.pathsep.join([str(HERE), *(path for path in [os.environ.get("PYTHONPATH")] if path)])
    # Large blocks go back to the system when they are freed: what preparing left behind would hide what the call takes.
    allocator = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
    environment = os.environ | allocator | {"PYTHONPATH": paths}
    run = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise RuntimeError(run.stderr)
    found = json.loads(run.stdout.rpartition("found ")[2])
    if found is None:
        return {}
    return {"peak_bytes": found["peak"], "working_bytes": max(found["peak"] - found["result"], 0)}
