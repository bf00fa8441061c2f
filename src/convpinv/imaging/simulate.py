"""What a camera would have made of a scene: for demonstrations, tests and the command line's ``blur``."""

from __future__ import annotations

from typing import Any

import torch

from convpinv import arguments
from convpinv.arguments import Boundary
from convpinv.imaging import psf_parse
from convpinv.linalg import Conv2dOperator

__all__ = ["blur"]

VALID = "valid"


def blur(image: Any, psf: Any, noise: float = 0.0, seed: int | None = None, boundary: str = VALID) -> Any:
    """Blur a picture by a PSF and add white Gaussian noise.

    ``y[i] = Σ_m psf[m] x[i − (m − centre)] + noise · n[i]``, a convolution with the centre ``(h // 2, w // 2)``.

    Parameters
    ----------
    image
        Array ``(H, W)`` or ``(H, W, C)``; or tensor ``(H, W)``, ``(C, H, W)`` or ``(B, C, H, W)``.
    psf
        As in :func:`convpinv.deblur`: ``(h, w)`` or ``(C, h, w)``, or a text; scaled to sum 1.
    noise
        Standard deviation in the picture's units, at least 0.
    seed
        Seed of the noise; None draws another one each time.
    boundary
        ``"valid"``: only pixels whose whole surroundings are in the picture, ``(H − h + 1, W − w + 1)``, as a camera
        sees a scene that goes on; pixel (0, 0) then lies at ``(h − 1 − h // 2, w − 1 − w // 2)`` of the picture.
        ``"circular"``, ``"zeros"``, ``"reflect"`` or ``"replicate"``: the same size as the picture.

    Returns
    -------
    numpy.ndarray or Tensor
        Same kind, device and floating dtype as ``image``; integers give float32 in the same units. Not clipped.

    Raises
    ------
    ArgumentError
        If an argument is not what is said above.

    Notes
    -----
    Cost: one convolution a plane, by FFT for large PSFs.

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> imaging.blur(np.ones((32, 48)), "motion:length=9").shape
    (32, 40)
    """
    call = "blur"
    pictures = arguments.pictures(call, "image", image, largest_ndim=4)
    kernels = psf_parse.for_pictures(call, psf, pictures)
    deviation = arguments.non_negative(call, "noise", noise)
    boundary = arguments.choice(call, "boundary", boundary, (VALID, *(str(mode) for mode in Boundary)))
    seed = None if seed is None else arguments.seed(call, "seed", seed)

    stack = pictures.stack
    size = (stack.shape[-2], stack.shape[-1])
    padding: dict[str, Any] = {} if boundary == VALID else {"padding": "same", "padding_mode": boundary}
    cameras = [Conv2dOperator(kernel.flip(-2, -1)[None, None], size, **padding) for kernel in kernels]
    seen = torch.cat([cameras[index % len(cameras)](plane[None]) for index, plane in enumerate(stack)])
    if deviation > 0:
        # Drawn on the CPU, so that a seed gives the same noise on every device.
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        draw = torch.randn(seen.shape, generator=generator, dtype=torch.float64)
        seen = seen + deviation * draw.to(seen)
    return pictures.restored(arguments.result_fits(call, seen, pictures.dtype))
