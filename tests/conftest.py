"""One thread a worker: the matrices of the tests are small, and two workers on two cores outrun two threads."""

import torch

torch.set_num_threads(1)
