"""``convpinv demo``: a real photograph, blurred as a shaken camera blurs it, and restored from the written file."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import blurring, images, outputs, psf_source, raster, restoring
from convpinv.app.files import MissingExtraError, TargetError, reason
from convpinv.app.raster import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PSF = "motion:length=21,angle=30"
NOISE = 0.01
SEED = 1
FRAME = 8
_FILES = ("sharp.png", "blurred.png", "restored.png", "panel.png", "report.json")


def run(folder: Path, say: Callable[[str], None]) -> None:
    """Make the demo in a folder; its own files of an earlier run are replaced.

    Parameters
    ----------
    folder
        Where the pictures go; made if it does not exist.
    say
        Receives each line of the story as it happens.
    """
    photograph = _photograph()
    _make(folder)
    path = {name: folder / name for name in _FILES}
    for target in path.values():
        outputs.check_target(target, overwrite=True)

    sharp = Image(pixels=raster.unit_range(photograph), dtype="uint8", format="png")
    outputs.write_all({path["sharp.png"]: images.encode(sharp, path["sharp.png"])[0]})
    say(f"{path['sharp.png']}: a real photograph (scikit-image's astronaut, by NASA), {sharp.describe()}")

    for line in blurring.blur_file(
        blurring.Request(path["sharp.png"], path["blurred.png"], PSF, noise=NOISE, seed=SEED, overwrite=True)
    ):
        say(f"  {line}")
    say(f"  noise     {NOISE:.0%} of full scale, then rounded to 8 bits: what follows knows the file and the PSF only")

    outcome = restoring.deblur_file(
        restoring.Request(path["blurred.png"], path["restored.png"], PSF, report=path["report.json"], overwrite=True)
    )
    say(f"convpinv deblur {path['blurred.png']} {path['restored.png']} --psf {PSF}")
    for line in outcome.lines:
        say(f"  {line}")

    blurred, restored = images.read(path["blurred.png"]).pixels, images.read(path["restored.png"]).pixels
    top, left = blurring.window(psf_source.load(PSF).psf.shape[-2:])
    truth = sharp.pixels[top : top + blurred.shape[0], left : left + blurred.shape[1]]
    before, after = psnr(blurred, truth), psnr(restored, truth)
    captions = (f"blurred, {before:.1f} dB", f"restored, {after:.1f} dB", "the truth")
    outputs.write_all({path["panel.png"]: _panel((blurred, restored, truth), captions)})
    say("against the truth, peak signal-to-noise ratio of the written files:")
    say(_comparison("whole picture", before, after))
    say(_comparison(f"outermost {FRAME} pixels", psnr(blurred, truth, FRAME), psnr(restored, truth, FRAME)))
    say(f"{path['panel.png']}: blurred, restored and true, side by side")


def psnr(picture: NDArray[Any], truth: NDArray[Any], frame: int | None = None) -> float:
    """Return the peak signal-to-noise ratio in decibels, on the whole picture or on its outermost pixels only."""
    import numpy as np

    squares = (picture.astype(np.float64) - truth) ** 2
    if frame is not None:
        outside = np.ones(squares.shape[:2], dtype=bool)
        outside[frame:-frame, frame:-frame] = False
        squares = squares[outside]
    return -10 * math.log10(float(squares.mean()))


def _comparison(what: str, before: float, after: float) -> str:
    return f"  {what:<20} {before:5.2f} dB -> {after:5.2f} dB  ({after - before:+.2f})"


def _photograph() -> NDArray[Any]:
    try:
        from skimage import data
    except ImportError:
        raise MissingExtraError("the demo's photograph comes with scikit-image: pip install 'convpinv[demo]'") from None
    return data.astronaut()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise TargetError(folder, "is a file; name a folder for the demo") from None
    except OSError as error:
        problem = f"the folder cannot be made ({reason(error)}); choose another"
        raise TargetError(folder, problem) from None


def _panel(pictures: tuple[NDArray[Any], ...], captions: tuple[str, ...]) -> bytes:
    """Draw pictures side by side, each under its caption."""
    import numpy as np
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    gap, bar = 12, 44
    height, width = pictures[0].shape[:2]
    panel = Pillow.new("RGB", (len(pictures) * (width + gap) + gap, height + bar + gap), "white")
    draw, font = ImageDraw.Draw(panel), ImageFont.load_default(size=26)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = gap + index * (width + gap)
        draw.text((left + width // 2, bar // 2), caption, fill="black", font=font, anchor="mm")
        stored = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        panel.paste(Pillow.fromarray(stored), (left, bar))
    buffer = io.BytesIO()
    panel.save(buffer, "PNG")
    return buffer.getvalue()
