"""The PSF of a light microscope, from what is engraved on its objective."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convpinv import arguments
from convpinv.imaging.psf_makers import AIRY_FIRST_ZERO, LARGEST_SIZE, normalised, odd_grid

__all__ = ["gibson_lanni"]

# The PSF is cut at six radii of the Airy pattern, as :func:`airy` is (97 % of the light there), or at the circle that
# holds this share of the light. The last rays of a strongly aberrated aperture go far: 20 µm deep in water under oil at
# NA 1.3, 97 % of the light fill 34 µm.
KEPT_LIGHT = 0.9
RINGS = 6
# Gauss-Legendre quadrature is exact to rounding with about half a node for each radian of the integrand's phase.
NODES_A_RADIAN = 0.75
FEWEST_NODES = 48
# More would take seconds to find, and stand for a blur of thousands of wavelengths.
MOST_NODES = 3000
# Entries of the matrix radii x nodes that are worked on together.
ENTRIES_AT_ONCE = 2**22
# The first dark ring of the Airy pattern in units of wavelength / numerical aperture.
AIRY_RING = AIRY_FIRST_ZERO / (2 * math.pi)


@dataclass(frozen=True)
class _Pupil:
    """The field over the aperture: nodes ρ in [0, 1], their weights with ρ dρ in them, and the complex field."""

    nodes: Tensor
    weights: Tensor
    field: Tensor
    wave: float  # 2π NA / wavelength

    def intensity(self, radius: Tensor) -> Tensor:
        """Return |∫ field(ρ) J₀(wave ρ r) ρ dρ|² at radii in the specimen."""
        weighted = self.weights * self.field
        parts = []
        for some in radius.split(max(1, ENTRIES_AT_ONCE // len(self.nodes))):
            bessel = torch.special.bessel_j0(self.wave * some[:, None] * self.nodes)
            parts.append((bessel @ weighted.real).square() + (bessel @ weighted.imag).square())
        return torch.cat(parts)

    def energy(self) -> float:
        """Return ∫ intensity(r) r dr over the whole plane, by Parseval's theorem."""
        return float((self.weights * self.field.abs().square()).sum()) / self.wave**2


def gibson_lanni(
    numerical_aperture: float,
    wavelength: float,
    pixel_size: float,
    *,
    depth: float = 0.0,
    defocus: float = 0.0,
    immersion_index: float = 1.515,
    immersion_index_design: float | None = None,
    coverslip_index: float = 1.515,
    coverslip_index_design: float | None = None,
    specimen_index: float = 1.33,
    coverslip_thickness: float = 170.0,
    coverslip_thickness_design: float = 170.0,
    working_distance: float = 150.0,
    size: int | None = None,
) -> Tensor:
    """Return the PSF of a widefield fluorescence microscope, aberrated by the layers that the light crosses.

    ``psf(r) ∝ |∫₀¹ exp(i W(ρ)) J₀(k NA r ρ) ρ dρ|²`` with ``k = 2π / wavelength`` and, s(n) for ``√(n² − NA² ρ²)``,
    ``W = k [depth s(n_s) + t_g s(n_g) − t_g* s(n_g*) + t_i s(n_i) − t_i* s(n_i*)]``: specimen, coverslip and immersion,
    the starred ones as the objective was designed for. The stage stands where the point is in paraxial focus, plus the
    defocus: ``t_i = n_i (t_g*/n_g* + t_i*/n_i* − t_g/n_g − depth/n_s) + defocus``. Sampled at the pixel centres.

    Parameters
    ----------
    numerical_aperture
        Of the objective; above 0 and below the indices of immersion and coverslip. Where it exceeds that of the
        specimen, the outer part of the aperture sees only what is within a wavelength of the coverslip.
    wavelength
        Of the emitted light in vacuum, in micrometres.
    pixel_size
        In the specimen (the camera's pixel divided by the magnification), in micrometres.
    depth
        Of the point beneath the coverslip, in micrometres, at least 0.
    defocus
        By how much more immersion there is than in focus, in micrometres: positive focuses nearer to the coverslip.
    immersion_index, coverslip_index, specimen_index
        Refractive indices. An objective for air has an immersion index of 1.
    immersion_index_design, coverslip_index_design
        What the objective was made for; by default what is there.
    coverslip_thickness, coverslip_thickness_design
        In micrometres.
    working_distance
        Thickness of the immersion that the objective was made for, in micrometres.
    size
        Rows and columns, an odd integer; by default six radii of the Airy pattern, or the circle that holds 90 % of the
        light if that is larger.

    Returns
    -------
    Tensor
        ``(size, size)``, float64, on the CPU, sum 1, centred at ``size // 2``: one slice, in focus or not.

    Raises
    ------
    ArgumentError
        If a number is out of its range, or the blur is too wide to be computed.

    Notes
    -----
    Cost: O(size² · nodes), with one Gauss-Legendre node for 1.3 radians of phase; 10 ms for a usual PSF; good to
    1e-6 of the peak, torch's Bessel functions being good to 5e-7. With no depth,
    no defocus and everything as designed, W = 0 and the PSF is that of :func:`airy` with radius
    ``0.61 wavelength / NA / pixel_size``. A scalar model: above an NA of about 1.3 polarisation widens the true PSF a
    little. Sampling, not integration over the pixel. A stack of slices comes from several ``defocus``.

    Source: S. F. Gibson and F. Lanni, "Experimental test of an analytical model of aberration in an oil-immersion
    objective lens used in three-dimensional light microscopy", Journal of the Optical Society of America A 9 (1992);
    the place of the stage: F. Aguet et al., Optics Express 17 (2009).

    Examples
    --------
    >>> from convpinv.imaging import psf
    >>> at_glass = psf.gibson_lanni(1.3, 0.52, 0.065)
    >>> in_water = psf.gibson_lanni(1.3, 0.52, 0.065, depth=20)
    >>> bool(at_glass.max() > 2 * in_water.max())
    True
    """
    call = "psf.gibson_lanni"
    aperture = arguments.positive(call, "numerical_aperture", numerical_aperture)
    wave = 2 * math.pi / arguments.positive(call, "wavelength", wavelength)
    pixel = arguments.positive(call, "pixel_size", pixel_size)
    depth = arguments.non_negative(call, "depth", depth)
    indices = {
        "immersion_index": immersion_index,
        "immersion_index_design": immersion_index if immersion_index_design is None else immersion_index_design,
        "coverslip_index": coverslip_index,
        "coverslip_index_design": coverslip_index if coverslip_index_design is None else coverslip_index_design,
    }
    indices = {name: arguments.positive(call, name, value) for name, value in indices.items()}
    for name, value in indices.items():
        if value <= aperture:
            arguments.fail(call, name, f"{value:g}", f"it must be above the numerical aperture, {aperture:g}")
    oil, oil_design, glass, glass_design = indices.values()
    water = arguments.positive(call, "specimen_index", specimen_index)
    cover = arguments.non_negative(call, "coverslip_thickness", coverslip_thickness)
    cover_design = arguments.non_negative(call, "coverslip_thickness_design", coverslip_thickness_design)
    distance = arguments.positive(call, "working_distance", working_distance)

    stage = oil * (cover_design / glass_design + distance / oil_design - cover / glass - depth / water)
    stage += arguments.finite(call, "defocus", defocus)
    layers = ((depth, water), (cover, glass), (-cover_design, glass_design), (stage, oil), (-distance, oil_design))

    def phase(nodes: Tensor) -> Tensor:
        """Return W(ρ) − W(0), complex where the light dies away in the specimen."""
        total = torch.zeros_like(nodes, dtype=torch.complex128)
        for thickness, index in layers:
            root = torch.sqrt((index**2 - (aperture * nodes) ** 2).to(torch.complex128))
            total += wave * thickness * (root - index)
        return total

    # Where the specimen's root turns imaginary the integrand has a kink: no panel crosses it.
    edges = [0.0, min(1.0, water / aperture), 1.0]
    fine = phase(torch.linspace(0, 1, 4097, dtype=torch.float64)).real
    swing = float(fine.diff().abs().sum())

    def pupil(reach: float) -> _Pupil:
        count = math.ceil(NODES_A_RADIAN * (swing + wave * aperture * reach)) + FEWEST_NODES
        if count > MOST_NODES:
            was = f"such that the light's phase turns by {swing + wave * aperture * reach:.0f} radians"
            arguments.fail(call, "the blur", was, f"{MOST_NODES / NODES_A_RADIAN:.0f} can be computed: check the units")
        points, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(count))
        nodes, scaled = [], []
        for low, high in itertools.pairwise(edges):
            if high > low:
                nodes.append(low + (high - low) * (points + 1) / 2)
                scaled.append(weights * (high - low) / 2 * nodes[-1])
        positions = torch.cat(nodes)
        return _Pupil(positions, torch.cat(scaled), torch.exp(1j * phase(positions)), wave * aperture)

    if size is None:
        reach = _reach(pupil, pixel, AIRY_RING * 2 * math.pi / (wave * aperture))
        axis = odd_grid(call, None, reach, f"pixel_size {pixel:g}")
    else:
        axis = odd_grid(call, size, 0, "")
    rows = axis[axis >= 0]
    squares = (rows.square()[:, None] + rows.square()).to(torch.int64)
    unique, place = torch.unique(squares, return_inverse=True)
    farthest = pixel * math.sqrt(float(unique[-1]))
    quarter = pupil(farthest).intensity(pixel * unique.to(torch.float64).sqrt())[place]
    half = torch.cat([quarter.flip(0)[:-1], quarter])
    return normalised(torch.cat([half.flip(1)[:, :-1], half], 1))


def _reach(pupil: Callable[[float], _Pupil], pixel: float, ring: float) -> int:
    """Return the pixels from the centre to the circle that holds the light, or more than a PSF may have."""
    farthest = 8 * ring
    while True:
        field = pupil(farthest)
        step = ring / 16
        radii = step * (torch.arange(math.ceil(farthest / step), dtype=torch.float64) + 0.5)
        held = (field.intensity(radii) * radii).cumsum(0) * step / field.energy()
        inside = torch.nonzero(held >= KEPT_LIGHT)
        if len(inside):
            return math.ceil(max(float(radii[inside[0, 0]]), RINGS * ring) / pixel)
        if farthest > LARGEST_SIZE * pixel:
            return LARGEST_SIZE
        farthest *= 2
