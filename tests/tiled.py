"""Pictures in files, restored in tiles of a size that memory would not choose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convpinv
from convpinv.app.restoring import Request
from convpinv.app.tiles import run

# Processes of other folders find this package too, and compute with one thread as the tests do.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(convpinv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
}
SCRIPT = """
import sys
from pathlib import Path
from convpinv.app.restoring import Request
from convpinv.app.tiles import run
if __name__ == "__main__":
    options, core, grain = eval(sys.argv[1])
    source, target = (Path(options.pop(name)) for name in ("source", "target"))
    run.deblur_large(Request(source, target, **options), core=core, grain=grain)
"""


def coarse_noise(rows: int, columns: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Zeros and ones at random: the picture on which a bound is put to the test."""
    return (np.random.default_rng(seed).random((rows, columns)) > 0.5).astype(np.float32)


def restored(source: Path, target: Path, psf: str, core: int = 64, grain: int = 32, **options: Any) -> Any:
    """Restore in tiles, and return the report; the pixels are in the target."""
    return run.deblur_large(Request(source, target, psf, **options), core=core, grain=grain)[0]


def begun(folder: Path, core: int = 64, grain: int = 32, **options: Any) -> subprocess.Popen[str]:
    """Begin the same in a process of its own; a script, so that its worker processes can be spawned."""
    script = folder / "restore.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), repr((options, core, grain))]
    return subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE)


def end_after_one_step(request: Request, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> None:
    """Begin to restore in tiles, in this process, and break off when the first step is done."""
    steps = run._here

    def first(*arguments: Any) -> Any:
        yield next(iter(steps(*arguments)))
        raise RuntimeError("ended")

    with monkeypatch.context() as patch:
        patch.setattr(run, "_here", first)
        with pytest.raises(RuntimeError, match="ended"):
            run.deblur_large(request, **sizes)
