"""The words of the options of ``convpinv deblur``, read into what the library takes."""

from __future__ import annotations

import math
from typing import Literal

from convpinv.arguments import ArgumentError

Pair = tuple[float | None, float | None]
# The priors whose result may be kept between bounds.
BOUNDED = ("tv", "hyperlaplacian", "gradient")


def number(text: str, option: str, *, zero: bool) -> float | None:
    """Read ``auto`` (None) or a number above 0; ``zero`` says whether 0 will do."""
    if text.strip().lower() == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf or (value == 0.0 and not zero):
        raise ArgumentError(f"{option} is {text!r}; it may be auto or a number {'of at least' if zero else 'above'} 0")
    return value


def strength(text: str) -> float | str | None:
    """Read ``auto`` (None), the name of a rule, or a number above 0."""
    from convpinv.imaging import RULES

    name = text.strip().lower()
    if name in RULES:
        return name
    try:
        return number(text, "--strength", zero=False)
    except ArgumentError:
        raise ArgumentError(
            f"--strength is {text!r}; it may be auto, a number above 0, or a rule: {', '.join(RULES)}"
        ) from None


def exponent(text: str | None, prior: str) -> float:
    """Read the exponent of "hyperlaplacian", above 0 to 1; not given, it is 2/3."""
    if text is None:
        return 2 / 3
    if prior != "hyperlaplacian":
        raise ArgumentError(f"--exponent is for --prior hyperlaplacian, and the prior is {prior}; leave one out")
    value = _finite(text)
    if value is None or not 0.0 < value <= 1.0:
        raise ArgumentError(f"--exponent is {text!r}; it may be a number above 0 and at most 1, like 0.67")
    return value


def clip(text: str) -> Pair | Literal[False] | None:
    """Read ``auto`` (None), ``off`` (False) or ``LOW,HIGH``."""
    word = text.strip().lower()
    if word == "auto":
        return None
    if word == "off":
        return False
    return _pair(text, "--clip", "auto, off, or ")


def bounds(text: str | None, prior: str) -> Pair | None:
    """Read ``LOW,HIGH``; what is not given has none."""
    if text is None:
        return None
    if prior not in BOUNDED:
        raise ArgumentError(f"--bounds is for --prior {', '.join(BOUNDED)}, and the prior is {prior}; leave one out")
    return _pair(text, "--bounds", "")


def _pair(text: str, option: str, others: str) -> Pair:
    """Read two numbers in ascending order; an empty one leaves its end open."""
    ends = [end.strip() for end in text.split(",")]
    numbers = [_finite(end) for end in ends]
    may_be = f"it may be {others}two numbers LOW,HIGH with LOW below HIGH; leave one out for an open end, like 0,"
    if len(ends) != 2 or not any(ends) or any(end and value is None for end, value in zip(ends, numbers, strict=True)):
        raise ArgumentError(f"{option} is {text!r}; {may_be}")
    low, high = numbers
    if low is not None and high is not None and low >= high:
        raise ArgumentError(f"{option} is {text!r}; {may_be}")
    return low, high


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
