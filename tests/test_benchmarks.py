"""The benchmarks run, what they write follows the schema, and the page shows the committed results and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torch.nn.functional as F

import harness
import memory
import page
import peers
import run_all
import silent_failures
import valid_motion
from convpinv import Conv2dOperator

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted(harness.RESULTS.glob("*.json"))
# Those that are over in seconds; the rest take the same way through the harness.
QUICK = ("prepared_circular", "multichannel_circular")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A benchmark sets the threads of its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_quick_claims_run_and_follow_the_schema(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/run_all.py"), "--quick", "--output", str(tmp_path), *QUICK],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    found = page.load(tmp_path)
    assert set(found) == set(QUICK)
    for results in found.values():
        assert results["context"]["quick"]
    errors = [row["error"] for row in found["multichannel_circular"]["rows"] if "error" in row]
    assert errors
    assert max(errors) < 1e-5


def test_a_claim_that_does_not_exist_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/run_all.py"), "nothing"], check=False, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "no such claim: nothing" in run.stderr


def test_a_missing_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda package: package == "convpinv")
    monkeypatch.setattr(sys, "argv", ["silent_failures.py", "--quick", "--output", str(tmp_path)])
    silent_failures.main()
    rows = page.load(tmp_path)["silent_failures"]["rows"]
    absent = {row["contender"] for row in rows if row["status"] == "missing"}
    assert absent == {name for name, (package, _) in silent_failures.CONTENDERS.items() if package != "convpinv"}
    ours = [row for row in rows if row["contender"] == "convpinv auto"]
    assert ours[0]["error"] < 1e-8
    assert any("missing" in line for line in page.silent(page.load(tmp_path)["silent_failures"]))


def test_a_wrong_answer_without_a_word_is_counted() -> None:
    matrix = torch.eye(4, dtype=torch.float64)
    y = exact = torch.ones(4, dtype=torch.float64)

    def outcome(value: torch.Tensor, reported: str) -> dict[str, Any]:
        found = silent_failures.outcome(lambda *_: (value, reported), y, matrix, "valid", matrix, exact)
        assert found is not None
        return found

    assert outcome(y, "nothing")["silent_failures"] == 0
    assert outcome(2 * y, "nothing")["silent_failures"] == 1
    assert outcome(2 * y, "success")["silent_failures"] == 1
    assert outcome(2 * y, "failure")["silent_failures"] == 0
    assert outcome(float("nan") * y, "nothing")["silent_failures"] == 1


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_follow_the_schema(path: Path) -> None:
    results = json.loads(path.read_text(encoding="utf-8"))
    harness.check(results)
    assert results["claim"] == path.stem
    assert not results["context"]["quick"]
    assert path.read_text(encoding="utf-8") == harness.laid_out(results)
    for bound in results["bounds"]:
        value = bound["value"]
        if value is None:
            assert bound["holds"] is None
        elif bound["holds"] is not None:
            assert bound["holds"] == (value <= bound["at_most"] if "at_most" in bound else value >= bound["at_least"])
    for row in results["rows"]:
        if "seconds" in row:
            seconds = row["seconds"]
            assert seconds["lower_quartile"] <= seconds["median"] <= seconds["upper_quartile"]


def test_results_are_there() -> None:
    """A glob that matches nothing would turn the tests above green."""
    assert set(page.CLAIMS) | {page.SILENT} <= {path.stem for path in RESULTS}


def good() -> dict[str, Any]:
    return {
        "claim": "some_claim",
        "sentence": "Something is faster than something.",
        "context": harness.context(quick=True),
        "rows": [harness.measured("case", "convpinv", [1.0, 2.0, 4.0], ratio=0.5, reference="peer")],
        "bounds": [harness.at_most("ratio of the times", 0.5, 1.0)],
    }


def broken() -> Iterator[tuple[str, Any]]:
    row = good()["rows"][0]
    for key in ("claim", "context", "rows"):
        yield f"no {key}", {name: value for name, value in good().items() if name != key}
    yield "no rows", good() | {"rows": []}
    yield "an unknown key", good() | {"rows": [row | {"colour": "blue"}]}
    yield "a ratio to nothing", good() | {"rows": [{k: v for k, v in row.items() if k != "reference"}]}
    yield "nothing measured", good() | {"rows": [{"case": "case", "contender": "us", "status": "measured"}]}
    yield "a time that is missing", good() | {"rows": [row | {"status": "missing", "note": "not there"}]}
    yield "stopped without a reason", good() | {"rows": [row | {"status": "stopped"}]}
    yield "an impossible residual", good() | {"rows": [row | {"residual": -1.0}]}
    yield "a bound without a limit", good() | {"bounds": [{"sentence": "ratio of times", "value": 1, "holds": True}]}


def test_the_schema_accepts_what_the_harness_makes() -> None:
    harness.check(json.loads(harness.laid_out(good())))


@pytest.mark.parametrize("results", [pytest.param(results, id=name) for name, results in broken()])
def test_the_schema_can_fail(results: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        harness.check(results)


def test_page_shows_the_committed_results() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(page.load())


def test_every_benchmark_can_be_imported_and_is_listed() -> None:
    for claim in run_all.claims():
        assert callable(importlib.import_module(claim).main)
    assert set(page.CLAIMS) | {page.SILENT} <= set(run_all.claims())


def test_interleaved_takes_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(2e-3)) for name in "ab"}
    seconds = harness.interleaved(calls, runs=3, warmup=1)
    assert order[:8] == list("abbaabba")
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}
    assert min(seconds["a"]) >= 2e-3


def test_spread_is_that_of_numpy() -> None:
    found = harness.spread([4.0, 1.0, 3.0, 2.0])
    assert found == {"median": 2.5, "lower_quartile": 1.75, "upper_quartile": 3.25, "runs": 4}
    assert harness.spread([2.0])["upper_quartile"] == 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's own count of resident memory")
def test_peak_counts_the_call_alone() -> None:
    found = memory.peak_of("large_circular", "call", "FFT round trip", 1024)
    if not found:
        pytest.skip("the high-water mark cannot be set back here")
    # At least the half-spectrum beside the result; loading torch would be some 200 MiB.
    assert found["working_bytes"] >= 4 * 2**20
    assert found["peak_bytes"] < 100 * 2**20


@pytest.fixture(scope="module")
def problem() -> tuple[torch.Tensor, torch.Tensor]:
    kernel = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    y = torch.rand(1, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return y, kernel / kernel.sum()


def test_residual_is_that_of_the_normal_equations(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    y, kernel = problem
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    back = F.conv_transpose2d(y - F.conv2d(x, kernel[None, None]), kernel[None, None])
    right = F.conv_transpose2d(y, kernel[None, None])
    expected = float((back - valid_motion.DAMP_SQUARED * x).norm() / right.norm())
    assert valid_motion.residual_of(y, kernel)(x) == pytest.approx(expected, rel=1e-10)


def test_the_pseudo_inverse_has_no_residual(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    y, kernel = problem
    operator = Conv2dOperator(kernel[None, None], 16)
    x = operator.pinv(damp=valid_motion.DAMP_SQUARED**0.5, solver="dense")(y)
    assert valid_motion.residual_of(y, kernel)(x) < 1e-12


@pytest.mark.parametrize(("package", "make"), [("scipy", peers.scipy_lsmr), ("pylops", peers.pylops_lsqr)])
def test_peers_solve_the_same_problem(package: str, make: Any, problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    pytest.importorskip(package)
    y, kernel = problem
    assert valid_motion.residual_of(y, kernel)(make(y, kernel, valid_motion.DAMP_SQUARED)(300)) < 1e-8


def test_iterations_are_counted_up_to_the_goal() -> None:
    def iterate(count: int) -> torch.Tensor:
        return torch.tensor(10.0 ** (-count / 10))

    assert valid_motion.enough_iterations(iterate, float, 40, 10.0, is_known=False)[0] in range(60, 64)
    assert valid_motion.enough_iterations(iterate, float, 90, 10.0, is_known=False)[0] in range(60, 64)
    count, residual, reached = valid_motion.enough_iterations(iterate, float, 10, 0.0, is_known=False)
    assert (count, residual, reached) == (10, pytest.approx(0.1), False)


def test_the_recipe_of_ten_lines_is_right(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    """A peer that was wrong would be no peer."""
    _, kernel = problem
    kernel = kernel + torch.eye(5, dtype=torch.float64)
    operator = Conv2dOperator(kernel[None, None], 16, padding="same", padding_mode="circular")
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    assert torch.allclose(peers.complex_recipe(operator(x), kernel), x, atol=1e-8)
