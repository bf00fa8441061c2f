"""Claim: pictures encoded for the screen are restored in light, not in the file's values.

Photographs of scikit-image, 256², blurred in light, encoded by sRGB, noise of 0.5 and 1 % added to the encoded values
and rounded to 8 bits: what a camera's file holds. Each is restored by the command's own path with ``--linear`` off and
auto, nothing else given; the figures are peak signal-to-noise ratios of the written 8-bit files against the truth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from skimage import data

from convpinv.app import images, outputs, raster, restoring
from convpinv.app.blurring import window
from convpinv.app.light import SRGB
from convpinv.imaging import blur, psf
from harness import at_least, measured, options, write

PICTURES = {
    "astronaut": lambda: data.astronaut()[:256, 120:376],
    "coffee": lambda: data.coffee()[60:316, 150:406],
    "chelsea": lambda: data.chelsea()[20:276, 100:356],
    "camera": lambda: data.camera()[100:356, 150:406],
}
BLURS = ("gaussian:sigma=1.6", "motion:length=11,angle=30", "motion:length=21,angle=30", "defocus:radius=4")
NOISE = (0.005, 0.01)


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((picture.astype(np.float64) - truth) ** 2)))


def restored(source: Path, spec: str, linear: str) -> np.ndarray:
    target = source.with_name(f"{linear}.png")
    restoring.deblur_file(restoring.Request(source, target, spec, linear=linear, overwrite=True))
    return images.read(target).pixels


def main() -> None:
    given = options(__doc__)
    rows: list[dict[str, Any]] = []
    gains: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "blurred.png")
        for name, load in list(PICTURES.items())[: 1 if given.quick else None]:
            truth = load() / 255.0
            for spec in BLURS[: 1 if given.quick else None]:
                light = blur(SRGB.decode(truth), spec, boundary="valid")
                top, left = window(psf.parse(spec).shape[-2:])
                cut = truth[top : top + light.shape[0], left : left + light.shape[1]]
                for noise in NOISE[: 1 if given.quick else None]:
                    seen = SRGB.encode(light) + noise * np.random.default_rng(0).standard_normal(light.shape)
                    image = raster.Image(pixels=seen, dtype="uint8", format="png")
                    outputs.write_all({source: images.encode(image, source)[0]})
                    off, auto = (psnr(restored(source, spec, word), cut) for word in ("off", "auto"))
                    case = f"{name}, {spec}, noise {noise:.1%}"
                    blurred = psnr(images.read(source).pixels, cut)
                    found = {"blurred": blurred, "convpinv, light off": off, "convpinv, light auto": auto}
                    rows += [measured(case, who, psnr=value, figures={"noise": noise}) for who, value in found.items()]
                    gains.append(auto - off)
                    print(f"{case}: blurred {blurred:.2f} dB, off {off:.2f}, auto {auto:.2f} ({auto - off:+.2f})")
    print(f"gain {min(gains):+.2f} to {max(gains):+.2f} dB, mean {np.mean(gains):+.2f}")
    bounds = [at_least("mean gain of restoring in light, dB", float(np.mean(gains)), 0)]
    write(
        "linear_light",
        "Pictures encoded for the screen are restored in light, not in the file's values.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
