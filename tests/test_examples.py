"""The examples run, and do what they say."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_every_example_is_tested() -> None:
    assert [path.name for path in sorted(EXAMPLES.glob("*.py"))] == [
        "invert_a_layer.py",
        "null_space_correction.py",
        "pinv_decoder.py",
    ]


def test_pinv_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    losses = runpy.run_path(str(EXAMPLES / "pinv_decoder.py"))["main"](40)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    printed = capsys.readouterr().out
    assert "196, all of them the encoder's" in printed
    assert float(printed.split()[-1]) < 1e-5


def test_invert_a_layer(capsys: pytest.CaptureFixture[str]) -> None:
    """The smaller layer that a test can afford: 8 channels at 32², too large for the dense matrix."""
    numbers = runpy.run_path(str(EXAMPLES / "invert_a_layer.py"))["main"](8, 32)
    assert numbers["error"] < 1e-10
    assert numbers["error_iterated"] > 1e-3
    printed = capsys.readouterr().out
    assert "border matrix 520 x 520" in printed
    assert "stopped at max_iter" in printed
