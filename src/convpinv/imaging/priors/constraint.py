"""What is known of the scene itself: its range, and what a known boundary says of the grid outside the picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from convpinv.arguments import Boundary
from convpinv.imaging.model import BlurModel, BorderRule


@dataclass(frozen=True)
class Constraint:
    """A set of scenes on the grid, and the way to the nearest one.

    ``low`` and ``high`` bound the values, (n, C, 1, 1) or None. Where the boundary is "zeros" they bound the picture
    only: what lies outside is 0, whatever the bounds say.
    """

    model: BlurModel
    rule: BorderRule | None
    low: Tensor | None = None
    high: Tensor | None = None

    @staticmethod
    def of(model: BlurModel, low: Tensor | None = None, high: Tensor | None = None) -> Constraint | None:
        """Return the constraint, or None where nothing is known."""
        rule = BorderRule.of(model)
        return None if rule is None and low is None and high is None else Constraint(model, rule, low, high)

    def nearest(self, scene: Tensor) -> Tensor:
        """Return the nearest scene that obeys.

        The rule makes copies of a pixel equal; the nearest such value is their mean, and that within the bounds is the
        mean clipped, so that one after the other is the projection on both.
        """
        if self.rule is not None:
            scene = self.rule.nearest(scene)
        if self.low is None and self.high is None:
            return scene
        bounded = scene.clamp(self.low, self.high)
        if self.model.boundary != Boundary.ZEROS:
            return bounded
        rows, columns = self.model.picture
        scene = scene.clone()
        scene[..., :rows, :columns] = bounded[..., :rows, :columns]
        return scene

    def within(self, picture: Tensor) -> Tensor:
        """Return a picture (n, C, H, W) within the bounds."""
        return picture if self.low is None and self.high is None else picture.clamp(self.low, self.high)

    def kept(self, which: Tensor) -> Constraint:
        """Return the constraint on some of the pictures."""
        low, high = (None if end is None else end[which] for end in (self.low, self.high))
        return Constraint(self.model, self.rule, low, high)
