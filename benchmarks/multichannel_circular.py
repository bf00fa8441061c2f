"""Claim: a circular layer of many channels is prepared in a fraction of what ``torch.linalg.pinv`` takes.

3 × 3 layers at 64 × 64, damp² = 1e-2, float32. The reference prepares the same damped inverse of the same half of the
frequencies by torch: of each frequency's matrix K, ``pinv`` of K stacked on ``damp·I``, of which the first columns are
``(KᴴK + damp²)⁻¹Kᴴ``; beside it, ``pinv`` of K alone, which solves another problem but is what people call. Applying to
a batch of 32 stands beside the FFT round trip of that batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator
from harness import (
    at_least,
    at_most,
    compared,
    interleaved,
    median_ratio,
    options,
    write,
)

DAMP = 0.1
BATCH = 32
PINV, STACKED = "torch.linalg.pinv per frequency", "torch.linalg.pinv per frequency, damped by stacking"


def matrices(weight: Tensor, side: int) -> Tensor:
    """The layer's matrix at each frequency of the half-spectrum, (H, W/2+1, Cout, Cin)."""
    padded = torch.fft.rfft2(weight, (side, side)).conj()
    # The kernel's centre is its origin.
    rows = torch.fft.fftfreq(side)[:, None]
    columns = torch.fft.rfftfreq(side)[None]
    phase = torch.exp(-2j * torch.pi * (rows + columns) * (weight.shape[-1] // 2))
    return (padded * phase).permute(2, 3, 0, 1).contiguous()


def stacked(symbol: Tensor) -> Tensor:
    """``(KᴴK + damp²)⁻¹Kᴴ`` as a pseudo-inverse."""
    damping = DAMP * torch.eye(symbol.shape[-1], dtype=symbol.dtype).expand(*symbol.shape[:-2], -1, -1)
    return torch.linalg.pinv(torch.cat([symbol, damping], -2))[..., : symbol.shape[-2]]


def by_matrices(inverse: Tensor, y: Tensor) -> Tensor:
    """Apply prepared matrices: what shows that the reference prepares the same thing."""
    product = torch.einsum("hwio,bohw->bihw", inverse, torch.fft.rfft2(y))
    return torch.fft.irfft2(product, y.shape[-2:])


def main() -> None:
    given = options(__doc__)
    side = 16 if given.quick else 64
    rows, bounds = [], []
    for channels in (4,) if given.quick else (16, 64):
        case = f"{channels} → {channels} channels, 3 x 3, {side}², damp² = {DAMP**2:g}, float32"
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(channels, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
        operator = Conv2dOperator(weight, side, padding=1, padding_mode="circular")
        y = torch.randn(BATCH, channels, side, side, generator=generator)
        pinv = operator.pinv(damp=DAMP)
        exact = by_matrices(stacked(matrices(weight.double(), side)), y.double())
        error = float((pinv(y) - exact).norm() / exact.norm())

        def prepare(o: Conv2dOperator = operator) -> Any:
            return o.pinv(damp=DAMP)

        seconds = interleaved(
            {
                "convpinv, preparation": prepare,
                PINV: lambda w=weight: torch.linalg.pinv(matrices(w, side)),
                STACKED: lambda w=weight: stacked(matrices(w, side)),
            },
            runs=given.runs(5),
            warmup=1,
        )
        rows += compared(f"{case}: preparation", seconds, PINV, {"convpinv, preparation": {"error": error}})
        faster = 1 / median_ratio(seconds, "convpinv, preparation", PINV)
        bounds.append(at_least(f"preparation, times faster than {PINV}, {case}", faster, 5))
        seconds = interleaved(
            {
                "FFT round trip": lambda y=y: torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[-2:]),
                "convpinv": lambda p=pinv, y=y: p(y),
            },
            runs=given.runs(11),
        )
        rows += compared(
            f"{case}: a batch of {BATCH}", seconds, "FFT round trip", {"convpinv": {"error": error}}, side=side
        )
        ratio = median_ratio(seconds, "convpinv", "FFT round trip")
        bounds.append(at_most(f"a batch of {BATCH} in round trips, {case}", ratio, 3))
    write(
        "multichannel_circular",
        "A circular layer of many channels is prepared in a fraction of what torch.linalg.pinv takes.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
