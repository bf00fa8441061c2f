"""What a solver is: facts in, a prepared state out, and the state applied as often as one likes."""

from __future__ import annotations

import abc
import enum
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from convpinv.linalg.conditioning import Conditioning, conditioning_of
from convpinv.linalg.convolution import Convolution
from convpinv.linalg.spectrum import Regularization


class Status(enum.Enum):
    """How a solve ended; each member carries its message and, where it failed, the likely causes."""

    DIRECT = ("solved directly", "")
    CONVERGED = ("converged to the tolerance", "")
    MAX_ITERATIONS = (
        "stopped at max_iter before the tolerance",
        "the problem is ill-conditioned (raise damp), or max_iter is too small",
    )
    STAGNATED = (
        "stopped making progress before the tolerance",
        "the tolerance is below what rounding allows, or damp = 0 meets singular values near 0 (raise damp or tol)",
    )
    INACCURATE = (
        "solved, but not to the accuracy",
        "singular values near 0, which data outside the range meet above all (raise damp, tol or max_iter; "
        "solver='dense' serves up to 4096 unknowns)",
    )

    @property
    def message(self) -> str:
        """One clause saying what happened."""
        return self.value[0]

    @property
    def likely_causes(self) -> str:
        """What usually brings it about, and the remedy."""
        return self.value[1]

    @property
    def is_success(self) -> bool:
        """Whether the value may be trusted to the tolerance."""
        return self in (Status.DIRECT, Status.CONVERGED)


@dataclass(frozen=True)
class Solution:
    """A value and how it was come by.

    Attributes
    ----------
    value : Tensor
        The pseudo-inverse applied.
    status : Status
        How the solve ended.
    iterations : int
        Iterations done, 0 for direct solvers.
    residual : float
        Largest relative residual over the batch: of the system that was iterated on, or, for direct solvers, of the
        normal equations ``‖Aᴴ(y − Ax) − damp²x‖ / ‖Aᴴy‖``. For a status of ``INACCURATE`` the estimated error of the
        value, relative.
    """

    value: Tensor
    status: Status
    iterations: int
    residual: float


@dataclass(frozen=True)
class Problem:
    """What a solver prepares for: the operator, the regularisation, and when iterations stop.

    ``tolerance`` is that of the relative residual, ``accuracy`` that of the answer where its error can be bounded.
    """

    operator: Convolution
    regularization: Regularization
    tolerance: float
    accuracy: float
    max_iterations: int
    applications: int

    @functools.cached_property
    def conditioning(self) -> Conditioning:
        """What the symbol tells of the operator, damped: some 0.5 ms for one channel, so that it is asked once."""
        return conditioning_of(self.operator, self.regularization.damp)


# Applications beyond which nothing is told apart any more.
MANY = 10**12


@dataclass(frozen=True)
class Forecast:
    """What a solver would take for a problem, and whether its answer can be relied on before it is there.

    Seconds of two cores, fitted to what solves took (``benchmarks/automatic_choice.py``): other machines are faster or
    slower, and what the automatic choice compares are ratios. An application is that to one picture.
    """

    prepare: float
    apply: float
    is_sure: bool = True

    def total(self, applications: int) -> float:
        """Seconds to prepare once and apply so many times."""
        return self.prepare + min(applications, MANY) * self.apply


class UnsuitableError(Exception):
    """Raised by :meth:`Solver.prepare` where the numbers, not the shape, show that a solver cannot serve.

    The message is the sentence that :meth:`Solver.refuses` could not know beforehand; it never leaves the package.
    """


class Solver(abc.ABC):
    """A way of applying a pseudo-inverse. Solvers hold nothing; what :meth:`prepare` returns is the state."""

    name: ClassVar[str]
    title: ClassVar[str]
    # Whether the answer is exact to rounding, not to a tolerance.
    is_direct: ClassVar[bool] = True
    # Whether kernels that share one geometry (Geometry.kernels) are decomposed each by itself, with a threshold each.
    serves_kernels_side_by_side: ClassVar[bool] = False
    # Whether NaN or infinity anywhere in the data shows in every pixel that depends on them.
    spreads_what_is_not_finite: ClassVar[bool] = False

    @abc.abstractmethod
    def refuses(self, problem: Problem) -> str | None:
        """One sentence saying why this solver cannot serve the problem; None where it can."""

    def declines(self, problem: Problem) -> str | None:
        """One sentence saying why the automatic choice should pass this solver by though it could serve, or None."""
        return None

    @abc.abstractmethod
    def forecast(self, problem: Problem) -> Forecast | None:
        """What it would take; None where nothing that could serve takes less."""

    @abc.abstractmethod
    def describe(self, problem: Problem) -> str:
        """Say for the plan how the problem would be solved, and what that costs."""

    def accuracy(self, problem: Problem) -> float:
        """Relative error of the answer beyond which :attr:`Status.INACCURATE` is said."""
        return problem.accuracy

    @abc.abstractmethod
    def prepare(self, problem: Problem) -> Any:
        """Do once what does not depend on y; may raise :class:`UnsuitableError`."""

    @abc.abstractmethod
    def apply(self, state: Any, batch: Tensor) -> Solution:
        """``A⁺ y`` for a batch (B, Cout, H', W')."""

    @abc.abstractmethod
    def adjoint(self, state: Any, batch: Tensor) -> Solution:
        """``(A⁺)ᴴ x`` for a batch (B, Cin, H, W), from the same state."""


def direct(value: Tensor) -> Solution:
    """Wrap the value of a direct solver; its residual is computed only when somebody asks."""
    return Solution(value, Status.DIRECT, 0, 0.0)


def batch_norm(batch: Tensor) -> Tensor:
    """Euclidean norm of each picture of a batch: (B, ...) → (B,)."""
    return torch.linalg.vector_norm(batch.flatten(1), dim=1)
