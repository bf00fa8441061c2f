"""What sparse differences cost, and the proximal map of each cost: exact, elementwise, without iteration where it can.

A sparsity sees the differences of a picture as (n, 2·C, rows, columns): those down and to the right of all channels
that belong together. Its cost depends on their length at each pixel, so that the channels share their edges.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

# Newton's method from the right of the root, where the function is convex: quadratic, and 8 steps reach the rounding of
# float64 for every exponent from 0.05 to 0.95 (tested).
NEWTON_STEPS = 12


class Sparsity(abc.ABC):
    """A cost R(w) = Σ φ(|w|) over pixels, with |w| the length of all differences there."""

    @abc.abstractmethod
    def shrunk(self, length: Tensor, threshold: Tensor) -> Tensor:
        """Return argmin_r ``threshold · φ(r) + ½ (r − length)²``, the global one, for lengths of at least 0."""

    @abc.abstractmethod
    def cost(self, length: Tensor) -> Tensor:
        """Return φ of lengths."""

    def factor(self, differences: Tensor, threshold: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the f (n, 1, rows, columns) for which f w is argmin_v ``threshold · R(v) + ½ ‖v − w‖²``."""
        long = length(differences)
        return torch.div(self.shrunk(long, threshold), long.clamp_(min=torch.finfo(long.dtype).tiny), out=out)


@final
@dataclass(frozen=True)
class TotalVariation(Sparsity):
    """φ(r) = r: isotropic total variation; of several channels, vectorial total variation."""

    def shrunk(self, length: Tensor, threshold: Tensor) -> Tensor:
        """Soft threshold."""
        return (length - threshold).clamp_(min=0)

    def factor(self, differences: Tensor, threshold: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``1 − threshold / |w|``, no less than 0: a root and a division fewer than by way of the lengths."""
        inverse = squared_length(differences).rsqrt_()
        # 1 − t·∞ where nothing differs, and that is cut off to 0.
        return torch.addcmul(inverse.new_ones(()), inverse, threshold, value=-1, out=out).clamp_(min=0)

    def cost(self, length: Tensor) -> Tensor:
        """Return the length itself."""
        return length


@final
@dataclass(frozen=True)
class SquaredDifferences(Sparsity):
    """φ(r) = ½ r²: the gradient prior, for data terms that only the loop can serve."""

    def shrunk(self, length: Tensor, threshold: Tensor) -> Tensor:
        """Divide by 1 + threshold."""
        return length / (1 + threshold)

    def cost(self, length: Tensor) -> Tensor:
        """Return half the square."""
        return 0.5 * length * length


@final
@dataclass(frozen=True)
class HyperLaplacian(Sparsity):
    """φ(r) = r^p with 0 < p < 1, not convex: its proximal map jumps from 0 to a positive length.

    The stationary points obey ``r + t p r^(p−1) = a``. The larger root is the global minimum where a exceeds

        a* = (2 − p) / (2 − 2 p) · (2 t (1 − p))^(1 / (2 − p)),

    else 0 is. p = 1/2 and 2/3 have the root in closed form, all others by Newton's method.

    Source: D. Krishnan and R. Fergus, "Fast image deconvolution using hyper-Laplacian priors", NIPS 2009; Z. Xu,
    X. Chang, F. Xu and H. Zhang, "L1/2 regularization: a thresholding representation theory", IEEE Transactions on
    Neural Networks and Learning Systems 23 (2012); W. Cao, J. Sun and Z. Xu, "Fast image deconvolution using
    closed-form thresholding formulas of Lq regularization", Journal of Visual Communication and Image
    Representation 24 (2013).
    """

    exponent: float

    def shrunk(self, length: Tensor, threshold: Tensor) -> Tensor:
        """Return the larger root where it is the global minimum, else 0."""
        p = self.exponent
        least = (2 * (1 - p) * threshold) ** (1 / (2 - p))
        jump = (2 - p) / (2 - 2 * p) * least
        # Below the jump nothing is to be found: the formulas are kept inside their domain and not used.
        above = torch.maximum(length, jump)
        if p == 1 / 2:
            root = _half_power_root(above, threshold)
        elif p == 2 / 3:
            root = _two_thirds_power_root(above, threshold)
        else:
            root = above
            for _ in range(NEWTON_STEPS):
                pull = threshold * p * root ** (p - 1)
                root = root - (root + pull - above) / (1 + (p - 1) * pull / root)
        return torch.where(length > jump, root, 0.0)

    def cost(self, length: Tensor) -> Tensor:
        """Return the power."""
        return length**self.exponent


def _half_power_root(length: Tensor, threshold: Tensor) -> Tensor:
    """Return the larger root of r + ½ t r^(−½) = a: a cubic in √r, by Viète's cosine."""
    cosine = (threshold / 4) * (length / 3) ** -1.5
    return (2 / 3) * length * (1 + torch.cos((2 / 3) * (math.pi - torch.acos(cosine.clamp(max=1)))))


def _two_thirds_power_root(length: Tensor, threshold: Tensor) -> Tensor:
    """Return the larger root of r + ⅔ t r^(−⅓) = a: a quartic in ∛r, by Ferrari's resolvent."""
    doubled = 2 * threshold
    # cosh(arcosh(z) / 3) by roots: torch's arcosh alone took as long as two transforms of the picture.
    argument = ((27 / 16) * length * length * doubled**-1.5).clamp_(min=1)
    third = (argument * (1 + (1 - argument**-2).sqrt_())) ** (1 / 3)
    half = (2 / math.sqrt(3)) * doubled**0.25 * (0.5 * (third + 1 / third)).sqrt_()
    return ((half + (2 * length / half - half * half).clamp_(min=0).sqrt()) / 2) ** 3


def length(differences: Tensor) -> Tensor:
    """Return the length (n, 1, rows, columns) of differences (n, 2·C, rows, columns)."""
    return squared_length(differences).sqrt_()


def squared_length(differences: Tensor) -> Tensor:
    """Return the squared length (n, 1, rows, columns) of differences (n, 2·C, rows, columns)."""
    # torch.linalg.vector_norm over an axis of two took three quarters of the whole restoration's time.
    total = differences[:, :1].square()
    for channel in range(1, differences.shape[1]):
        total.addcmul_(differences[:, channel : channel + 1], differences[:, channel : channel + 1])
    return total
