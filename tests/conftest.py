"""One thread a worker, and one seed a test.

The matrices of the tests are small, and two workers on two cores outrun two threads. A test that fails must fail again.
"""

import signal
import threading
from typing import Any

import pytest
import torch
from hypothesis import settings

from convpinv.linalg.inverse import Inverse

torch.set_num_threads(1)

# A shell that starts the suite in the background has it ignore Ctrl-C, and the commands under test would inherit that.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time; `--hypothesis-profile=default` searches anew.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def preparations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each pseudo-inverse that is prepared."""
    counts: list[int] = []
    prepare = Inverse.prepare

    def counted(*args: Any) -> Inverse:
        counts.append(1)
        return prepare(*args)

    monkeypatch.setattr(Inverse, "prepare", staticmethod(counted))
    return counts
