"""Each proximal map against brute force, at every exponent and on both sides of its jump."""

import numpy as np
import pytest
import torch

from convpinv.imaging.priors import HyperLaplacian, SquaredDifferences, TotalVariation

EXPONENTS = [0.05, 0.3, 0.5, 2 / 3, 0.8, 0.95]
SPARSITIES = [TotalVariation(), SquaredDifferences(), *map(HyperLaplacian, EXPONENTS)]
THRESHOLDS = [1e-6, 1e-2, 1.0, 30.0]


def objective(sparsity, length, threshold, value):
    return threshold * sparsity.cost(value) + 0.5 * (value - length) ** 2


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=repr)
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_map_finds_the_global_minimum(sparsity, threshold):
    scale = threshold ** (1 / (2 - getattr(sparsity, "exponent", 1.0)))
    lengths = torch.cat([torch.linspace(0, 6, 601, dtype=torch.float64) * scale, torch.tensor([1e3 * scale, 1e-9])])
    shrunk = sparsity.shrunk(lengths, torch.tensor(threshold, dtype=torch.float64))
    candidates = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None] * lengths
    best = objective(sparsity, lengths, threshold, candidates).amin(0)
    reached = objective(sparsity, lengths, threshold, shrunk)
    assert bool((reached <= best * (1 + 1e-12) + 1e-300).all())
    assert bool((shrunk >= 0).all())
    assert bool((shrunk <= lengths * (1 + 1e-12)).all())


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_root_is_stationary_and_the_jump_where_it_should_be(exponent):
    sparsity, threshold = HyperLaplacian(exponent), torch.tensor(0.3, dtype=torch.float64)
    jump = (2 - exponent) / (2 - 2 * exponent) * (2 * 0.3 * (1 - exponent)) ** (1 / (2 - exponent))
    lengths = jump * torch.tensor([1 - 1e-9, 1 + 1e-9, 1.01, 2.0, 50.0], dtype=torch.float64)
    shrunk = sparsity.shrunk(lengths, threshold)
    assert shrunk[0] == 0
    root = shrunk[1:]
    assert torch.allclose(root + 0.3 * exponent * root ** (exponent - 1), lengths[1:], rtol=1e-12, atol=0)


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=repr)
def test_single_precision_follows_double(sparsity):
    generator = torch.Generator().manual_seed(0)
    lengths = 3 * torch.rand(4000, generator=generator, dtype=torch.float64)
    threshold = torch.tensor(0.2, dtype=torch.float64)
    exact = sparsity.shrunk(lengths, threshold)
    single = sparsity.shrunk(lengths.float(), threshold.float()).double()
    same_side = (exact > 0) == (single > 0)
    assert same_side.double().mean() > 0.999
    assert (exact - single)[same_side].abs().max() < 1e-5


@pytest.mark.parametrize("sparsity", SPARSITIES, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_vectors_keep_their_direction_and_channels_share_their_length(sparsity, channels):
    generator = torch.Generator().manual_seed(1)
    differences = torch.randn(2, 2 * channels, 7, 5, generator=generator, dtype=torch.float64)
    differences[:, :, 0, 0] = 0
    before = differences.clone()
    threshold = torch.tensor([0.5, 0.1], dtype=torch.float64).reshape(2, 1, 1, 1)
    shrunk = differences * sparsity.factor(differences, threshold)
    assert torch.equal(differences, before)
    assert bool(torch.isfinite(shrunk).all())
    long, short = differences.norm(dim=1), shrunk.norm(dim=1)
    for index in range(2):
        assert torch.allclose(short[index], sparsity.shrunk(long[index], threshold[index]), atol=1e-12)
    # Parallel: the inner product of the two is the product of their lengths.
    assert torch.allclose((differences * shrunk).sum(1), long * short, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-12])
def test_next_to_nothing_shrinks_to_nothing(value):
    for sparsity in SPARSITIES[:1] + SPARSITIES[2:]:
        differences = torch.full((1, 2, 3, 3), value)
        shrunk = differences * sparsity.factor(differences, torch.tensor(0.1))
        assert not shrunk.any()
        assert np.isfinite(shrunk.numpy()).all()
