"""The peers, each imported where it is installed, each called as its documentation says.

Everything takes and gives torch tensors (pictures (1, 1, H, W), kernels (h, w) as torch's layers have them: the
correlation), so that a claim times the peer and not the way to it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
Iterate = Callable[[int], Tensor]
KEPT: list[torch.library.Library] = []


def installed(package: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(package) is not None


@cache
def deepinv() -> Any:
    """Import deepinv, which imports torchvision.

    torchvision's wheel on PyPI is built for torch's CUDA wheel; beside torch's CPU wheel its library does not load, and
    the import fails on describing two operators that it then lacks. Declared by name they let it import; nothing that
    is measured here calls them.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)  # the declarations live as long as it does
    return importlib.import_module("deepinv")


def deepinv_kernel(kernel: Tensor) -> Tensor:
    """deepinv convolves, torch correlates."""
    return kernel.flip(-1, -2)[None, None].contiguous()


def complex_recipe(y: Tensor, kernel: Tensor) -> Tensor:
    """What people write in ten lines: pad the kernel, three complex FFTs of full size, divide where it is safe."""
    padded = torch.zeros(y.shape[-2:], dtype=y.dtype)
    rows, columns = kernel.shape
    padded[:rows, :columns] = kernel.flip(-1, -2)
    padded = torch.roll(padded, (-(rows // 2), -(columns // 2)), (0, 1))
    transfer = torch.fft.fft2(padded)
    power = transfer.abs() ** 2
    inverse = torch.where(power > 1e-12, transfer.conj() / power.clamp_min(1e-12), 0)
    return torch.fft.ifft2(torch.fft.fft2(y) * inverse).real


def deepinv_valid(
    y: Tensor, kernel: Tensor, damp_squared: float, solver: str, use_fft: bool, tolerance: float = 0.0
) -> Iterate:
    """``prox_l2`` from 0, which is the damped problem, for a given number of iterations."""
    physics = deepinv().physics.Blur(filter=deepinv_kernel(kernel), padding="valid", use_fft=use_fft)
    return lambda iterations: physics.prox_l2(
        0.0, y, 1 / damp_squared, solver=solver, max_iter=iterations, tol=tolerance
    )


def deepinv_default(y: Tensor, kernel: Tensor, damp_squared: float, use_fft: bool = False) -> Callable[[], Tensor]:
    """The same with nothing said about iterations: conjugate gradients, 50 of them."""
    physics = deepinv().physics.Blur(filter=deepinv_kernel(kernel), padding="valid", use_fft=use_fft)
    return lambda: physics.prox_l2(0.0, y, 1 / damp_squared)


def pylops_operator(kernel: Tensor, size: tuple[int, int]) -> Any:
    """PyLops' FFT convolution of a picture of this size, cut to what is *valid*."""
    pylops = importlib.import_module("pylops")
    values = np.ascontiguousarray(kernel.flip(-1, -2).numpy())
    middle = [taps // 2 for taps in values.shape]
    blur = pylops.signalprocessing.Convolve2D(size, h=values, offset=middle, method="fft", dtype=values.dtype)
    # Its output has the picture's size, the kernel's tap at ``offset`` over each pixel.
    first = [taps - 1 - before for taps, before in zip(values.shape, middle, strict=True)]
    inside = [
        np.arange(start, start + length - taps + 1)
        for start, length, taps in zip(first, size, values.shape, strict=True)
    ]
    places = np.ravel_multi_index(np.ix_(*inside), size).ravel()
    return pylops.Restriction(size[0] * size[1], places, dtype=values.dtype) * blur


def pylops_lsqr(y: Tensor, kernel: Tensor, damp_squared: float) -> Iterate:
    """PyLops: its FFT convolution and its own LSQR."""
    basic = importlib.import_module("pylops.optimization.basic")
    size = (y.shape[-2] + kernel.shape[0] - 1, y.shape[-1] + kernel.shape[1] - 1)
    matrix = pylops_operator(kernel, size)
    data = y.numpy().ravel()
    damp = damp_squared**0.5

    def iterate(iterations: int) -> Tensor:
        start = np.zeros(size[0] * size[1], data.dtype)
        with threads():
            found = basic.lsqr(matrix, data, start, damp, atol=0, btol=0, conlim=0, niter=iterations)
        return torch.from_numpy(np.asarray(found[0])).reshape(1, 1, *size)

    return iterate


def threads() -> Any:
    """SciPy's FFTs take one thread unless told; here they get as many as torch has."""
    return importlib.import_module("scipy.fft").set_workers(torch.get_num_threads())


def scipy_lsmr(y: Tensor, kernel: Tensor, damp_squared: float) -> Iterate:
    """SciPy: ``fftconvolve`` of mode *valid*, its adjoint of mode *full*, and LSMR."""
    linalg = importlib.import_module("scipy.sparse.linalg")
    convolve = importlib.import_module("scipy.signal").fftconvolve
    values = kernel.numpy()
    turned = np.ascontiguousarray(values[::-1, ::-1])
    shape = y.shape[-2:]
    size = (shape[0] + values.shape[0] - 1, shape[1] + values.shape[1] - 1)
    matrix = linalg.LinearOperator(
        (shape[0] * shape[1], size[0] * size[1]),
        matvec=lambda x: convolve(x.reshape(size), turned, mode="valid").ravel(),
        rmatvec=lambda u: convolve(u.reshape(shape), values, mode="full").ravel(),
        dtype=values.dtype,
    )
    data = y.numpy().ravel()

    def iterate(iterations: int) -> Tensor:
        with threads():
            found = linalg.lsmr(matrix, data, damp=damp_squared**0.5, atol=0, btol=0, conlim=0, maxiter=iterations)
        return torch.from_numpy(found[0]).reshape(1, 1, *size)

    return iterate


def richardson_lucy(y: Array, kernel: Array, iterations: int = 30) -> Array:
    """scikit-image's, on a picture that is continued by reflection, as users of tools without a border do."""
    restoration = importlib.import_module("skimage.restoration")
    rows, columns = kernel.shape
    padded = np.pad(y, ((rows, rows), (columns, columns)), mode="reflect").clip(0, 1)
    with threads():
        restored = restoration.richardson_lucy(padded, kernel, num_iter=iterations)
    return np.asarray(restored)[rows : rows + y.shape[0], columns : columns + y.shape[1]]
