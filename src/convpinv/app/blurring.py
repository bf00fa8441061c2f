"""``convpinv blur``: blur a picture file as a camera does, to try things out on known ground."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convpinv.app import axes, images, outputs, psf_source, raster, stacks
from convpinv.app.console import Working, row
from convpinv.app.light import Light, choose, for_screen
from convpinv.app.planes import plane_tensor, to_pixels
from convpinv.app.restoring import clipped_line

if TYPE_CHECKING:
    from torch import Tensor


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
    linear: str = "auto"
    axes: str | None = None


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
    image = images.read(request.source, stacks=True, axes=axes.parse(request.axes))
    images.check_format(image, request.target)
    source = psf_source.load(request.psf)

    light = choose(image, request.linear)
    with Working(str(request.source)):
        pixels = _blurred(image, source.psf, light, request)
    top, left = window(source.psf.shape[-2:]) if request.boundary == "valid" else (0, 0)
    result = image.with_pixels(pixels, top, left)
    shown, curve_note = for_screen(result, images.format_of(request.target), request.linear)
    data, clipped = images.encode(shown, request.target)
    outputs.write_all({request.target: data})
    lost = images.losses(image, request.target)
    rows = [("wrote", f"{request.target}: {result.describe()}"), ("psf", source.text)]
    rows.append(("light", light.text))
    if result.size != image.size:
        text = (
            f"{raster.size_text(image.size)} became {raster.size_text(result.size)}: near the border the "
            "light comes from outside the picture, and a camera records none of what lies there"
        )
        rows.append(("size", text))
    rows.append(("clipped", clipped_line(result, clipped)))
    rows += [("note", note) for note in (*image.remarks, *source.notes, *lost, *curve_note)]
    return tuple(line for name, text in rows for line in row(name, text))


def _blurred(image: raster.Image, psf: Tensor, light: Light, request: Request) -> Any:
    """Blur each plane of a picture in light, and add noise to the values as the file holds them."""
    import numpy as np

    from convpinv.imaging import blur

    found = []
    for count, (_, index) in enumerate(axes.planes(image)):
        plane = light.of(image.pixels[index])
        kernel = stacks.psf_of_plane(psf, image, index)
        # The planes of a stack have noise of their own; that of a single picture is the seed's.
        seed = None if request.seed is None else request.seed + count
        straight = request.noise if light.curve is None else 0.0
        blurred = blur(plane_tensor(plane), kernel, noise=straight, seed=seed, boundary=request.boundary)
        if light.curve is not None:
            values = plane_tensor(light.curve.encode(to_pixels(blurred)))
            blurred = blur(values, "box:size=1", noise=request.noise, seed=seed, boundary="circular")
        found.append(to_pixels(blurred))
    return found[0] if not image.axes else np.stack(found).reshape((*image.stack_shape, *found[0].shape))


def window(psf_size: tuple[int, ...]) -> tuple[int, int]:
    """Return the (top, left) pixel of a picture where its valid convolution begins."""
    # The rule that imaging.blur documents: h − 1 − h // 2, since the convolution turns the PSF round its centre h // 2.
    return (psf_size[0] - 1) // 2, (psf_size[1] - 1) // 2
