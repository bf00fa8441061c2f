"""What an output in pieces is: its shape, and the order of its axes in memory and in the file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """What an output holds: an array whose axes are called ``names``, and in the file ``order``; see axes.py.

    Pixels are written, plane by plane, in the order of ``shape`` and ``names``: rows, columns and samples last.
    """

    shape: tuple[int, ...]
    names: str
    order: str
    dtype: str
    grain: int

    @property
    def stack(self) -> tuple[int, ...]:
        """Lengths of the axes before rows and columns."""
        return self.shape[: self.names.index("Y")]

    def chunks(self) -> dict[str, int]:
        """Return the lengths of chunks of which no two tiles share one, by the names of the axes."""
        lengths = dict(zip(self.names, self.shape, strict=True))
        shared = {"Y": min(self.grain, lengths["Y"]), "X": min(self.grain, lengths["X"]), "S": lengths.get("S", 1)}
        return {name: shared.get(name, 1) for name in self.names}
