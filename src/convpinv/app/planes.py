"""A picture's planes, restored one after the other, in light where the file is encoded for the screen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from convpinv.app import axes, stacks
from convpinv.app.console import Working
from convpinv.app.light import Light
from convpinv.app.request import Loaded, Request
from convpinv.arguments import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from convpinv.imaging import DeblurReport


def restored(
    request: Request, loaded: Loaded, psf: Tensor, working: Working | None
) -> tuple[Any, list[tuple[str, DeblurReport]], tuple[str, ...]]:
    """Restore each plane of a picture; return the pixels, the reports, and notes on planes that were left alone."""
    import numpy as np

    from convpinv.imaging import deblur, estimate_noise

    image, light, seen = loaded.image, loaded.light, loaded.seen
    check_device(request.device)
    psf = psf.to(request.device)
    planes = list(axes.planes(image))
    pixels = image.pixels if len(planes) == 1 and not image.axes else image.pixels.copy()
    reports, empty = [], []
    for count, (name, index) in enumerate(planes):
        plane = image.pixels[index]
        if not np.isfinite(plane).any():
            empty.append(name)
            continue
        if working is not None:
            working.name = f"{request.source}, {name}" if name else str(request.source)
        noise, estimated = request.noise, False
        clip, bounds = request.clip, request.bounds
        mask = None if seen is None else seen[index] if seen.ndim > 2 else seen
        if light.curve is not None:
            # The noise of a picture for the screen is nearer to white in its own values; in light it grows with the
            # brightness, and the estimate, which looks at the calmest patches, would be that of the shadows (an eighth
            # of it in a photograph: 12 dB were lost to one pixel of a mask).
            if noise is None:
                noise, estimated = estimate_noise(plane, mask=mask), True
            noise = None if noise is None else light.curve.noise(noise, plane)
            plane = light.curve.decode(plane)
            clip, bounds = (_in_light(limits, light) for limits in (clip, bounds))
        result = deblur(
            plane_tensor(plane, request.device),
            stacks.psf_of_plane(psf, image, index),
            noise=noise,
            prior=request.prior,
            boundary=request.boundary,
            strength=request.strength,
            mask=mask,
            clip=clip,
            bounds=bounds,
            exponent=request.exponent,
            full_output=True,
            noise_is_estimate=estimated,
            progress=working if len(planes) == 1 else None,
        )
        if working is not None:
            working(count + 1, len(planes))
        found = to_pixels(result.image)
        found = found if light.curve is None else light.curve.encode(found)
        if pixels is image.pixels:
            pixels = found
        else:
            pixels[index] = found
        said = result.report
        if light.curve is not None and noise is not None:
            rule = f"{said.noise_rule}, in the values of the file; here as its root mean square in light"
            said = dataclasses.replace(said, noise_rule=rule)
        reports.append((name, said))
    left = ()
    if empty:
        others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        left = (f"plane {empty[0]}{others} holds no number at all and was left as it is",)
    return pixels, reports, left


def _in_light(limits: Any, light: Light) -> Any:
    """Return limits in the values of the file as limits in light."""
    import numpy as np

    if not isinstance(limits, tuple) or light.curve is None:
        return limits
    decode = light.curve.decode
    return tuple(None if end is None else float(decode(np.array([end], dtype=np.float64))[0]) for end in limits)


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise ArgumentError(f"--device {device}: torch sees no such device here; use --device cpu")


def plane_tensor(pixels: Any, device: str = "cpu") -> Tensor:
    """Return one plane, (H, W) or (H, W, C), as torch holds pictures."""
    import numpy as np
    import torch

    check_device(device)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes)).to(device)


def to_pixels(tensor: Tensor) -> Any:
    """Return (C, H, W) as the pixels of a picture: (H, W) or (H, W, C)."""
    array = tensor.detach().cpu().numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
