"""The scene that agrees with the data and stays near a given one: what is left of a denoiser's loop, and of Tikhonov.

    x = argmin  Σ data terms (K x)  +  ½ ρ ‖x − v‖²

Where all data are there and the border is periodic that is one division in the spectrum. Pixels that were not seen, or
count less, leave a linear system: conjugate gradients solve it, preconditioned by that division and started from the
last scene, so that few steps do when v moves little from call to call.
"""

from __future__ import annotations

import abc
import dataclasses
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from convpinv.imaging.grid import GridBlur
from convpinv.imaging.model import BlurModel
from convpinv.imaging.priors.observation import Observation
from convpinv.imaging.priors.restoration import Progress

# Estimated error of a pixel, against the deviation of the pictures (which is 1).
TOLERANCE = 1e-3
# A picture without noise under a Gaussian of one pixel needs more than 300.
ITERATIONS = 1000
# How far above its goal the squared error may lie once the gap is computed anew: what the iteration carries on drifts
# away from it. On the grid in single precision it lay at 2.5 times the goal at most down to a penalty of 1e-5, after
# hardly more steps than in double, and at 8 times at 1e-6 (four blurs, two borders).
DRIFT = 4.0
PENALTY_FOR_SINGLE = 1e-5


@dataclass(frozen=True)
class DataState:
    """What a solve leaves for the next one to start from; its content is the step's own business.

    ``converged`` is what the gap says at the end, computed anew.
    """

    scene: Tensor
    iterations: int
    converged: bool


@final
class DataStep:
    """The prepared step: ``solve`` as often as wanted, each time with another v and ρ.

    Pictures (n, C, H, W) of unit scale; scenes (n, C, rows, columns) on the model's grid where the border is unknown
    or circular, and of the picture's size where the boundary is known. Nothing here changes after it is built.

    Parameters
    ----------
    model, observation
        The blur, and the pictures with their weights. One-sided (clipped) pixels count or not as the blurred scene of
        the last call stands: the active set follows the calls. Under a known boundary the work is done in double
        precision whatever theirs is.
    smooth
        Penalise ``½ ρ ‖D (x − v)‖²``, the differences, instead.
    """

    def __init__(self, model: BlurModel, observation: Observation, *, smooth: bool = False) -> None:
        self.model = model
        self.observation = observation
        self._system: _System = (
            _OnPicture(model, observation, smooth) if model.boundary_is_known else _OnGrid(model, observation, smooth)
        )

    def extended(self, picture: Tensor) -> Tensor:
        """Continue pictures (n, C, H, W) to scenes: over the grid by straight lines, else as they are."""
        return picture if self.model.boundary_is_known else self.model.extended(picture)

    def describe(self) -> str:
        """Name the way of solving, for a report."""
        rows, columns = self.model.grid
        return f"solver   conjugate gradients on {rows} x {columns} pixels, preconditioned by the periodic division"

    def blurred(self, scene: Tensor) -> Tensor:
        """Return what the camera sees of scenes: pictures (n, C, H, W)."""
        return self._system.seen(self._system.of_scene(scene)).to(scene.dtype)

    def picture(self, scene: Tensor) -> Tensor:
        """Cut the pictures out of scenes."""
        return self.model.window(scene)

    def solve(
        self,
        centre: Tensor,
        penalty: Tensor | float,
        state: DataState | None = None,
        tolerance: float | Tensor = TOLERANCE,
        progress: Progress | None = None,
    ) -> tuple[Tensor, DataState]:
        """Return the scene, and the state for the next call.

        Parameters
        ----------
        centre
            v, of a scene's shape.
        penalty
            ρ above 0: a number, or one a picture (n, 1, 1, 1).
        state
            What the last call returned; None starts from the solution for data that continue over the grid.
        tolerance
            Estimated root mean square error of the scene at which the iteration ends: a number, or one a picture (n,).
        progress
            Called as ``progress(iteration, limit)``.
        """
        system, data = self._system, self._system.observation.data
        penalty = torch.as_tensor(penalty, dtype=data.dtype, device=data.device).expand(len(data), 1, 1, 1)
        target = system.of_scene(centre)
        vector = system.first(target, penalty) if state is None else state.scene
        seen = system.seen(vector)
        weight = system.observation.weight_at(seen)
        gap = system.gap(vector, seen, weight, target, penalty)
        del seen
        conditioned = system.precondition(gap, penalty)
        direction, energy = conditioned.clone(), system.dot(gap, conditioned)
        # energy is about ‖error‖² in the norm of the system, which is at least ρ times the plain one.
        goal = torch.as_tensor(tolerance, dtype=energy.dtype, device=energy.device).square()
        goal = goal * penalty[:, 0, 0, 0].to(energy) * centre[0].numel()
        iteration = 0
        running = energy > goal
        while iteration < ITERATIONS and bool(running.any()):
            image = system.apply(direction, weight, penalty)
            curvature = system.dot(direction, image)
            running = running & (curvature > 0)
            # A picture that has converged takes no part: a batch gives what its pictures give alone.
            length = torch.where(running, energy / curvature, 0.0).to(penalty).reshape(-1, 1, 1, 1)
            vector = vector.add_(length * direction) if iteration else vector + length * direction
            gap.sub_(image.mul_(length))
            del image, conditioned
            conditioned = system.precondition(gap, penalty)
            former, energy = energy, torch.where(running, system.dot(gap, conditioned), energy)
            # A picture without light has no energy from the start, and 0 / 0 would be carried into its scene.
            growth = torch.where(running, energy / former, 0.0)
            direction = direction.mul_(growth.to(penalty).reshape(-1, 1, 1, 1)).add_(conditioned)
            running = running & (energy > goal)
            iteration += 1
            if progress is not None:
                progress(iteration, ITERATIONS)
        if iteration:
            gap = system.gap(vector, system.seen(vector), weight, target, penalty)
            energy = system.dot(gap, system.precondition(gap, penalty))
        state = DataState(vector, iteration, bool((energy <= DRIFT * goal).all()))
        return system.to_scene(vector).to(centre.dtype), state


class _System(abc.ABC):
    """``Kᴴ W K + ρ`` on the vectors that suit the boundary, and the observation in the precision of the work."""

    observation: Observation

    @abc.abstractmethod
    def of_scene(self, scene: Tensor) -> Tensor:
        """Return the vector of a scene."""

    @abc.abstractmethod
    def to_scene(self, vector: Tensor) -> Tensor:
        """Return the scene of a vector."""

    @abc.abstractmethod
    def seen(self, vector: Tensor) -> Tensor:
        """Return K x in the picture."""

    @abc.abstractmethod
    def first(self, target: Tensor, penalty: Tensor) -> Tensor:
        """Return a first vector, from the data as if they continued over the grid."""

    @abc.abstractmethod
    def gap(self, vector: Tensor, seen: Tensor, weight: Tensor | None, target: Tensor, penalty: Tensor) -> Tensor:
        """Return ``Kᴴ W (y − K x) + ρ (v − x)``, from x, K x and W (None is 1)."""

    @abc.abstractmethod
    def apply(self, vector: Tensor, weight: Tensor | None, penalty: Tensor) -> Tensor:
        """Return ``Kᴴ W K x + ρ x``."""

    @abc.abstractmethod
    def precondition(self, vector: Tensor, penalty: Tensor) -> Tensor:
        """Return about ``(Kᴴ K + ρ)⁻¹ x``."""

    @abc.abstractmethod
    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the inner product at the pixels, one a picture, float64."""


@final
class _OnGrid(_System):
    """The vectors are half spectra: K and the preconditioner are diagonal, and a step takes two transforms."""

    def __init__(self, model: BlurModel, observation: Observation, smooth: bool) -> None:
        self.model = model
        self.observation = observation
        self.grid = GridBlur.of(model, observation.data.dtype)
        self.penalised = self.grid.differences if smooth else torch.ones_like(self.grid.differences)
        rows, columns = model.grid
        # Parseval on the half plane: all columns but the first, and the last of an even size, stand for two.
        count = torch.full((columns // 2 + 1, 1), 2.0 / (rows * columns), dtype=torch.float64, device=model.psf.device)
        count[0] /= 2
        if columns % 2 == 0:
            count[-1] /= 2
        self.count = count.to(observation.data.dtype)

    def of_scene(self, scene: Tensor) -> Tensor:
        return self.grid.transform(scene)

    def to_scene(self, vector: Tensor) -> Tensor:
        return self.grid.back(vector)

    def seen(self, vector: Tensor) -> Tensor:
        return self.model.window(self.grid.blurred(vector))

    def first(self, target: Tensor, penalty: Tensor) -> Tensor:
        data = self.grid.adjoint(self.model.extended(self.observation.data))
        return self.precondition(data.add_(penalty * self.penalised * target), penalty)

    def gap(self, vector: Tensor, seen: Tensor, weight: Tensor | None, target: Tensor, penalty: Tensor) -> Tensor:
        data = self._back_projected(self.observation.data - seen, weight)
        return data.add_(penalty * self.penalised * (target - vector))

    def apply(self, vector: Tensor, weight: Tensor | None, penalty: Tensor) -> Tensor:
        seen = self.seen(vector)
        return self._back_projected(seen, weight).add_(penalty * self.penalised * vector)

    def _back_projected(self, seen: Tensor, weight: Tensor | None) -> Tensor:
        return self.grid.adjoint(self.model.embedded(seen if weight is None else weight * seen))

    def precondition(self, vector: Tensor, penalty: Tensor) -> Tensor:
        return vector / (self.grid.power + penalty * self.penalised)

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        products = torch.view_as_real(left) * torch.view_as_real(right)
        return products.mul_(self.count).sum((-4, -3, -2, -1), dtype=torch.float64)


@final
class _OnPicture(_System):
    """The vectors are pictures: K is the camera with its known boundary, preconditioned by the periodic division.

    In double precision. In single the error was 6 times the tolerance at a penalty of 1e-3 and 60 times at 1e-4 where
    the border is continued, as its steps are three times as many; double takes 0.9 times as long with differences and
    1.5 times without.
    """

    def __init__(self, model: BlurModel, observation: Observation, smooth: bool) -> None:
        self.model = model = dataclasses.replace(model, psf=model.psf.to(torch.float64))
        self.observation = observation = observation.to(torch.float64)
        self.camera = model.camera()
        self.differences = model.differences() if smooth else None
        self.grid = GridBlur.of(model, observation.data.dtype)
        self.penalised = self.grid.differences if smooth else torch.ones_like(self.grid.differences)

    def of_scene(self, scene: Tensor) -> Tensor:
        return scene.to(torch.float64)

    def to_scene(self, vector: Tensor) -> Tensor:
        return vector

    def seen(self, vector: Tensor) -> Tensor:
        return self.camera(vector)

    def first(self, target: Tensor, penalty: Tensor) -> Tensor:
        return self.precondition(self.camera.H(self.observation.data) + self._pulled(target, penalty), penalty)

    def gap(self, vector: Tensor, seen: Tensor, weight: Tensor | None, target: Tensor, penalty: Tensor) -> Tensor:
        missing = self.observation.data - seen
        back_projected = self.camera.H(missing if weight is None else weight * missing)
        return back_projected + self._pulled(target - vector, penalty)

    def apply(self, vector: Tensor, weight: Tensor | None, penalty: Tensor) -> Tensor:
        seen = self.seen(vector)
        return self.camera.H(seen if weight is None else weight * seen) + self._pulled(vector, penalty)

    def _pulled(self, vector: Tensor, penalty: Tensor) -> Tensor:
        if self.differences is None:
            return penalty * vector
        # Each channel by itself: one operator of one channel serves them all, and its two outputs would be channels.
        flat = vector.reshape(-1, 1, *vector.shape[-2:])
        return penalty * self.differences.H(self.differences(flat)).reshape(vector.shape)

    def precondition(self, vector: Tensor, penalty: Tensor) -> Tensor:
        spectrum = self.grid.transform(self.model.embedded(vector)).div_(self.grid.power + penalty * self.penalised)
        return self.model.window(self.grid.back(spectrum))

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        return (left * right).sum((-3, -2, -1), dtype=torch.float64)
