"""A PSF from a sharp and a blurred picture of the same scene: our pseudo-inverse with the picture as the kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.psf_solve import non_negative_least_squares

__all__ = ["PairPsf", "from_pair"]

# More unknowns would need gigabytes and minutes: 101 x 101.
MOST_TAPS = 10_201
# Damping tried, against the largest eigenvalue of the normal equations: from none to one that leaves nothing.
STRENGTHS = torch.logspace(-14, 1, 121, dtype=torch.float64)
# The window follows the light so many times; it stands still after one or two.
MOVES = 4
# Whether the pictures show one scene: a PSF explains much of one, and only chance of another.
LEAST_EXPLAINED = 0.5


@dataclass(frozen=True)
class PairPsf:
    """A PSF found between two pictures.

    ``psf`` (h, w) has sum 1 and ``uncertainty`` (h, w) is one standard deviation of each of its values. ``shift`` is by
    how many rows and columns the blurred picture lies lower and further right than the sharp one; ``gain`` and
    ``offset`` are what its values were multiplied by and raised by; ``noise`` is what the PSF leaves unexplained, in
    the blurred picture's units; ``strength`` is the damping chosen, against the largest squared singular value.
    """

    psf: Tensor
    uncertainty: Tensor
    shift: tuple[int, int]
    gain: float
    offset: float
    noise: float
    strength: float


def from_pair(
    sharp: Any, blurred: Any, size: Any, *, align: bool = True, non_negative: bool = True, strength: float | None = None
) -> PairPsf:
    """Find the PSF that makes a blurred picture of a sharp one.

    Minimises ``‖valid(sharp ∗ k) + offset − blurred‖² + strength · s₁² ‖k‖²`` over the taps k, with ``s₁`` the largest
    singular value of the convolution by the sharp picture (its mean removed): the damped pseudo-inverse with the
    picture as the kernel. The strength has the largest marginal likelihood.

    Parameters
    ----------
    sharp, blurred
        Arrays or tensors ``(H, W)``, in linear light. The blurred picture may be as large as the sharp one, or smaller:
        its middle then lies on the middle of the sharp one, as :func:`convpinv.blur` leaves it. Their values may
        differ by a gain and an offset.
    size
        Rows and columns of the PSF: an odd integer or a pair of them, at most 101 x 101 in all. Larger than the light
        does no harm but for its noise; smaller cuts it off.
    align
        True allows the pictures to be shifted against each other by whole pixels: the shift is found by phase
        correlation, corrected until the PSF's centre of mass lies within half a pixel of its centre, and reported.
        False takes them as aligned, and keeps a PSF that lies to one side where it is.
    non_negative
        Whether the taps are kept at 0 or above, as light is.
    strength
        The damping, above 0, relative to the largest squared singular value; None chooses it.

    Returns
    -------
    PairPsf
        ``psf`` and ``uncertainty`` ``(h, w)``, float64, on the CPU; ``shift``, ``gain``, ``offset``, ``noise``,
        ``strength``.

    Raises
    ------
    ArgumentError
        If the pictures do not fit each other or the size, do not vary, or no PSF of that size explains half of the
        blurred picture's variance.

    Notes
    -----
    Cost: ``2 h w`` passes over the picture for the normal equations, which hold every valid pixel exactly, and
    O((h w)³) to solve them: seconds for 31 x 31 on 256 x 256, minutes for the largest. The uncertainty is that of the
    posterior with white noise and white taps, before any tap is held at 0; where the pictures differ by more than blur
    and noise (distortion, other light) it is too small. Assumed: the sharp picture is sharp and free of noise; noise in
    it makes the PSF too faint at its fine detail.

    Examples
    --------
    >>> import numpy as np
    >>> import convpinv.imaging as imaging
    >>> scene = np.kron(np.random.default_rng(0).random((12, 12)), np.ones((6, 6)))
    >>> seen = imaging.blur(scene, "motion:length=5", noise=0.001, seed=0)
    >>> found = imaging.psf.from_pair(scene, seen, (1, 7))
    >>> found.psf.mul(100).round()
    tensor([[ 0., 20., 20., 20., 20., 20.,  0.]], dtype=torch.float64)
    """
    call = "psf.from_pair"
    first, second = _plane(call, "sharp", sharp), _plane(call, "blurred", blurred)
    rows, columns = arguments.integer_pair(call, "size", size, 1)
    for side in (rows, columns):
        arguments.odd_size(call, "size", side)
    if rows * columns > MOST_TAPS:
        arguments.fail(call, "size", f"{rows}x{columns}", f"it may have {MOST_TAPS} taps, 101x101, at most")
    weight = None if strength is None else arguments.positive(call, "strength", strength)
    spare = tuple(m - n for m, n in zip(first.shape, second.shape, strict=True))
    if min(spare) < 0:
        was = f"{second.shape[0]} x {second.shape[1]} pixels"
        arguments.fail(call, "blurred", was, f"it must not be larger than the sharp one, {tuple(first.shape)}")
    for name, plane in (("sharp", first), ("blurred", second)):
        if float(plane.std(correction=0)) <= 1e-9 * float(plane.abs().max()):
            arguments.fail(call, name, "constant", "it must show a scene")

    origin = (spare[0] // 2, spare[1] // 2)
    shift = _phase_shift(first, second, origin) if align else (0, 0)
    found = _fitted(call, first, second, (rows, columns), origin, shift, weight, non_negative)
    for _ in range(MOVES if align else 0):
        taps = found.psf.clamp(min=0)
        total = taps.sum()
        middle = (
            float((taps.sum(1) * torch.arange(rows)).sum() / total) - rows // 2,
            float((taps.sum(0) * torch.arange(columns)).sum() / total) - columns // 2,
        )
        step = (round(middle[0]), round(middle[1]))
        if step == (0, 0):
            break
        shift = (shift[0] + step[0], shift[1] + step[1])
        found = _fitted(call, first, second, (rows, columns), origin, shift, weight, non_negative)
    return found


def _plane(call: str, name: str, value: Any) -> Tensor:
    pictures = arguments.pictures(call, name, value, largest_ndim=4)
    if len(pictures.stack) != 1:
        arguments.fail(call, name, arguments.describe(value), "it must be one plane (H, W); take a channel")
    return pictures.stack[0].to("cpu", torch.float64)


def _phase_shift(sharp: Tensor, blurred: Tensor, origin: tuple[int, int]) -> tuple[int, int]:
    """Return by how much the blurred picture lies lower and further right than it should, by phase correlation.

    Weighted by the spectra's root, which favours what both pictures hold over the noise that whitening would raise.
    """
    height, width = blurred.shape
    part = sharp[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
    window = torch.hann_window(height + 2, periodic=False, dtype=torch.float64)[1:-1, None]
    window = window * torch.hann_window(width + 2, periodic=False, dtype=torch.float64)[1:-1]
    spectra = [torch.fft.rfft2(window * (plane - plane.mean())) for plane in (part, blurred)]
    cross = spectra[1] * spectra[0].conj()
    correlation = torch.fft.irfft2(cross / cross.abs().sqrt().clamp(min=1e-300), (height, width))
    index = int(correlation.argmax())
    row, column = index // width, index % width
    return (row - height if row > height // 2 else row), (column - width if column > width // 2 else column)


def _fitted(
    call: str,
    sharp: Tensor,
    blurred: Tensor,
    size: tuple[int, int],
    origin: tuple[int, int],
    shift: tuple[int, int],
    strength: float | None,
    non_negative: bool,
) -> PairPsf:
    # Pixel i of the blurred picture is Σ_m k[m] sharp[i + start + 2 · reach − m]: which i have all of them?
    reach = (size[0] // 2, size[1] // 2)
    parts = []
    for axis in (0, 1):
        start = origin[axis] - shift[axis] - reach[axis]
        low = max(0, -start)
        high = min(blurred.shape[axis], sharp.shape[axis] - start - size[axis] + 1)
        parts.append((low, high, start + low))
    (top, bottom, row), (left, right, column) = parts
    pixels = (bottom - top) * (right - left) if bottom > top and right > left else 0
    if pixels < 2 * size[0] * size[1]:
        was = f"{size[0]}x{size[1]}"
        arguments.fail(call, "size", was, f"the pictures overlap in {pixels} pixels only: twice its taps are needed")
    seen = blurred[top:bottom, left:right]
    scene = sharp[row : row + bottom - top + size[0] - 1, column : column + right - left + size[1] - 1]
    # Both to zero mean and unit scale: it makes the sums exact, and the gain and offset come out at the end.
    unit, level = float(scene.std(correction=0)), float(scene.mean())
    if unit == 0.0:
        arguments.fail(call, "sharp", "constant where the pictures overlap", "it must show a scene")
    scene = (scene - level) / unit
    base = float(seen.mean())
    seen = seen - base
    gram, moment, means = _normal_equations(scene, seen, size)
    power = float(seen.square().sum())
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp(min=0)
    rotated = vectors.T @ moment
    top_value = float(values[-1])
    damping = top_value * (strength or _likeliest(values, rotated, power, pixels))
    if non_negative:
        taps = non_negative_least_squares(gram + damping * torch.eye(len(gram), dtype=gram.dtype), moment)
    else:
        taps = vectors @ (rotated / (values + damping))
    rest = max(power - 2 * float(taps @ moment) + float(taps @ (gram @ taps)), 0.0)
    total = float(taps.sum())
    if power == 0.0 or rest > (1 - LEAST_EXPLAINED) * power or total <= 0:
        share = 0.0 if power == 0.0 else 100 * (1 - rest / power)
        was = f"explained by the sharp one to {share:.0f} % by the best PSF of {size[0]}x{size[1]}"
        arguments.fail(call, "blurred", was, "both must show one scene, in one size and orientation; or give more size")
    variance = rest / pixels
    deviation = (vectors.square() @ (variance / (values + damping))).sqrt()
    gain = total / unit
    return PairPsf(
        (taps / total).reshape(size),
        (deviation / total).reshape(size),
        shift,
        gain,
        base - float(taps @ means) - gain * level,
        math.sqrt(variance),
        damping / top_value,
    )


def _normal_equations(scene: Tensor, seen: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return XᵀX, Xᵀy and the means of X's columns, for columns of zero mean: X[i, m] = scene[i + size − 1 − m].

    The products of two columns are sums over a window of ``scene · scene moved by their distance``: for each of the
    distances one running sum serves all pairs of taps that have it.
    """
    rows, columns = size
    height, width = seen.shape
    taps = rows * columns
    index = torch.arange(taps).reshape(rows, columns)

    def windows(products: Tensor) -> Tensor:
        """Sum over every window (height, width) of an array."""
        sums = torch.nn.functional.pad(products, (1, 0, 1, 0)).cumsum(0).cumsum(1)
        return sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]

    gram = scene.new_zeros(taps, taps)
    for down in range(rows):
        for right in range(-(columns - 1) if down else 0, columns):
            # Window a of the first column's scene, window a + (down, right) of the second's.
            left, span = max(0, -right), columns - abs(right)
            first = scene[: scene.shape[0] - down, left : left + width + span - 1]
            second = scene[down:, left + right : left + right + width + span - 1]
            sums = windows(first * second)
            # The tap m of a window that starts at a is size − 1 − a.
            ones = index.flip(0, 1)[: rows - down, left : left + span].flatten()
            others = index.flip(0, 1)[down:, left + right : left + right + span].flatten()
            gram[ones, others] = gram[others, ones] = sums.flatten()
    means = windows(scene).flip(0, 1).flatten() / seen.numel()
    gram -= seen.numel() * means[:, None] * means
    spectrum = torch.fft.rfft2(scene) * torch.fft.rfft2(seen, scene.shape).conj()
    moment = torch.fft.irfft2(spectrum, scene.shape)[:rows, :columns].flip(0, 1).flatten()
    return gram, moment, means


def _likeliest(values: Tensor, rotated: Tensor, power: float, pixels: int) -> float:
    """Return the damping, against the largest eigenvalue, of the largest marginal likelihood.

    With taps of variance σ² / λ and noise of variance σ², σ² profiled out: ``N log(yᵀy − Σ b² / (e + λ)) + Σ log(1 +
    e / λ)`` is least.
    """
    top = float(values[-1])
    costs = []
    for share in STRENGTHS.tolist():
        rest = power - float((rotated.square() / (values + share * top)).sum())
        # What rounding leaves is no misfit: data without noise would ask for no damping whatever.
        rest = max(rest, 1e-12 * power)
        costs.append(pixels * math.log(rest) + float(torch.log1p(values / (share * top)).sum()) if power > 0 else 0.0)
    return float(STRENGTHS[min(range(len(costs)), key=costs.__getitem__)])
