"""One tile after the other: read the window, restore it, write its core, record it. In any process."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from convpinv.app import images, raster
from convpinv.app.files import UnreadableFileError, stamp
from convpinv.app.tiles.plan import Tile
from convpinv.app.tiles.planning import Plan
from convpinv.app.tiles.progress import Progress
from convpinv.app.tiles.sinks import open_sink
from convpinv.app.tiles.sources import opened

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
class Work:
    """The opened ends of a plan, and what was prepared for its tiles."""

    def __init__(self, plan: Plan, target: Path, device: str | None = None) -> None:
        import torch

        from convpinv.imaging import PartRestorer

        self.plan = plan
        self._stack = contextlib.ExitStack()
        path = Path(plan.source)
        self._source = self._stack.enter_context(opened(path, plan.names))
        if stamp(path) != plan.stamp or self._source.shape != plan.shape:
            raise UnreadableFileError(path, "has changed since the work was planned; start afresh with --overwrite")
        self._progress = Progress(target)
        self._sink = open_sink(self._progress.pixels, plan.form)
        self._restorer = PartRestorer(plan.agreed(), device or plan.device, plan.layout.gap)
        # Of the last size of windows: the sizes come one after the other, and each is as large as a window.
        self._prepared: tuple[Any, tuple[Any, ...]] = (None, ())
        # Sums depend on how many threads share them: the same for all tiles, or results would not be bit-equal.
        torch.set_num_threads(plan.threads)

    def do(self, tile: Tile) -> None:
        """Restore one tile; when this returns, it is written and recorded."""
        import numpy as np

        # Of a worker that died after it had recorded a tile the scheduler has not heard, and asks for it again.
        if self._progress.is_done(tile.index):
            return
        stored = self._window(tile)
        colours, alpha = raster.split_alpha(stored, self._source.path)
        window = raster.seen_range(colours, self._source.missing)
        del colours
        kind = (window.shape[:2], window.dtype)
        if tile.is_inside and self._prepared[0] != kind:
            self._prepared = (None, ())  # one at a time
            self._prepared = (kind, self._restorer.prepare(*kind))
        restored = self._restorer(window, inside=tile.is_inside, prepared=self._prepared[1] if tile.is_inside else ())
        counts = self._counts(window, tile)
        del window
        clipped = 0
        for rows, columns, down, right in tile.pieces():
            piece = raster.Image(
                pixels=np.ascontiguousarray(restored[down, right]),
                dtype=self.plan.dtype,
                format="tiff",
                alpha=None if alpha is None else alpha[down, right],
            )
            values, outside = images.stored_values(piece, self._progress.target)
            clipped += outside
            self._sink.write(tile.plane, rows, columns, values)
        self._progress.mark(tile.index, {"clipped": clipped, **counts})

    def _counts(self, window: NDArray[Any], tile: Tile) -> dict[str, int]:
        """Count the values of a tile that were not seen, and those that were clipped and count as bounds."""
        import numpy as np

        low, high = self.plan.agreement["clip"]
        counts = {"masked": 0, "saturated": 0}
        for _, _, down, right in tile.pieces():
            core = window[down, right]
            seen = core[np.isfinite(core)]
            counts["masked"] += core.size - seen.size
            counts["saturated"] += 0 if high is None else int((seen >= high).sum())
            counts["saturated"] += 0 if low is None else int((seen <= low).sum())
        return counts

    def close(self) -> None:
        """Close the source."""
        self._stack.close()

    def _window(self, tile: Tile) -> NDArray[Any]:
        import numpy as np

        parts = [
            [self._source.read(tile.plane, rows, columns) for columns in tile.columns.reads] for rows in tile.rows.reads
        ]
        if len(parts) == 1 and len(parts[0]) == 1:
            return parts[0][0]
        return np.concatenate([np.concatenate(row, axis=1) for row in parts], axis=0)
