"""A picture larger than the memory that it is given: peak memory and time per pixel, beside the restoration in memory.

    python benchmarks/tiles.py [--side 16384] [--reference 4096] [--memory 2G] [--kind zarr|tiff|npy]

The picture is random noise of a blur's smoothness, uint16, written tile by tile. Each restoration is a process of its
own, ``convpinv deblur``; its peak is VmHWM, as the kernel counts it, importing torch included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convpinv.app.tiles import memory
from harness import at_least, at_most, given_by, measured, parser, write

SIDE = 1024
# Prints the peak after the work: the parent cannot ask a process that is gone.
CALL = (
    "import sys; from convpinv.app.cli import main; from convpinv.app.tiles import memory;"
    "code = main(sys.argv[1:]); print('peak', memory.peak()); sys.exit(code)"
)


def block(seed: int) -> np.ndarray[Any, Any]:
    """Noise that was smoothed by a box of 5 pixels, with some flat squares in it."""
    generator = np.random.default_rng(seed)
    values = np.kron(generator.random((SIDE // 32, SIDE // 32)), np.ones((32, 32)))
    for axis in (0, 1):
        values = np.mean([np.roll(values, shift, axis) for shift in range(-2, 3)], axis=0)
    return (65535 * np.clip(0.1 + 0.8 * values + 0.01 * generator.standard_normal(values.shape), 0, 1)).astype("uint16")


def make(path: Path, side: int) -> None:
    """Write the picture without holding it."""
    if path.suffix == ".zarr":
        import zarr

        array = zarr.create_array(path, shape=(side, side), chunks=(SIDE, SIDE), dtype="uint16")
        for index in np.ndindex(side // SIDE, side // SIDE):
            top, left = (SIDE * place for place in index)
            array[top : top + SIDE, left : left + SIDE] = block(index[0] * 1000 + index[1])
        return

    def tiles() -> Iterator[np.ndarray[Any, Any]]:
        for index in np.ndindex(side // SIDE, side // SIDE):
            yield block(index[0] * 1000 + index[1])

    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(path, "w+", "uint16", (side, side))
        for number, values in enumerate(tiles()):
            top, left = (SIDE * place for place in divmod(number, side // SIDE))
            array[top : top + SIDE, left : left + SIDE] = values
        return
    import tifffile

    tifffile.imwrite(path, tiles(), shape=(side, side), dtype="uint16", tile=(SIDE, SIDE), bigtiff=True)


def restore(source: Path, target: Path, prior: str, psf: str, *options: str) -> dict[str, Any]:
    """Restore in a process of its own; seconds of the work, and the peak."""
    report = target.with_suffix(".json")
    words = ["deblur", str(source), str(target), "--psf", psf, "--prior", prior, "--report", str(report)]
    words += ["--strength", "0.1", "--overwrite", *options]
    run = subprocess.run([sys.executable, "-c", CALL, *words], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(run.stderr)
    print(run.stdout)
    peak = int(run.stdout.rpartition("peak ")[2])
    facts = json.loads(report.read_text())
    return {"seconds": facts["seconds"], "peak_gib": peak / 2**30, "tiles": facts.get("tiles", 1)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--side", type=int, default=16384)
    options.add_argument("--reference", type=int, default=4096)
    options.add_argument("--memory", default="2G")
    options.add_argument("--kind", choices=("zarr", "tiff", "npy"), default="zarr")
    options.add_argument("--prior", default="gradient")
    options.add_argument("--psf", default="gaussian:sigma=2")
    arguments = options.parse_args()
    given = given_by(arguments)
    if given.quick:
        arguments.side, arguments.reference, arguments.memory = 2048, 1024, "1G"
    suffix = {"zarr": ".zarr", "tiff": ".tif", "npy": ".npy"}[arguments.kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, small = folder / f"large{suffix}", folder / "small.tif"
        make(large, arguments.side)
        make(small, arguments.reference)
        # In memory: a TIFF that is small enough goes that way by itself.
        whole = restore(small, folder / "whole.tif", arguments.prior, arguments.psf)
        parts = restore(large, folder / f"parts{suffix}", arguments.prior, arguments.psf, "--memory", arguments.memory)
    rates = [one["seconds"] / side**2 for one, side in ((whole, arguments.reference), (parts, arguments.side))]
    limit = memory.parse(arguments.memory)
    case = f"{arguments.kind}, prior {arguments.prior}, {arguments.psf}"
    rows = [
        measured(
            case,
            f"in tiles under {arguments.memory}" if one is parts else "in memory",
            [one["seconds"]],
            side=side,
            peak_bytes=round(one["peak_gib"] * 2**30),
            figures={"tiles": one["tiles"], "nanoseconds_per_pixel": 1e9 * one["seconds"] / side**2},
        )
        for one, side in ((whole, arguments.reference), (parts, arguments.side))
    ]
    print(json.dumps(rows, indent=1))
    write(
        "tiles",
        "A picture larger than memory is restored within the memory that it is given, as fast a pixel as in memory.",
        rows,
        given,
        [
            at_most(f"peak memory in that allowed, {case}", parts["peak_gib"] * 2**30 / limit, 1),
            at_least(f"pixels a second in those in memory, {case}", rates[0] / rates[1], 0.5),
        ],
    )


if __name__ == "__main__":
    main()
