"""A layer, and an autoencoder whose decoder is its inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convpinv import Conv2dOperator
from convpinv.nn import ConvPinv2d

SIZE = 8


def layer(**options: Any) -> torch.nn.Conv2d:
    options = {"kernel_size": 4, "stride": 2, "padding": 1, "padding_mode": "circular"} | options
    return torch.nn.Conv2d(3, 12, **options)


class Autoencoder(torch.nn.Module):
    """An encoder, and a decoder tied to it; in either order, since some of torch depends on it."""

    decoder: ConvPinv2d
    encoder: torch.nn.Sequential

    def __init__(self, decoder_first: bool = False, **options: Any) -> None:
        super().__init__()
        conv = layer(**options)
        if decoder_first:
            self.decoder = ConvPinv2d(conv, SIZE)
        self.encoder = torch.nn.Sequential(conv)
        if not decoder_first:
            self.decoder = ConvPinv2d(conv, SIZE)

    @property
    def weight(self) -> Tensor:
        conv = self.encoder[0]
        assert isinstance(conv, torch.nn.Conv2d)
        return conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


def expected(module: ConvPinv2d, y: Tensor) -> Tensor:
    operator = Conv2dOperator.from_module(module.conv, module.input_size).detach()
    bias = module.conv.bias
    assert isinstance(bias, Tensor)
    damp = float(module.damp)
    return operator.pinv(damp=damp)(y - bias.detach()[:, None, None])
