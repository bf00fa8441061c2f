"""How far a restoration looks: the bound holds, for the picture made to break it too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convpinv import imaging
from convpinv.arguments import ArgumentError

PSFS = ("gaussian:sigma=1.5", "defocus:radius=3", "motion:length=7,angle=30")


def response(psf: str, prior: str, strength: float, size: int) -> torch.Tensor:
    """The response of a restoration at the middle of a periodic picture, by restoring one bright point."""
    point = torch.zeros(size, size, dtype=torch.float64)
    point[size // 2, size // 2] = 1
    restored = imaging.deblur(point, psf, prior=prior, strength=strength, boundary="circular", noise=1e-3, clip=False)
    if prior == "tikhonov":  # which draws to the mean of the picture
        restored -= strength / (1 + strength) / size**2
    return restored


@pytest.mark.parametrize("strength", [0.3, 0.03])
@pytest.mark.parametrize("prior", ["gradient", "tikhonov"])
@pytest.mark.parametrize("psf", PSFS)
def test_the_halo_is_the_smallest_that_keeps_the_tail_below_the_tolerance(
    psf: str, prior: str, strength: float
) -> None:
    tolerance = 2e-3
    found = imaging.reach(psf, prior, strength=strength, tolerance=tolerance)
    assert found.is_bound
    assert found.is_reached
    size = 512
    magnitude, middle = response(psf, prior, strength, size).abs(), size // 2

    def tail(halo: int) -> float:
        inner = slice(middle - halo, middle + halo + 1)
        return float(magnitude.sum() - magnitude[inner, inner].sum())

    assert tail(found.halo) <= tolerance < tail(found.halo - 1)
    assert found.seam == pytest.approx(tail(found.halo), rel=0.02)


@pytest.mark.parametrize("psf", PSFS)
def test_the_picture_that_is_made_to_break_the_bound_does_not(psf: str) -> None:
    strength, size = 0.1, 320
    found = imaging.reach(psf, strength=strength, tolerance=5e-3)
    middle, halo = size // 2, found.halo
    # The pixel in the middle adds up what lies outside the window with one sign.
    picture = (response(psf, "gradient", strength, size).flip(0, 1).roll((1, 1), (0, 1)) > 0).to(torch.float64)
    window = picture[middle - halo : middle + halo + 1, middle - halo : middle + halo + 1].clone()
    outside = 1 - picture
    outside[middle - halo : middle + halo + 1, middle - halo : middle + halo + 1] = window
    options = {"prior": "gradient", "strength": strength, "boundary": "circular", "noise": 1e-3, "clip": False}
    one, other = (float(imaging.deblur(each, psf, **options)[middle, middle]) for each in (picture, outside))
    assert abs(one - other) <= found.seam * 1.001
    assert abs(one - other) > 0.9 * found.seam  # the bound is no larger than it has to be


def test_units_and_tolerance() -> None:
    near = imaging.reach("gaussian:sigma=2", strength=0.01, tolerance=1e-2)
    far = imaging.reach("gaussian:sigma=2", strength=0.01, tolerance=1e-4)
    assert near.halo < far.halo
    in_levels = imaging.reach("gaussian:sigma=2", strength=0.01, tolerance=2.55, span=255)
    assert in_levels.halo == near.halo
    assert in_levels.seam == pytest.approx(255 * near.seam)
    assert "px, seam <" in str(near)
    assert "bound" in str(near)


def test_priors_that_iterate_are_measured_not_bounded() -> None:
    found = imaging.reach("gaussian:sigma=2", "tv", strength=0.001, tolerance=1e-6, deviation=0.2)
    assert not found.is_bound
    assert "measured" in str(found)


def test_a_response_beyond_the_largest_halo_is_said_to_be() -> None:
    found = imaging.reach("motion:length=15,angle=0", strength=1e-5, tolerance=1e-6, largest=64)
    assert found.halo == 64
    assert not found.is_reached
    assert found.seam > 1e-6


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prior": "none"}, "prior is 'none'"),
        ({"strength": 0}, "strength is 0"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"span": np.inf}, "span is inf"),
        ({"largest": 8}, "largest is 8"),
    ],
)
def test_arguments(options: dict[str, object], named: str) -> None:
    with pytest.raises(ArgumentError, match=named):
        imaging.reach("gaussian:sigma=2", **{"strength": 0.01, "tolerance": 0.01, **options})  # pyright: ignore[reportArgumentType]
