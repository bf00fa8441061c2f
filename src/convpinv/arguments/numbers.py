"""Numbers and words: integers, pairs, real numbers, padding, the names of boundaries."""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from torch import Tensor

from convpinv.arguments.errors import describe, fail

# One integer for both axes, or (rows, columns); NumPy's integers and torch.Size too.
IntegerPair = SupportsIndex | Sequence[SupportsIndex]


class Boundary(enum.StrEnum):
    """What a convolution reads outside the picture, in torch's words (``torch.nn.Conv2d``'s ``padding_mode``)."""

    ZEROS = "zeros"
    CIRCULAR = "circular"
    REFLECT = "reflect"
    REPLICATE = "replicate"


def boundary(call: str, argument: str, value: object) -> Boundary:
    """Return the boundary that a word names."""
    try:
        return Boundary(value)  # pyright: ignore[reportArgumentType]
    except ValueError:
        fail(call, argument, repr(value), "it may be " + ", ".join(repr(str(mode)) for mode in Boundary))


def choice(call: str, argument: str, value: object, options: Sequence[str]) -> str:
    """Return the word if it is one of the options."""
    if isinstance(value, str) and value in options:
        return value
    fail(call, argument, describe(value), "it may be " + ", ".join(repr(option) for option in options))


def integer_pair(call: str, argument: str, value: object, minimum: int) -> tuple[int, int]:
    """Return (rows, columns) of an integer or a pair of integers, each at least ``minimum``."""
    is_sequence = type(value) is tuple or (isinstance(value, Sequence) and not isinstance(value, str))
    single = None if is_sequence else _integer(value)
    entries = [_integer(entry) for entry in value] if is_sequence else []  # pyright: ignore[reportGeneralTypeIssues]
    if single is not None:
        pair = (single, single)
    elif len(entries) == 2 and entries[0] is not None and entries[1] is not None:
        pair = (entries[0], entries[1])
    else:
        fail(call, argument, describe(value), f"it may be an integer of at least {minimum} or a pair of them")
    if min(pair) < minimum:
        fail(call, argument, describe(value), f"each entry must be at least {minimum}")
    return pair


def single_integer(call: str, argument: str, value: object, minimum: int) -> int:
    """Return an integer, or the one entry of a sequence as ``torch.nn.Conv1d`` keeps it, of at least ``minimum``."""
    alone = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1 else value
    number = _integer(alone)
    if number is None or number < minimum:
        fail(call, argument, describe(value), f"it must be an integer of at least {minimum}")
    return number


def _integer(value: object) -> int | None:
    """Return a Python or NumPy integer as the first; None for anything else, booleans too."""
    if type(value) is int:  # SupportsIndex is a protocol, which takes 10 µs to ask for
        return value
    if isinstance(value, bool | np.bool_ | Tensor | np.ndarray) or not isinstance(value, SupportsIndex):
        return None
    return operator.index(value)


def padding(
    call: str,
    value: object,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ((top, bottom), (left, right)) of torch's padding argument.

    ``"same"`` puts the odd pixel of an even kernel after the picture, as ``torch.nn.Conv2d`` does.
    """
    if isinstance(value, str):
        word = choice(call, "padding", value, ("same", "valid"))
        if word == "valid":
            return (0, 0), (0, 0)
        if stride != (1, 1):
            fail(call, "padding", "'same'", f"torch offers it for stride 1 only, and the stride is {stride}")
        totals = [dilation[axis] * (kernel_size[axis] - 1) for axis in (0, 1)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    rows, columns = integer_pair(call, "padding", value, 0)
    return (rows, rows), (columns, columns)


def _as_float(value: float) -> float:
    """Return a number as a float: an integer beyond the largest float as infinity."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else -float("inf")


def non_negative(call: str, argument: str, value: object) -> float:
    """Return a finite real number of at least 0."""
    number = finite(call, argument, value)
    if number < 0.0:
        fail(call, argument, f"{number:g}", "it must be at least 0")
    return number


def optional_non_negative(call: str, argument: str, value: object) -> float | None:
    """Return None or a finite real number of at least 0."""
    return None if value is None else non_negative(call, argument, value)


def positive_integer(call: str, argument: str, value: object) -> int:
    """Return an integer of at least 1."""
    number = _integer(value)
    if number is None or number < 1:
        fail(call, argument, describe(value), "it must be an integer of at least 1")
    return number


def finite(call: str, argument: str, value: object) -> float:
    """Return a finite real number, from a Python or NumPy number or a tensor of one entry."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", None) == 0:
        value = item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(call, argument, describe(value), "it must be a real number")
    number = _as_float(value)
    if not math.isfinite(number):
        fail(call, argument, f"{number:g}", "it must be finite")
    return number


def positive(call: str, argument: str, value: object) -> float:
    """Return a finite real number above 0."""
    number = finite(call, argument, value)
    if number <= 0.0:
        fail(call, argument, f"{number:g}", "it must be above 0")
    return number


def odd_size(call: str, argument: str, value: object) -> int:
    """Return an odd integer of at least 1."""
    size = positive_integer(call, argument, value)
    if size % 2 == 0:
        fail(call, argument, size, "it must be odd, so that the PSF has a centre pixel")
    return size


def seed(call: str, argument: str, value: object) -> int:
    """Return the seed of a random generator: an integer of at least 0."""
    number = int(value) if isinstance(value, np.integer) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        fail(call, argument, describe(value), "it must be an integer of at least 0, or None")
    return number
