"""An autoencoder whose decoder is the pseudo-inverse of its encoder, and has no parameter of its own.

The encoder takes each 2 × 2 block of RGB, twelve numbers, to four. Its decoder is not learned: it is A⁺ with the
encoder's own weight, so that gradients reach the weight from both sides. Whatever the weight, encoding what was decoded
gives the code again (A A⁺ A = A). A few seconds on one CPU core:

    python examples/pinv_decoder.py
"""

from __future__ import annotations

import torch
from torch import Tensor

import convpinv

SIZE = 32


class Autoencoder(torch.nn.Module):
    """Four numbers a block of 2 × 2 pixels, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 4, kernel_size=4, stride=2, padding=1, padding_mode="circular")
        self.decoder = convpinv.nn.ConvPinv2d(self.encoder, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def pictures(count: int, generator: torch.Generator) -> Tensor:
    """Smooth pictures (count, 3, SIZE, SIZE) whose colours go together, as those of photographs do."""
    frequencies = torch.fft.fftfreq(SIZE)
    radius = torch.hypot(frequencies[:, None], frequencies[None, :])
    falloff = 1.0 / (radius + 1.0 / SIZE) ** 1.5
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * falloff).real
    smooth = smooth / smooth.std(dim=(1, 2, 3), keepdim=True)
    mixing = torch.tensor([[1.0, 0.3, 0.1], [1.0, -0.1, -0.2], [1.0, -0.2, 0.3]])
    return torch.einsum("dc,bchw->bdhw", mixing, smooth)


def relative_error(found: Tensor, x: Tensor) -> Tensor:
    """Energy that was lost, as a part of the pictures' own."""
    return (found - x).square().mean() / x.square().mean()


def main(steps: int = 120) -> list[float]:
    """Train, and print what is lost of pictures that were not trained on."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    unseen = pictures(32, generator)
    model = Autoencoder()
    print(model)
    print(f"parameters: {sum(p.numel() for p in model.parameters())}, all of them the encoder's")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for step in range(steps + 1):
        x = pictures(16, generator)
        loss = relative_error(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        if step % 20 == 0:
            with torch.no_grad():
                losses.append(float(relative_error(model(unseen), unseen)))
            print(f"step {step:4}: {100 * losses[-1]:5.2f} % lost")
        optimizer.step()
    with torch.no_grad():
        code = model.encoder(unseen)
        again = model.encoder(model.decoder(code))
    print(f"encoded again after decoding, the codes differ by {float((again - code).norm() / code.norm()):.0e}")
    return losses


if __name__ == "__main__":
    main()
