"""What the pixels say of the blurred picture, each for itself: seen, half believed, not seen, clipped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Observation:
    """Measured pictures (n, C, H, W), and how far each pixel is to be believed.

    The data term of a pixel is ``½ w (u − y)²`` with u the blurred picture: w = 1 for a pixel that was seen, 0 for one
    that was not, anything between for one that is noisier than the others. A clipped pixel says only on which side of
    y the truth lies: its term counts on the other side alone. ``weight`` and ``clipped`` are (n or 1, C or 1, H, W);
    None is 1, and 0, everywhere. ``clipped``, int8, is +1 where the truth may be higher than y, −1 where it may be
    lower.
    """

    data: Tensor
    weight: Tensor | None = None
    clipped: Tensor | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every pixel counts fully: the plain least-squares data term."""
        return self.weight is None and self.clipped is None

    @property
    def is_linear(self) -> bool:
        """Whether the solution of a quadratic prior is linear in the data: nothing is one-sided."""
        return self.clipped is None

    def weight_at(self, blurred: Tensor) -> Tensor | None:
        """Return the weight of each pixel's term where the blurred picture (n, C, H, W) stands; None is 1."""
        if self.clipped is None:
            return self.weight
        counts = ((blurred - self.data) * self.clipped <= 0).to(self.data.dtype)
        return counts if self.weight is None else counts.mul_(self.weight)

    def nearest(self, blurred: Tensor, penalty: Tensor) -> Tensor:
        """Return argmin_u of the data terms ``+ ½ penalty (u − blurred)²``, elementwise and exact.

        A one-sided term is at its least where u already lies on its free side, and a plain one elsewhere: the weight
        at ``blurred`` decides, as the minimiser lies between ``blurred`` and y.
        """
        weight = self.weight_at(blurred)
        if weight is None:
            return torch.lerp(self.data, blurred, penalty / (1 + penalty))
        return (weight * self.data).add_(penalty * blurred).div_(weight + penalty)

    def add_pull(self, to: Tensor, blurred: Tensor, penalty: Tensor) -> None:
        """Add ``blurred − nearest(blurred)`` to a tensor, in its memory."""
        if self.is_complete:
            to.addcmul_(blurred - self.data, 1 / (1 + penalty))
        else:
            to.add_(blurred).sub_(self.nearest(blurred, penalty))

    def reflect(self, blurred: Tensor, penalty: Tensor, out: Tensor) -> None:
        """Write ``2 nearest(blurred) − blurred``: where every pixel counts fully, in one pass."""
        if self.is_complete:
            torch.lerp(blurred, self.data, 2 / (1 + penalty), out=out)
        else:
            torch.sub(2 * self.nearest(blurred, penalty), blurred, out=out)

    def rows(self, which: slice) -> Observation:
        """Return the observation of some rows, in the same memory."""
        weight, clipped = (None if part is None else part[..., which, :] for part in (self.weight, self.clipped))
        return Observation(self.data[..., which, :], weight, clipped)

    def kept(self, which: Tensor) -> Observation:
        """Return the observation of some of the pictures."""
        count = len(self.data)

        def some(values: Tensor | None) -> Tensor | None:
            return values if values is None or len(values) != count else values[which]

        return Observation(self.data[which], some(self.weight), some(self.clipped))

    def to(self, dtype: torch.dtype) -> Observation:
        """Return the same in another precision."""
        return Observation(
            self.data.to(dtype),
            None if self.weight is None else self.weight.to(dtype),
            self.clipped,
        )
