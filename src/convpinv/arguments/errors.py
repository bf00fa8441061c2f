"""The errors of this package, and the one way of raising them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from torch import Tensor


class ConvpinvError(Exception):
    """Base class of every error that this package raises on purpose."""


class ArgumentError(ConvpinvError, ValueError):
    """An argument that the call cannot work with; the message names it and what it may be."""


class SolverRefusedError(ArgumentError):
    """The solver asked for cannot serve this operator; the message ends in an alternative."""


class ConvergenceError(ConvpinvError, RuntimeError):
    """An iteration ended before its tolerance; nothing unconverged is returned silently."""


class ConvergenceWarning(UserWarning):
    """A restoration reached its limit of iterations: near its goal, and not at it."""


class GradientError(ConvpinvError, RuntimeError):
    """A derivative was asked for that cannot be given truly; the message says why, and the remedy."""


def fail(call: str, argument: str, was: object, may_be: str) -> NoReturn:
    """Raise the one-line error of this package: call, argument, what it was, what it may be."""
    raise ArgumentError(f"{call}: {argument} is {was}; {may_be}")


def describe(value: object) -> str:
    """Say in a few words what a value is, for an error message."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {value.dtype} array of shape {tuple(value.shape)}"  # pyright: ignore[reportAttributeAccessIssue]
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}…"


@contextmanager
def called(call: str, data: str) -> Iterator[None]:
    """Let the errors of a block name the call that the user made, and its data argument."""
    try:
        yield
    except ArgumentError as error:
        text = str(error).partition(": ")[2].replace("its argument is", f"{data} is", 1)
        raise type(error)(f"{call}: {text}") from None
