"""The examples run, and do what they say."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_every_example_is_tested() -> None:
    assert [path.name for path in sorted(EXAMPLES.glob("*.py"))] == ["null_space_correction.py", "pinv_decoder.py"]


def test_pinv_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    losses = runpy.run_path(str(EXAMPLES / "pinv_decoder.py"))["main"](40)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    printed = capsys.readouterr().out
    assert "196, all of them the encoder's" in printed
    assert float(printed.split()[-1]) < 1e-5
