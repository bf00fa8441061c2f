"""Keep other libraries' opinions of a file off the terminal: an error is one line here, and that line is ours."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and the logs of the picture libraries, and nobody else's."""
    loggers = [logging.getLogger(name) for name in ("tifffile", "imagecodecs", "PIL", "astropy")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, state in zip(loggers, before, strict=True):
            logger.disabled = state
