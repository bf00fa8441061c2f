"""A killed restoration goes on where it was, in one process and on a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convpinv.app import outputs
from convpinv.app.files import TargetError
from convpinv.app.restoring import Request
from convpinv.app.tiles import planning, run, sinks
from tiled import ENVIRONMENT, begun, coarse_noise, restored

zarr = pytest.importorskip("zarr")
PSF = "gaussian:sigma=1.5"
# Slow enough for each tile to be caught in the act: some 20 tiles of 50 ms or more.
OPTIONS: dict[str, Any] = {"psf": PSF, "prior": "tv", "strength": 0.1, "noise": 0.05}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "in.zarr"
    values = (65535 * coarse_noise(300, 310)).astype(np.uint16)
    zarr.create_array(path, shape=values.shape, chunks=(128, 128), dtype="uint16")[:] = values
    return path


@pytest.fixture(scope="module")
def expected(picture: Path) -> np.ndarray[Any, Any]:
    """What one process gives, undisturbed."""
    target = picture.with_name("alone.zarr")
    restored(picture, target, **OPTIONS)
    return pixels(target)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_array(path, mode="r")[:])


def marks(target: Path) -> dict[str, int]:
    """The finished tiles, and when each was recorded."""
    folder = target.with_name(target.name + ".convpinv-progress") / "done"
    try:
        return {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(folder) if entry.name.isdigit()}
    except FileNotFoundError:
        return {}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("name", ["out.zarr", "out.npy", "out.tif"])
def test_a_killed_restoration_is_resumed(
    picture: Path, expected: np.ndarray[Any, Any], tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    process = begun(tmp_path, source=str(picture), target=str(target), **OPTIONS)
    wait_for(lambda: len(marks(target)) >= 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = marks(target)
    assert 3 <= len(before) < 16
    assert not target.exists()

    request = Request(picture, target, **OPTIONS)
    with pytest.raises(TargetError, match="unfinished restoration; give --resume"):
        run.deblur_large(request)
    with pytest.raises(TargetError, match="begun with another --strength"):
        run.deblur_large(Request(picture, target, **{**OPTIONS, "strength": 0.2}, resume=True))

    seen: dict[str, int] = {}
    steps = run._here

    def watched(*arguments: Any) -> Iterator[str]:
        for step in steps(*arguments):
            seen.update(marks(target))
            yield step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_here", watched)
        report, _ = run.deblur_large(Request(picture, target, **OPTIONS, resume=True))
    assert report["tiles_done_before"] == len(before)
    assert {tile: seen[tile] for tile in before} == before  # none was done again
    values = pixels(target) if name.endswith("zarr") else np.load(target) if name.endswith("npy") else tiff(target)
    assert np.array_equal(values, expected)
    assert not list(tmp_path.glob("*progress*"))


def test_ctrl_c_says_what_stays(picture: Path, expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    target = tmp_path / "out.zarr"
    process = begun(tmp_path, source=str(picture), target=str(target), **OPTIONS)
    wait_for(lambda: len(marks(target)) >= 3, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    kept = f"interrupted; {len(marks(target))} finished tiles are kept in {target}.convpinv-progress; "
    assert f"{kept}the same command with --resume goes on" in errors
    report, _ = run.deblur_large(Request(picture, target, **OPTIONS, resume=True))
    assert report["tiles_done_before"] >= 3
    assert np.array_equal(pixels(target), expected)


@pytest.mark.parametrize(
    ("place", "said", "left"),
    [
        ("planning.make", "interrupted; nothing was written", set()),
        ("sinks.make", "interrupted; nothing was written", set()),
        ("run._here", "interrupted; nothing was written", set()),
        ("sinks.finish", "finished tiles are kept in ", {"out.tif.convpinv-progress"}),
        ("outputs.take_name", "finished tiles are kept in ", {"out.tif.convpinv-progress"}),
    ],
)
def test_ctrl_c_at_any_place(
    picture: Path,
    convpinv: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    said: str,
    left: set[str],
) -> None:
    line = f"deblur {picture} out.tif --psf {PSF} --prior gradient --strength 0.1 --noise 0.05 --memory 2G"

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr({"sinks": sinks, "run": run, "planning": planning, "outputs": outputs}[place.partition(".")[0]],
                      place.partition(".")[2], interrupt)  # fmt: skip
        ended = convpinv(line)
    assert ended.code == 130
    assert said in ended.error_line
    assert {path.name for path in tmp_path.iterdir()} == left
    assert convpinv(line + " --resume").code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out.tif"}


def test_ctrl_c_when_all_is_done(
    picture: Path, convpinv: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"deblur {picture} out.zarr --psf {PSF} --prior gradient --strength 0.1 --noise 0.05 --memory 2G"
    assert convpinv(line).code == 0
    remove, calls = shutil.rmtree, iter(range(9))

    def interrupt(path: Path, **options: Any) -> None:
        if str(path).endswith(".old") and next(calls) == 0:  # of the store that was replaced
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupt)
    ended = convpinv(f"{line} --overwrite --report report.json")
    assert ended.code == 130
    assert ended.error_line.endswith("interrupted; out.zarr is finished, its report is not")
    assert pixels(tmp_path / "out.zarr").shape == (300, 310)
    assert {path.name for path in tmp_path.iterdir()} == {"out.zarr"}


def tiff(path: Path) -> np.ndarray[Any, Any]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        assert file.pages.first.is_tiled
        return file.asarray()


def test_a_cluster_loses_a_worker_and_then_its_client(
    picture: Path, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    target, address = tmp_path / "out.zarr", tmp_path / "scheduler.json"

    def start(command: str, *words: str) -> subprocess.Popen[bytes]:
        call = [sys.executable, "-m", f"distributed.cli.dask_{command}", "--scheduler-file", str(address), *words]
        with open(tmp_path / f"{command}.log", "ab") as log:
            return subprocess.Popen(call, cwd=tmp_path, env=ENVIRONMENT, stdout=log, stderr=log)

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    alone = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    try:
        processes += [start("worker", *alone), start("worker", *alone)]
        wait = time.monotonic() + 30
        while not address.exists() or not address.read_text().rstrip().endswith("}"):  # it is written in pieces
            assert time.monotonic() < wait, (tmp_path / "scheduler.log").read_text()
            time.sleep(0.02)
        options = {**OPTIONS, "scheduler": json.loads(address.read_text())["address"]}
        client = begun(tmp_path, source=str(picture), target=str(target), **options)
        wait_for(lambda: len(marks(target)) >= 3, client)
        processes[1].kill()
        wait_for(lambda: len(marks(target)) >= 6, client)
        client.kill()
        client.communicate()
        before = marks(target)
        assert not target.exists()
        second = begun(tmp_path, source=str(picture), target=str(target), **options, resume=True)
        seen: dict[str, int] = {}
        while second.poll() is None:
            seen.update(marks(target))
            time.sleep(0.005)
        assert second.returncode == 0, second.communicate()[1]
        assert second.stderr is not None
        second.stderr.close()
        assert {tile: seen[tile] for tile in before} == before
        assert np.array_equal(pixels(target), expected)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_two_workers_of_this_machine(picture: Path, expected: np.ndarray[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    target = tmp_path / "out.npy"
    process = begun(tmp_path, source=str(picture), target=str(target), workers=2, **OPTIONS)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert np.array_equal(np.load(target), expected)
