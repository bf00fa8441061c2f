from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from convpinv.app.cli import main


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line on standard error; anything else on it fails the test."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def convpinv(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Run the command line in tmp_path, as ``convpinv("deblur a.png b.png --psf …")``."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> Run:
        capsys.readouterr()
        code = main(shlex.split(line))
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run


@pytest.fixture
def listing(tmp_path: Path) -> Callable[[], set[str]]:
    """The names of all files below tmp_path, hidden ones too."""
    return lambda: {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """A colour photograph, 8 bits, large enough for a blur and small enough for a quick test."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[50:162, 170:282])


@pytest.fixture(scope="session")
def random() -> np.random.Generator:
    return np.random.default_rng(2026)


@pytest.fixture
def check(convpinv: Callable, tmp_path: Path) -> Callable[..., str]:
    """Run ``--check-io`` on files of tmp_path and return what it said."""

    def run(source: str, target: str, options: str = "") -> str:
        run = convpinv(f"deblur {source} {target} --check-io {options}")
        assert (run.code, run.err) == (0, "")
        assert "pixels    equal, all " in run.out
        return " ".join(run.out.split())

    return run
