"""What is finished of a restoration in tiles: a folder beside the output that outlives a killed process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from convpinv.app.files import TargetError, WriteError, reason

_PLAN, _DONE = "plan.json", "done"


@final
class Progress:
    """The folder ``OUT.convpinv-progress``: the plan, the pixels so far, and a file a finished tile."""

    def __init__(self, target: Path) -> None:
        self.target = Path(os.path.realpath(target))
        self.folder = self.target.with_name(self.target.name + ".convpinv-progress")

    @property
    def pixels(self) -> Path:
        """Where the sink keeps the pixels until all are there."""
        return self.folder / ("pixels.zarr" if self.target.suffix.lower() == ".zarr" else "pixels.npy")

    def exists(self) -> bool:
        """Tell whether a restoration was begun and not finished."""
        return self.folder.exists()

    def begin(self, plan: Mapping[str, Any], make: Any) -> None:
        """Make the folder; ``make(path)`` makes the empty sink. The plan is written last: with it all is there."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.folder / _DONE).mkdir(parents=True)
            make(self.pixels)
            temporary = self.folder / (_PLAN + ".part")
            temporary.write_text(json.dumps(plan, allow_nan=False), encoding="utf-8")
            os.replace(temporary, self.folder / _PLAN)
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise WriteError(
                self.target, f"could not be begun ({reason(error)}); free space or choose another"
            ) from None
        except BaseException:  # taking the space on the disk may last, and be interrupted
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def plan(self) -> dict[str, Any] | None:
        """Return the plan of what was begun; None where nothing was, or it was killed before the plan stood."""
        try:
            return json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise TargetError(
                self.folder, f"cannot be resumed ({reason(error)}); delete it, or give --overwrite to start afresh"
            ) from None

    def mark(self, tile: int, facts: Mapping[str, Any]) -> None:
        """Record a tile whose pixels are written."""
        temporary = self.folder / _DONE / f".{tile}.{os.getpid()}"
        temporary.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(temporary, self.folder / _DONE / str(tile))

    def is_done(self, tile: int) -> bool:
        """Tell whether a tile is finished, by whichever process."""
        return (self.folder / _DONE / str(tile)).exists()

    def done(self) -> set[int]:
        """Return the finished tiles."""
        return {int(entry.name) for entry in os.scandir(self.folder / _DONE) if entry.name.isdigit()}

    def facts(self) -> list[dict[str, Any]]:
        """Return what was recorded of each finished tile."""
        return [json.loads((self.folder / _DONE / str(tile)).read_text()) for tile in sorted(self.done())]

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
