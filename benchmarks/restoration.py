"""Restored pictures beside those of other libraries: the same data, the same run, nothing tuned by hand.

    python benchmarks/restoration.py [--data DIR] [--protocol A|B|C] [--every N] [--priors tv,nonlocal]
        [--without-deepinv] [--write]

Protocol A: ``y = valid convolution(x, k) + noise``, the border unknown; protocol B: circular; protocol C: as A, with
the pictures and the scores of a published table (Nan, Quan and Ji, CVPR 2020: rounded to 8 bits, without 30 pixels at
each side of the whole picture), so that it needs ``--data``. Reference: the part of x under y. Scores after clipping to
[0, 1]: PSNR and SSIM on the full frame, PSNR on the inner one (without half a PSF on each side). With ``--data`` the
pictures are those of DIR/set12 and the kernels those of DIR/Levin09.npz (k1 to k8); else both are made from what is at
hand: pictures of scikit-image and random camera paths.

A peer that is not installed is named as missing. deepinv's pseudo-inverse takes as long as all else together, and may
be left out where there are many pairs. ``--write`` puts the table and the plot into the documentation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from skimage import color, data, restoration
from skimage.metrics import structural_similarity

import convpinv
import peers
from harness import Options, Row, given_by, measured, missing, parser, write

Array = np.ndarray[Any, Any]
DOCS = Path(__file__).parent.parent / "docs"
NOISE = 0.01
# Pixels at each side of the whole picture that protocol C leaves out.
CUT = 30
DEEPINV = "deepinv A_dagger"


def pictures(folder: Path | None, protocol: str) -> Iterator[tuple[str, Array]]:
    """Grey pictures with values from 0 to 1."""
    if folder is not None:
        from PIL import Image

        numbers = range(1, 13) if protocol == "C" else (1, 2, 5, 7, 9)
        for number in numbers:
            path = folder / "set12" / f"{number:02d}.png"
            yield f"set12-{number:02d}", np.asarray(Image.open(path).convert("L")) / 255.0
    if protocol == "C":
        return
    for name in ("camera", "astronaut", "coins", "text", "chelsea"):
        picture = getattr(data, name)()
        yield name, color.rgb2gray(picture) if picture.ndim == 3 else picture / 255.0


def kernels(folder: Path | None) -> Iterator[tuple[str, Array]]:
    """Camera shake."""
    if folder is not None:
        measured = np.load(folder / "Levin09.npz")
        for index in range(1, 9):
            kernel = measured[f"k{index}"].astype(float)
            yield f"k{index}", kernel / kernel.sum()
        return
    for seed in range(8):
        yield f"path{seed}", camera_path(15 + 2 * (seed % 5), seed)


def camera_path(size: int, seed: int) -> Array:
    """A hand that shakes: a smoothed random walk, drawn with a soft pen."""
    generator = np.random.default_rng(seed)
    walk = gaussian_filter(np.cumsum(generator.standard_normal((400, 2)), 0), (12, 0))
    walk -= (walk.max(0) + walk.min(0)) / 2
    walk *= (size / 2 - 2) / np.abs(walk).max()
    drawn, _, _ = np.histogram2d(*walk.T, bins=size, range=[[-size / 2, size / 2]] * 2)
    kernel = gaussian_filter(drawn, 0.5)
    return kernel / kernel.sum()


def blurred(picture: Array, kernel: Array, protocol: str, seed: int) -> tuple[Array, Array]:
    """The picture as the camera has it, and the scene under it."""
    generator = np.random.default_rng(seed)
    rows, columns = (k // 2 for k in kernel.shape)
    if protocol != "B":
        seen = fftconvolve(picture, kernel, mode="valid")
        scene = picture[rows : rows + seen.shape[0], columns : columns + seen.shape[1]]
    else:
        padded = np.zeros_like(picture)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        padded = np.roll(padded, (-rows, -columns), (0, 1))
        seen = np.fft.irfft2(np.fft.rfft2(padded) * np.fft.rfft2(picture), picture.shape)
        scene = picture
    return seen + NOISE * generator.standard_normal(seen.shape), scene


def padded_for(kernel: Array, picture: Array) -> tuple[Array, tuple[slice, slice]]:
    """Reflected at the border, as users of tools without a border do, and where the picture then lies."""
    rows, columns = kernel.shape
    inner = (slice(rows, rows + picture.shape[0]), slice(columns, columns + picture.shape[1]))
    return np.pad(picture, ((rows, rows), (columns, columns)), mode="symmetric"), inner


def ours(prior: str, protocol: str) -> Callable[[Array, Array], Array]:
    boundary = "circular" if protocol == "B" else "unknown"
    return lambda y, k: convpinv.deblur(y, k, prior=prior, boundary=boundary)


def richardson_lucy(y: Array, kernel: Array) -> Array:
    padded, inner = padded_for(kernel, y)
    return np.asarray(restoration.richardson_lucy(padded.clip(0, 1), kernel, num_iter=30))[inner]


def unsupervised_wiener(y: Array, kernel: Array) -> Array:
    padded, inner = padded_for(kernel, y)
    return np.asarray(restoration.unsupervised_wiener(padded, kernel, clip=False, rng=0)[0])[inner]


def wiener(y: Array, kernel: Array) -> Array:
    padded, inner = padded_for(kernel, y)
    return np.asarray(restoration.wiener(padded, kernel, 0.1, clip=False))[inner]


def methods(priors: list[str], protocol: str, has_deepinv: bool = True) -> dict[str, Callable[[Array, Array], Array]]:
    found: dict[str, Callable[[Array, Array], Array]] = {
        "blurred": lambda y, _: y,
        "scikit-image wiener, balance 0.1, reflect pad": wiener,
        "scikit-image unsupervised_wiener, reflect pad": unsupervised_wiener,
        "scikit-image richardson_lucy, 30 iterations, reflect pad": richardson_lucy,
    }
    if has_deepinv and peers.installed("deepinv"):
        deepinv = peers.deepinv()

        def pseudo_inverse(y: Array, kernel: Array) -> Array:
            filter_ = torch.from_numpy(kernel)[None, None].float()
            physics = deepinv.physics.Blur(filter=filter_, padding="circular" if protocol == "B" else "valid")
            scene = physics.A_dagger(torch.from_numpy(y)[None, None].float())[0, 0].numpy()
            rows, columns = (0, 0) if protocol == "B" else (k // 2 for k in kernel.shape)
            return scene[rows : rows + y.shape[0], columns : columns + y.shape[1]]

        found[DEEPINV] = pseudo_inverse
    for prior in priors:
        found[f"convpinv {prior}"] = ours(prior, protocol)
    return found


def scored(result: Array, scene: Array, kernel: Array, protocol: str) -> tuple[Array, Array, tuple[slice, ...]]:
    """What of result and scene is compared, and the inner frame of that."""
    halves = [size // 2 for size in kernel.shape]
    if protocol != "C":
        return result, scene, tuple(slice(half, size - half) for half, size in zip(halves, scene.shape, strict=True))
    cut = tuple(slice(CUT - half, size - CUT + half) for half, size in zip(halves, scene.shape, strict=True))
    result, scene = (np.round(255.0 * part[cut]) / 255.0 for part in (result, scene))
    return result, scene, (slice(None), slice(None))


def psnr(result: Array, scene: Array) -> float:
    return float(-10 * np.log10(np.mean((result - scene) ** 2)))


def run(options: argparse.Namespace, given: Options) -> list[Row]:
    rows: list[Row] = []
    contenders = methods(options.priors.split(","), options.protocol, not options.without_deepinv)
    pairs = [(p, k) for p in pictures(options.data, options.protocol) for k in kernels(options.data)]
    for index, ((name, picture), (path, kernel)) in enumerate(pairs):
        if index % options.every or (given.quick and index):
            continue
        y, scene = blurred(picture, kernel, options.protocol, index)
        for method, call in contenders.items():
            start = time.perf_counter()
            result = np.clip(call(y, kernel), 0, 1)
            seconds = time.perf_counter() - start
            result, truth, frame = scored(result, scene, kernel, options.protocol)
            figures = {
                "psnr_inner": psnr(result[frame], truth[frame]),
                "ssim": float(
                    structural_similarity(  # pyright: ignore[reportArgumentType]
                        result, truth, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                    )
                ),
                "seconds_per_megapixel": seconds / y.size * 1e6,
            }
            rows.append(measured(f"{name} {path}", method, [seconds], psnr=psnr(result, truth), figures=figures))
        if DEEPINV not in contenders and not options.without_deepinv:
            rows.append(missing(f"{name} {path}", DEEPINV, "deepinv"))
        found = ", ".join(f"{row['psnr']:.2f}" for row in rows if row["case"] == f"{name} {path}" and "psnr" in row)
        print(f"{name} {path}: {found}", flush=True)
    return rows


def summary(rows: list[Row]) -> list[tuple[str, float, float, float, float, float]]:
    lines = []
    there = [row for row in rows if row["status"] == "measured"]
    for method in dict.fromkeys(str(row["contender"]) for row in there):
        mine = [row for row in there if row["contender"] == method]
        column = {key: [float(row["figures"][key]) for row in mine] for key in mine[0]["figures"]}
        psnrs = [float(row["psnr"]) for row in mine]
        lines.append(
            (
                method,
                statistics.mean(psnrs),
                statistics.mean(column["psnr_inner"]),
                min(psnrs),
                statistics.mean(column["ssim"]),
                statistics.median(column["seconds_per_megapixel"]),
            )
        )
    return lines


def table(lines: list[tuple[str, float, float, float, float, float]]) -> str:
    head = "| method | PSNR | inner frame | worst pair | SSIM | s per megapixel |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {method} | {full:.2f} | {inner:.2f} | {worst:.2f} | {ssim:.3f} | {seconds:.1f} |\n"
        for method, full, inner, worst, ssim, seconds in lines
    )


def into_docs(protocol: str, lines: list[tuple[str, float, float, float, float, float]]) -> None:
    """Put the table between the page's marks, and draw quality against time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    page = DOCS / "restoration.md"
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- protocol {protocol} -->\n", f"<!-- end {protocol} -->"
    before, rest = text.split(begin)
    page.write_text(before + begin + table(lines) + end + rest.split(end)[1], encoding="utf-8")
    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    points = [(method, seconds, full) for method, full, _, _, _, seconds in lines[1:]]
    for method, seconds, full in points:
        mine = method.startswith("convpinv")
        axes.semilogx(seconds, full, "o", color="tab:blue" if mine else "tab:gray")
        # Its label goes below where another point lies just above it.
        crowded = any(0 < other - full < 0.8 and 0.03 < x / seconds < 30 for _, x, other in points)
        axes.annotate(
            method, (seconds, full), xytext=(6, -11 if crowded else 4), textcoords="offset points", fontsize=8
        )
    axes.axhline(lines[0][1], color="tab:red", linewidth=1)
    axes.annotate("blurred", (axes.get_xlim()[0], lines[0][1]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.margins(x=0.25, y=0.1)
    axes.set(xlabel="seconds per megapixel", ylabel="mean PSNR, dB", title=f"Protocol {protocol}, 1 % noise")
    figure.savefig(DOCS / "images" / f"restoration-{protocol.lower()}.png", dpi=120)


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--data", type=Path)
    words.add_argument("--protocol", choices=("A", "B", "C"), default="A")
    words.add_argument("--every", type=int, default=1, help="take one pair in so many")
    words.add_argument("--priors", default="tikhonov,gradient,tv,hyperlaplacian,nonlocal")
    words.add_argument("--without-deepinv", action="store_true", help="leave out the peer that takes longest")
    words.add_argument("--write", action="store_true")
    options = words.parse_args()
    if options.protocol == "C" and options.data is None:
        words.error("protocol C is that of twelve pictures: tell where they lie by --data DIR")
    given = given_by(options)
    rows = run(options, given)
    lines = summary(rows)
    print(table(lines))
    sentence = "Restored pictures are closer to the scene than those of other libraries, nothing tuned by hand."
    write(f"restoration_{options.protocol.lower()}", sentence, rows, given)
    if options.write:
        into_docs(options.protocol, lines)


if __name__ == "__main__":
    main()
