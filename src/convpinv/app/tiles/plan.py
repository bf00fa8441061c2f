"""The plan of a restoration in tiles: made before the work, printed by ``--dry-run``, kept for ``--resume``."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from convpinv.app.tiles import memory
from convpinv.arguments import ArgumentError

# A core this small would be lost among its surroundings; a larger one than this gains nothing.
LEAST_CORE, LARGEST_CORE = 64, 8192
# Chunks of the output; cores are multiples of them, so that no two tiles write into one.
GRAIN = 256

Span = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """One axis of a tile: what is read, joined into the window, and which of it is written where.

    ``cores`` are (start, stop, place in the window). A segment at the border holds both ends of the axis: between them
    lies, for the restoration, the same unknown strip as for the whole picture.
    """

    reads: tuple[Span, ...]
    cores: tuple[tuple[int, int, int], ...]
    is_border: bool

    @property
    def length(self) -> int:
        """Length of the window."""
        return sum(stop - start for start, stop in self.reads)


@dataclass(frozen=True)
class Tile:
    """A window of a plane, and its place in the order of work."""

    index: int
    plane: int
    rows: Segment
    columns: Segment

    @property
    def is_inside(self) -> bool:
        """Whether no edge of the window is the picture's."""
        return not (self.rows.is_border or self.columns.is_border)

    @property
    def pixels(self) -> int:
        """Pixels of the window."""
        return self.rows.length * self.columns.length

    def pieces(self) -> Iterator[tuple[Span, Span, slice, slice]]:
        """Yield (rows, columns) of the picture to be written, and where in the window they are."""
        for (top, bottom, row), (left, right, column) in itertools.product(self.rows.cores, self.columns.cores):
            window = slice(row, row + bottom - top), slice(column, column + right - left)
            yield (top, bottom), (left, right), *window


@dataclass(frozen=True)
class Layout:
    """What the tiles are cut by: sizes in pixels, (rows, columns)."""

    planes: int
    size: Span
    taps: Span
    gap: Span
    halo: int
    core: int
    grain: int
    is_linear: bool

    def segments(self, axis: int) -> tuple[Segment, ...]:
        """Cut one axis."""
        return _segments(self, axis)

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return self.planes * len(self.segments(0)) * len(self.segments(1))

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles: plane by plane, row by row."""
        order = itertools.product(range(self.planes), self.segments(0), self.segments(1))
        for index, (plane, rows, columns) in enumerate(order):
            yield Tile(index, plane, rows, columns)

    def windows(self) -> Iterator[tuple[int, int, bool, int]]:
        """Yield (rows, columns, inside, how many) of the windows of a plane, like ones together."""
        counts: dict[tuple[int, int, bool], int] = {}
        for rows, columns in itertools.product(_lengths(self.segments(0)), _lengths(self.segments(1))):
            (height, top, n), (width, left, m) = rows, columns
            key = (height, width, not (top or left))
            counts[key] = counts.get(key, 0) + n * m
        for (height, width, inside), count in counts.items():
            yield height, width, inside, count

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Layout:
        """Return what :meth:`to_dict` was made from."""
        pairs = {name: tuple(values[name]) for name in ("size", "taps", "gap")}
        return Layout(**{**values, **pairs})

    def digest(self) -> str:
        """Return a short text that differs between any two layouts."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


def fitting(layout: Layout, cost: Callable[[int, int, bool], float], budget: float) -> Layout:
    """Return the layout with the largest core whose windows all fit the budget.

    Parameters
    ----------
    layout
        All but its core, which is the largest allowed.
    cost
        ``cost(rows, columns, inside)``: bytes that a window takes.
    budget
        Bytes that there are.

    Raises
    ------
    ArgumentError
        If not even the smallest core fits; the message says how much would do.
    """

    def most(core: int) -> float:
        tried = dataclasses.replace(layout, core=core)
        return max(cost(rows, columns, inside) for rows, columns, inside, _ in tried.windows())

    grain = layout.grain
    low, high = math.ceil(min(LEAST_CORE, layout.core) / grain), max(1, layout.core // grain)
    low = min(max(low, 1), high)
    needed = most(low * grain)
    if needed > budget:
        more = memory.text(needed - budget)
        raise ArgumentError(
            f"the restoration reaches {layout.halo} px, and its smallest tiles need {more} more than --memory allows; "
            "allow more, or give a larger --strength, which reaches less far"
        )
    # Not every larger core costs more: windows snap to sizes whose transforms are fast. The search may miss a little.
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if most(middle * grain) <= budget else (low, middle - 1)
    return dataclasses.replace(layout, core=low * grain)


def _lengths(segments: tuple[Segment, ...]) -> list[tuple[int, bool, int]]:
    counts: dict[tuple[int, bool], int] = {}
    for segment in segments:
        key = (segment.length, segment.is_border)
        counts[key] = counts.get(key, 0) + 1
    return [(length, border, count) for (length, border), count in counts.items()]


def _segments(layout: Layout, axis: int) -> tuple[Segment, ...]:
    size, taps, gap, halo, grain = layout.size[axis], layout.taps[axis], layout.gap[axis], layout.halo, layout.grain
    whole = (Segment(((0, size),), ((0, size, 0),), True),)
    # The picture's border takes an iteration, and the inside of quadratic priors does not: its strips are thin there.
    thick = halo if layout.is_linear else max(halo, layout.core // 2)
    first = grain * math.ceil(max(thick, 1) / grain)
    last = (size - thick) // grain * grain
    if layout.core >= size or last <= first:
        return whole
    left, right = first + halo, size - last + halo
    length = _window(left + right, taps, gap)
    left = length - right
    if length > size:
        return whole
    border = Segment(((0, left), (size - right, size)), ((0, first, 0), (last, size, length - (size - last))), True)

    cuts = max(1, round((last - first) / layout.core + 0.49))
    steps = (last - first) // grain
    edges = [first + grain * (steps * cut // cuts) for cut in range(cuts + 1)]
    inner = []
    # One length for all, so that what is prepared for one serves all.
    needed = max(stop - start for start, stop in itertools.pairwise(edges)) + 2 * halo
    length = _window(needed, taps, 0 if layout.is_linear else None)
    for start, stop in itertools.pairwise(edges):
        if length <= size:
            begin = min(max(start - (length - (stop - start)) // 2, 0), size - length)
            begin = max(min(begin, start - halo), stop + halo - length, 0)
            read = (begin, begin + length)
        else:
            read = (start - halo, stop + halo)
        inner.append(Segment((read,), ((start, stop, start - read[0]),), False))
    return (border, *inner)


def _window(least: int, taps: int, gap: int | None) -> int:
    from convpinv.imaging import window_length

    return window_length(least, taps, gap)
