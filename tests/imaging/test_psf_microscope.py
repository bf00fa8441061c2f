"""The microscope's PSF: the Airy pattern at its limit, an integral done otherwise, energy, scaling, and refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import j0

from convpinv.arguments import ArgumentError
from convpinv.imaging import psf
from convpinv.imaging.psf_microscope import gibson_lanni

AIRY_RING = 3.8317059702075123 / (2 * math.pi)
# torch's Bessel functions are good to 5e-7.
BESSEL = 2e-6


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 1.32), st.floats(0.4, 0.8))
def test_as_designed_it_is_the_airy_pattern(aperture, wavelength):
    made = gibson_lanni(aperture, wavelength, 0.2 * wavelength / aperture, size=41)
    assert torch.allclose(made, psf.airy(AIRY_RING / 0.2, 41), rtol=0, atol=BESSEL * float(made.max()))
    assert torch.allclose(made, made.T)
    assert float(made.sum()) == pytest.approx(1.0, abs=1e-14)


def by_quadrature(radius, aperture, wavelength, depth, defocus, oil=1.515, oil_design=1.5, water=1.33, cover=180.0):
    """The formula of Gibson and Lanni, written down again and left to QUADPACK."""
    wave = 2 * math.pi / wavelength
    glass, cover_design, distance = 1.515, 170.0, 150.0
    stage = oil * (cover_design / glass + distance / oil_design - cover / glass - depth / water) + defocus

    def leg(index, share):
        return np.sqrt(index**2 - (aperture * share) ** 2)

    def turn(share):
        path = depth * leg(water, share) + (cover - cover_design) * leg(glass, share)
        return wave * (path + stage * leg(oil, share) - distance * leg(oil_design, share))

    def field(part):
        integrand = lambda p: part(turn(p) - turn(0)) * j0(wave * aperture * radius * p) * p  # noqa: E731
        return quad(integrand, 0, 1, limit=3000, epsabs=1e-13)[0]

    return field(math.cos) ** 2 + field(math.sin) ** 2


@pytest.mark.parametrize(("depth", "defocus"), [(0.0, 0.0), (6.0, 0.0), (6.0, 0.8), (0.0, -1.5)])
def test_it_is_the_integral_that_it_says(depth, defocus):
    made = gibson_lanni(
        1.2, 0.52, 0.1, depth=depth, defocus=defocus, immersion_index_design=1.5, coverslip_thickness=180, size=25
    )
    middle = made[12, 12:] / made[12, 12:].max()
    expected = np.array([by_quadrature(0.1 * pixel, 1.2, 0.52, depth, defocus) for pixel in range(13)])
    assert np.abs(middle.numpy() - expected / expected.max()).max() < BESSEL


def test_light_is_kept_and_only_spread_by_aberration():
    """Unnormalised, the light on the whole plane depends on the aperture alone: Parseval, seen on a large array."""
    sharp = gibson_lanni(0.9, 0.5, 0.1, immersion_index=1.0, size=401)
    thick = gibson_lanni(0.9, 0.5, 0.1, immersion_index=1.0, coverslip_thickness=178, size=401)
    assert float(thick.max()) < 0.6 * float(sharp.max())
    reach = torch.arange(401, dtype=torch.float64) - 200
    radius = torch.hypot(reach[:, None], reach)
    for share in (10, 20, 40):
        assert float(thick[radius < share].sum()) < float(sharp[radius < share].sum())
    default = gibson_lanni(0.9, 0.5, 0.1, immersion_index=1.0, coverslip_thickness=178)
    outside = (default.shape[0] - 1) // 2
    assert float(thick[radius <= outside].sum()) == pytest.approx(0.9, abs=0.03)
    assert gibson_lanni(0.9, 0.5, 0.1, immersion_index=1.0).shape == psf.airy(AIRY_RING * 0.5 / 0.9 / 0.1).shape


def test_lengths_scale_together():
    made = gibson_lanni(1.1, 0.5, 0.08, depth=4, defocus=0.3, size=31)
    doubled = gibson_lanni(
        1.1,
        1.0,
        0.16,
        depth=8,
        defocus=0.6,
        coverslip_thickness=340,
        coverslip_thickness_design=340,
        working_distance=300,
        size=31,
    )
    assert torch.allclose(made, doubled, rtol=0, atol=1e-12)


def test_defocus_is_symmetric_as_designed_and_not_in_depth():
    above, below = (gibson_lanni(0.5, 0.5, 0.2, immersion_index=1.0, defocus=way, size=41) for way in (3.0, -3.0))
    assert torch.allclose(above, below, rtol=0, atol=1e-12)
    above, below = (gibson_lanni(1.2, 0.5, 0.1, depth=10, defocus=way, size=41) for way in (1.0, -1.0))
    assert float((above - below).abs().max()) > 0.1 * float(above.max())


def test_an_aperture_beyond_the_specimen_sees_the_evanescent_light_at_the_glass_only():
    at_glass, deep = (gibson_lanni(1.45, 0.5, 0.06, depth=depth, size=61) for depth in (0.0, 3.0))
    assert torch.allclose(
        at_glass, psf.airy(AIRY_RING * 0.5 / 1.45 / 0.06, 61), rtol=0, atol=BESSEL * float(at_glass.max())
    )
    assert float(deep.max()) < 0.7 * float(at_glass.max())
    assert bool(torch.isfinite(deep).all())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"numerical_aperture": 0}, "numerical_aperture is 0; it must be above 0"),
        ({"numerical_aperture": 1.6}, "immersion_index is 1.515; it must be above the numerical aperture"),
        ({"numerical_aperture": 1.2, "coverslip_index_design": 1.0}, "coverslip_index_design is 1;"),
        ({"wavelength": -0.5}, "wavelength"),
        ({"pixel_size": float("nan")}, "pixel_size"),
        ({"pixel_size": 1e-6}, "wider than"),
        ({"depth": -1}, "depth"),
        ({"depth": 1e5}, "check the units"),
        ({"defocus": 1e5}, "check the units"),
        ({"defocus": "far"}, "defocus"),
        ({"size": 4}, "odd"),
        ({"working_distance": 0}, "working_distance"),
    ],
)
def test_refuses_in_one_line(given, says):
    arguments = {"numerical_aperture": 1.2, "wavelength": 0.52, "pixel_size": 0.1} | given
    with pytest.raises(ArgumentError, match=r"^psf\.gibson_lanni: ") as caught:
        gibson_lanni(**arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
