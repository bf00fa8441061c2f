"""Memory: what the user allows, what the kernel counts, and what a restoration takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from convpinv.arguments import ArgumentError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
# Peak growth of a process over one window in single precision, as (bytes a pixel, fixed bytes): measured as VmHWM on
# windows of 0.2 to 9 megapixels and rounded up by a tenth. By prior; "filter" is for tiles of quadratic priors that
# touch no border. Small windows take no more than so many bytes a pixel, without the fixed ones.
_GROWTH = {
    "filter": (60.0, 0.0),
    "gradient": (110.0, 2.0e8),
    "tikhonov": (165.0, 0.0),
    "tv": (120.0, 0.0),
    "hyperlaplacian": (110.0, 0.0),
    "nonlocal": (850.0, 1.0e9),
}
_SMALL = {"gradient": 300.0}
# The stored window, its values, and the result, a channel.
_AT_REST = 12.0
# In double precision nearly all of it doubles.
_DOUBLE = 2.0
# Between what the model says and the limit: allocators, and the libraries that read and write.
RESERVE = 96 * 2**20


def parse(text: str, option: str = "--memory") -> int:
    """Return the bytes of ``4G``, ``1.5GiB``, ``800M``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= value < 2**60:
        raise ArgumentError(f"{option} is {text!r}; it may be a size like 4G or 800M")
    return int(value)


def peak() -> int:
    """Return the most memory that this process ever held (VmHWM), in bytes."""
    return _status("VmHWM")


def held() -> int:
    """Return the memory that this process holds (VmRSS), in bytes."""
    return _status("VmRSS")


def available() -> int | None:
    """Return the memory that is free for programs, in bytes; None where the system does not say."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None


def window_bytes(kind: str, pixels: int, channels: int, together: int, double: bool) -> float:
    """Return how much the memory grows while a window of so many pixels is restored.

    ``channels`` in all, of which as many as ``together`` are restored at once; ``kind`` is a prior or "filter".
    """
    slope, fixed = _GROWTH[kind]
    growth = slope * pixels * together + fixed
    if kind in _SMALL:
        growth = min(growth, _SMALL[kind] * pixels * together)
    return (growth + _AT_REST * pixels * channels) * (_DOUBLE if double else 1.0)


def text(count: float) -> str:
    """Write bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1024:.3g} KiB"


def _status(field: str) -> int:
    try:
        match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match:
        return int(match[1]) * 1024
    import resource

    # Elsewhere than on Linux only the peak is known; macOS counts it in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
