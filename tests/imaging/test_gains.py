"""Frequencies taken together by their gain: criteria as from each frequency alone."""

from __future__ import annotations

import pytest
import torch

from convpinv.imaging.regularization.gains import STEPS, Gains


def spectrum(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains over twelve decades, with zeros among them, and a periodogram above noise of variance 1e-4."""
    generator = torch.Generator().manual_seed(0)
    gain = 10.0 ** (12 * torch.rand(count, generator=generator, dtype=torch.float64) - 8)
    gain[::97] = 0.0
    noise = torch.rand(count, generator=generator, dtype=torch.float64)
    return gain, -(gain * 1e-3 + 1e-4) * noise.log()


@pytest.mark.parametrize("count", [1, 50, STEPS, STEPS + 1, 30_000])
@pytest.mark.parametrize("strength", [1e-10, 1e-4, 1.0, 100.0])
def test_means_are_those_over_all_frequencies(count: int, strength: float) -> None:
    gain, power = spectrum(count)
    gains = Gains.of(gain, power)
    assert float(gains.count.sum()) == count
    lost, lost_of_gains = strength / (gain + strength), strength / (gains.gain + strength)
    both = [
        (gains.mean(lost_of_gains), lost.mean()),
        (gains.mean_of_power(lost_of_gains.square()), (lost.square() * power).mean()),
        (gains.mean((gains.gain * strength + 1e-4).log()), (gain * strength + 1e-4).log().mean()),
    ]
    tolerance = 1e-12 if count <= STEPS else 2e-3  # fewer are taken as they are
    for found, expected in both:
        assert torch.isclose(found, expected, rtol=tolerance, atol=0)


def test_many_candidates_at_once() -> None:
    gain, power = spectrum(5000)
    gains = Gains.of(gain, power)
    values = torch.rand(7, len(gains.gain), dtype=torch.float64)
    for found in (gains.mean(values), gains.mean_of_power(values)):
        assert found.shape == (7,)
    assert torch.equal(gains.mean(values)[3], gains.mean(values[3:4])[0])


def test_one_gain_for_all_frequencies() -> None:
    gains = Gains.of(torch.full((5000,), 0.25, dtype=torch.float64), torch.ones(5000, dtype=torch.float64))
    held = gains.count > 0
    assert torch.allclose(gains.gain[held], torch.tensor(0.25, dtype=torch.float64))
    assert float(gains.power.sum()) == 5000
