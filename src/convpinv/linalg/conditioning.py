"""What the symbol foretells: singular values near 0, and how many iterations conjugate gradients will take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from convpinv.linalg import spectrum, structure
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.precision import double_of

# The symbol is looked at on a grid of at most this side, and of less where its matrices are large: some ten
# milliseconds at 64 channels.
LARGEST_GRID = 32
SMALLEST_GRID = 4
MOST_WORK = 2e6
# Iterations are ``factor · condition^power · log(2/tol)``, fitted to 261 solves (benchmarks/automatic_choice.py): half
# of the exactly Toeplitz ones lie within 1.3 times that, nine of ten within 2.2; of the others 1.5 and 4.2.
TOEPLITZ = (0.19, 0.34)
OTHERWISE = (0.63, 0.69)
# Up to this condition number of the samples the symbol keeps away from 0.
REGULAR = 30.0


@dataclass(frozen=True)
class Conditioning:
    """What samples of the symbol tell of an operator, damped.

    Attributes
    ----------
    operator : Convolution
        What was asked about.
    largest : float
        The largest singular value σ₁ of the symbol.
    condition : float
        Of the damped symbol, ``√((σ₁² + damp²) / (σ_n² + damp²))``, on the side that iterations go by: that with
        fewer pixels. Points where a square symbol vanishes are not met, but come as a few separate eigenvalues, of
        which conjugate gradients make little.
    is_resolved : bool
        Whether the samples stand close enough for the kernel.
    """

    operator: Convolution
    largest: float
    condition: float
    is_resolved: bool

    @property
    def is_toeplitz(self) -> bool:
        """Whether the normal equations in the smaller space are exactly Toeplitz: the symbol says all of them."""
        operator = self.operator
        return structure.is_valid(operator) if structure.is_wide(operator) else structure.is_full(operator)

    @property
    def is_regular(self) -> bool:
        """Whether the symbol keeps away from 0, and is not square: square ones vanish between the samples."""
        outputs, inputs = _symbol_shape(self.operator)
        has_rank = outputs < inputs if structure.is_wide(self.operator) else inputs < outputs
        return has_rank and self.is_resolved and self.condition <= REGULAR

    @property
    def is_certain(self) -> bool:
        """Whether the operator is known to be well-conditioned, whatever the damping.

        The symbol of a Toeplitz system bounds its eigenvalues: a compression of a positive definite matrix is no
        worse conditioned than the matrix.
        """
        return self.is_toeplitz and self.is_regular

    def iterations_to(self, tolerance: float) -> float:
        """How many iterations are likely until the residual has shrunk so far."""
        factor, power = TOEPLITZ if self.is_toeplitz else OTHERWISE
        return factor * self.condition**power * math.log(2.0 / max(min(tolerance, 1.0), 1e-300))


def conditioning_of(operator: Convolution, damp: float) -> Conditioning:
    """Sample the symbol."""
    weight = operator.weight.detach().to(double_of(operator.dtype))
    scale = spectrum.binary_scale(max(float(weight.abs().max()), damp))
    on_outputs = structure.is_wide(operator)
    size = _symbol_shape(operator)[0 if on_outputs else 1]
    side = min(max(math.isqrt(int(MOST_WORK / size**3)), SMALLEST_GRID), LARGEST_GRID)
    matrices = spectrum.matrices(weight / scale, operator.geometry, (side, side))
    if not on_outputs:
        matrices = matrices.mH
    gram = matrices @ matrices.mH
    squares = (gram.real if size == 1 else torch.linalg.eigvalsh(gram)).flatten(1).clamp(min=0.0)
    damped = squares + (damp / scale) ** 2
    # Each group has a preconditioner of its own, but for what keeps it from 1/0 without damping.
    least, largest = damped.amin(1), damped.amax(1) if damp else damped.max()
    # Rounding stands where a singular value is 0.
    is_regular = bool((least > 100 * torch.finfo(torch.float64).eps * largest).all())
    condition = float((largest / least).max().sqrt()) if is_regular else math.inf
    is_resolved = all(axis.reach < side * axis.stride for axis in operator.geometry.axes)
    return Conditioning(operator, scale * float(squares.max().sqrt()), condition, is_resolved)


def _symbol_shape(operator: Convolution) -> tuple[int, int]:
    geometry = operator.geometry
    inputs = geometry.in_channels // geometry.groups * math.prod(geometry.stride)
    return geometry.out_channels // geometry.groups, inputs
