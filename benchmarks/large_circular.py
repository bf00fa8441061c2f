"""Claim: a damped inverse of finite reach costs less than the FFT of the whole picture, in time and in memory.

A Gaussian of 2 pixels, circular, 8192², float32, ``min ‖A x − y‖² + λ‖x‖²`` with λ = 1e-2 (``damp = 0.1``). The
reference is ``irfft2(rfft2(y))`` of the same tensor; the error is to the damped inverse computed in double precision by
one FFT. Memory is resident, of the call alone in a process of its own: all of it, and without the result, which
everyone must hold.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from convpinv import Conv2dOperator, psf
from harness import at_most, compared, interleaved, median_ratio, options, quotient, write
from memory import peak_of

SIGMA = 2.0
DAMP = 0.1
ROUND_TRIP, OURS = "FFT round trip", "convpinv"


def picture(side: int) -> Tensor:
    """Random pixels, the same for everyone."""
    return torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))


def kernel() -> Tensor:
    return psf.gaussian(SIGMA).float()


def operator(side: int) -> Conv2dOperator:
    return Conv2dOperator(kernel()[None, None], side, padding="same", padding_mode="circular")


def call(who: str, side: int) -> Callable[[], Tensor]:
    """What is measured; called in a process of its own too."""
    y = picture(side)
    if who == ROUND_TRIP:
        return lambda: torch.fft.irfft2(torch.fft.rfft2(y), s=(side, side))
    pinv = operator(side).pinv(damp=DAMP)
    return lambda: pinv(y)


def error_of(result: Tensor, y: Tensor) -> float:
    """Relative distance to the damped inverse in double precision; everything is freed as soon as it is used."""
    side = y.shape[-1]
    taps = kernel().double()
    padded = torch.zeros(side, side, dtype=torch.float64)
    padded[: taps.shape[0], : taps.shape[1]] = taps
    # A symmetric kernel: its transfer function is real once its centre is the origin.
    padded = torch.roll(padded, tuple(-(size // 2) for size in taps.shape), (0, 1))
    transfer = torch.fft.rfft2(padded).real
    del padded
    spectrum = torch.fft.rfft2(y[0, 0].double())
    spectrum *= transfer / (transfer.square() + DAMP**2)
    del transfer
    exact = torch.fft.irfft2(spectrum, (side, side))
    del spectrum
    return float((result[0, 0].double() - exact).norm() / exact.norm())


def main() -> None:
    given = options(__doc__)
    rows, bounds = [], []
    for side in (512,) if given.quick else (2048, 4096, 8192):
        case = f"(1, 1, {side}, {side}) float32, gaussian σ = {SIGMA:g}, λ = {DAMP**2:g}"
        calls = {who: call(who, side) for who in (ROUND_TRIP, OURS)}
        facts = {OURS: {"error": error_of(calls[OURS](), picture(side))}, ROUND_TRIP: {}}
        seconds = interleaved(calls, runs=given.runs(7), warmup=1)
        ratio = median_ratio(seconds, OURS, ROUND_TRIP)
        preparation = interleaved({"convpinv, preparation": lambda s=side: operator(s).pinv(damp=DAMP)}, 2, 1)
        del calls
        for who in (ROUND_TRIP, OURS):
            facts[who] |= peak_of("large_circular", "call", who, side)
        rows += compared(case, seconds | preparation, ROUND_TRIP, facts, side=side, dtype="float32")
        if side < 8192 and not given.quick:
            continue
        bounds.append(at_most(f"one application in round trips, {case}", ratio, 0.9))
        bounds.append(at_most(f"error, {case}", facts[OURS]["error"], 1e-5))
        for key, words in (("peak_bytes", "memory"), ("working_bytes", "memory beside the result")):
            share = quotient(facts[OURS].get(key), facts[ROUND_TRIP].get(key))
            bounds.append(at_most(f"{words} of one application, in that of a round trip, {case}", share, 1 / 3))
    write(
        "large_circular",
        "A damped inverse of finite reach costs less than the FFT of the whole picture, in time and in memory.",
        rows,
        given,
        bounds,
    )


if __name__ == "__main__":
    main()
