"""Many small pictures: ``convpinv deblur FOLDER OUT/`` against a plain loop of ``deblur`` calls, files to files.

    python benchmarks/folders.py [--count 500] [--side 160]

The loop reads, restores and writes one picture after the other in one process with torch's own number of threads; the
command has its start-up, its worker processes and its journal in its time. Both write the same pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
from skimage import data

import convpinv
from harness import at_least, given_by, measured, parser, write

PSF = "gaussian:sigma=1.5"
LOOP = """
import sys, time
from pathlib import Path
start = time.perf_counter()
import imagecodecs, numpy as np, convpinv
source, target = map(Path, sys.argv[1:])
for path in sorted(source.glob("*.png")):
    picture = imagecodecs.png_decode(path.read_bytes()).astype(np.float32) / 255
    restored = convpinv.deblur(picture, "gaussian:sigma=1.5")
    pixels = np.clip(np.rint(np.asarray(restored, dtype=np.float64) * 255), 0, 255).astype(np.uint8)
    (target / path.name).write_bytes(imagecodecs.png_encode(pixels))
"""


def make(folder: Path, count: int, side: int) -> None:
    """Crops of photographs, blurred, 1 % noise, 8 bits."""
    generator = np.random.default_rng(0)
    sources = [data.camera() / 255.0, data.coins() / 255.0, data.moon() / 255.0, data.brick() / 255.0]
    for index in range(count):
        scene = sources[index % len(sources)]
        top, left = (int(generator.integers(0, size - side - 12)) for size in scene.shape)
        crop = scene[top : top + side + 12, left : left + side + 12]
        blurred = convpinv.blur(crop, PSF, noise=0.01, seed=index)
        pixels = np.clip(np.rint(blurred * 255), 0, 255).astype(np.uint8)
        (folder / f"{index:04d}.png").write_bytes(imagecodecs.png_encode(pixels))


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--count", type=int, default=500)
    words.add_argument("--side", type=int, default=160)
    options = words.parse_args()
    given = given_by(options)
    if given.quick:
        options.count, options.side = 4, 48
    with tempfile.TemporaryDirectory() as name:
        source, loop, command = (Path(name) / part for part in ("in", "loop", "command"))
        for folder in (source, loop):
            folder.mkdir()
        make(source, options.count, options.side)
        deblur = "import sys; from convpinv.app.cli import main; sys.exit(main())"
        options_of_deblur = ["--psf", PSF, "--linear", "off"]
        one = seconds(
            [sys.executable, "-c", deblur, "deblur", f"{source}/", f"{command}/", *options_of_deblur],
        )
        other = seconds([sys.executable, "-c", LOOP, str(source), str(loop)])
        same = sum(
            (loop / path.name).exists()
            and np.array_equal(
                imagecodecs.png_decode((loop / path.name).read_bytes()), imagecodecs.png_decode(path.read_bytes())
            )
            for path in sorted(command.glob("*.png"))
        )
    print(f"loop {other:.1f} s, command {one:.1f} s: {other / one:.2f} times the rate; {same} of {options.count} equal")
    case = f"{options.count} pictures of {options.side}²"
    reference = "a loop of deblur"
    common = {"side": options.side, "reference": reference}
    write(
        "folders",
        "A folder of small pictures is restored faster by the command than by a loop of calls.",
        [
            measured(case, reference, [other], ratio=1.0, **common),
            measured(case, "convpinv deblur FOLDER", [one], ratio=one / other, figures={"equal": same}, **common),
        ],
        given,
        [at_least(f"times the rate of the loop, {case}", other / one, 1)],
    )


if __name__ == "__main__":
    main()
