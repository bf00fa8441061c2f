"""What the benchmarks share: interleaved timing, and one JSON row a measurement."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convpinv

RESULTS = Path(__file__).parent / "results"


def interleaved(calls: dict[str, Callable[[], Any]], runs: int = 20, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn, so that a machine that drifts drifts for all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(warmup + runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if run >= warmup:
                seconds[name].append(elapsed)
    return seconds


def median_ratio(seconds: dict[str, list[float]], name: str, reference: str) -> float:
    """Ratio of the two medians."""
    return statistics.median(seconds[name]) / statistics.median(seconds[reference])


def write(claim: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a claim, with the machine and the versions they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "convpinv": convpinv.__version__,
        "threads": torch.get_num_threads(),
    }
    path = RESULTS / f"{claim}.json"
    path.write_text(json.dumps({"claim": claim, "machine": machine, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
