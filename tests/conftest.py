"""One thread a worker, and one seed a test.

The matrices of the tests are small, and two workers on two cores outrun two threads. A test that fails must fail again.
"""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The same examples every time; `--hypothesis-profile=default` searches anew.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
