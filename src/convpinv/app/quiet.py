"""Keep other libraries' opinions of a file off the terminal: an error is one line here, and that line is ours."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

# Loggers and the filters of warnings are the process's, and one picture is read while another is written: the first to
# come makes it quiet, the last to go ends it.
_lock = threading.Lock()
_inside: list[contextlib.ExitStack] = []
_depth = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and the logs of the picture libraries, and nobody else's."""
    global _depth
    with _lock:
        if _depth == 0:
            _inside.append(_silence())
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _inside.pop().close()


def _silence() -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    for name in ("tifffile", "imagecodecs", "PIL", "astropy"):
        # astropy makes a logger of its own class when it is imported, and fails on one that we had made before.
        if name == "astropy" and name not in logging.Logger.manager.loggerDict:
            continue
        logger = logging.getLogger(name)
        stack.callback(setattr, logger, "disabled", logger.disabled)
        logger.disabled = True
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack
