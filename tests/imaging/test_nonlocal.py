"""Groups of like patches: against brute force and the formula, every size, and what they are for."""

import hypothesis
import pytest
import torch
from hypothesis import strategies

from convpinv.imaging import nonlocal_bayes
from convpinv.imaging.nonlocal_bayes import GROUP, PATCH, RADIUS, STRIDE, filtered, grouped
from scenes import photograph


def scene_of(channels, height, width, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def patch_at(scene, position, width):
    row, column = divmod(int(position), width)
    return scene[:, row : row + PATCH, column : column + PATCH]


def test_groups_are_the_nearest_patches_of_the_window():
    guide = scene_of(2, 30, 42)
    groups = grouped(guide)
    height, width = groups.size
    assert (height, width) == (30, 42)  # references end at the last pixel: nothing is added
    references = [(row, column) for row in range(0, 25, STRIDE) for column in range(0, 37, STRIDE)]
    assert len(references) == len(groups.positions)
    for (row, column), found in zip(references, groups.positions, strict=True):
        reference = guide[:, row : row + PATCH, column : column + PATCH]
        distances = {}
        for top in range(max(0, row - RADIUS), min(height - PATCH, row + RADIUS) + 1):
            for left in range(max(0, column - RADIUS), min(width - PATCH, column + RADIUS) + 1):
                other = guide[:, top : top + PATCH, left : left + PATCH]
                distances[top * width + left] = float((other - reference).square().sum())
        nearest = sorted(distances, key=distances.__getitem__)[:GROUP]
        assert set(found.tolist()) == set(nearest)
        assert row * width + column in nearest


@pytest.mark.parametrize("channels", [1, 3])
def test_the_estimate_is_that_of_the_covariance(channels):
    guide, scene, sigma = scene_of(channels, 18, 22, seed=1), scene_of(channels, 18, 22, seed=2), 0.7
    groups = grouped(guide)
    width = groups.size[1]
    total, count = torch.zeros_like(scene), torch.zeros_like(scene)
    for found in groups.positions:
        sample = torch.stack([patch_at(guide, position, width).flatten() for position in found])
        noisy = torch.stack([patch_at(scene, position, width).flatten() for position in found])
        covariance = torch.cov(sample.T)
        filter_ = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(len(covariance), dtype=scene.dtype))
        estimate = noisy.mean(0) + (noisy - noisy.mean(0)) @ filter_.T
        for position, patch in zip(found, estimate, strict=True):
            patch_at(total, position, width).add_(patch.reshape(channels, PATCH, PATCH))
            patch_at(count, position, width).add_(1)
    torch.testing.assert_close(filtered(scene, guide, groups, sigma), total / count, rtol=1e-9, atol=1e-9)


@hypothesis.given(
    height=strategies.integers(1, 29),
    width=strategies.integers(1, 29),
    channels=strategies.integers(1, 3),
    double=strategies.booleans(),
)
@hypothesis.settings(max_examples=25, deadline=None)
def test_every_size_is_served(height, width, channels, double):
    scene = scene_of(channels, height, width, torch.float64 if double else torch.float32)
    result = filtered(scene, scene, grouped(scene), 0.1)
    assert result.shape == scene.shape
    assert result.dtype == scene.dtype
    assert bool(torch.isfinite(result).all())
    constant = torch.full_like(scene, 0.25)
    torch.testing.assert_close(filtered(constant, constant, grouped(constant), 0.1), constant, rtol=1e-5, atol=1e-6)


def test_no_noise_leaves_the_scene_and_much_noise_the_means():
    scene = scene_of(1, 26, 26)
    groups = grouped(scene)
    torch.testing.assert_close(filtered(scene, scene, groups, 1e-9), scene, rtol=0, atol=1e-6)
    much = filtered(scene, scene, groups, 1e6)
    assert float(much.std()) < 0.5 * float(scene.std())


def test_pieces_do_not_show(monkeypatch):
    scene = scene_of(2, 37, 45)
    whole_groups = grouped(scene)
    whole = filtered(scene, scene, whole_groups, 0.5)
    monkeypatch.setattr(nonlocal_bayes, "VALUES_AT_ONCE", 5000)
    groups = grouped(scene)
    assert torch.equal(groups.positions, whole_groups.positions)
    torch.testing.assert_close(filtered(scene, scene, groups, 0.5), whole)


def test_noise_goes_and_the_picture_stays():
    clean = photograph(96, 96)
    generator = torch.Generator().manual_seed(0)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    once = filtered(noisy, noisy, grouped(noisy), 0.1)
    guided = filtered(noisy, clean, grouped(clean), 0.1)
    errors = [float((each - clean).square().mean().sqrt()) for each in (noisy, once, guided)]
    assert errors[1] < 0.85 * errors[0]  # its own guide
    assert errors[2] < 0.5 * errors[0]  # the best guide there is
