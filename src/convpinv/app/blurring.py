"""``convpinv blur``: blur a picture file as a camera does, to try things out on known ground."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from convpinv.app import images, outputs, psf_source, raster
from convpinv.app.console import Working, row
from convpinv.app.restoring import clipped_line, to_pixels, to_tensor


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of ``convpinv blur``."""

    source: Path
    target: Path
    psf: str
    noise: float = 0.0
    seed: int | None = None
    boundary: str = "valid"
    overwrite: bool = False


def blur_file(request: Request) -> tuple[str, ...]:
    """Blur one file and return the lines that say what was done.

    Parameters
    ----------
    request
        The files and the options.

    Returns
    -------
    tuple of str
        The summary.

    Raises
    ------
    ConvpinvError
        Of the class that says whether the input or the work was at fault. No file is left behind then.
    """
    outputs.check_targets(
        {"OUT": request.target},
        {"IN": request.source, "--psf": psf_source.file_of(request.psf)},
        overwrite=request.overwrite,
        replaceable={("OUT", "IN")},
    )
    images.format_of(request.target)
    image = images.read(request.source)
    images.check_format(image, request.target)
    source = psf_source.load(request.psf)

    from convpinv.imaging import blur

    with Working(str(request.source)):
        blurred = blur(to_tensor(image), source.psf, noise=request.noise, seed=request.seed, boundary=request.boundary)
        pixels = to_pixels(blurred)
    top, left = window(source.psf.shape[-2:]) if request.boundary == "valid" else (0, 0)
    result = image.with_pixels(pixels, top, left)
    data, clipped = images.encode(result, request.target)
    outputs.write_all({request.target: data})
    rows = [("wrote", f"{request.target}: {result.describe()}"), ("psf", source.text)]
    if pixels.shape[:2] != image.pixels.shape[:2]:
        text = (
            f"{raster.size_text(image.pixels.shape)} became {raster.size_text(pixels.shape)}: near the border the "
            "light comes from outside the picture, and a camera records none of what lies there"
        )
        rows.append(("size", text))
    rows.append(("clipped", clipped_line(result, clipped)))
    rows += [("note", note) for note in (*image.remarks, *source.notes)]
    return tuple(line for name, text in rows for line in row(name, text))


def window(psf_size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (top, left) pixel of a picture where its valid convolution begins."""
    # The rule that imaging.blur documents: h − 1 − h // 2, since the convolution turns the PSF round its centre h // 2.
    return (psf_size[0] - 1) // 2, (psf_size[1] - 1) // 2
