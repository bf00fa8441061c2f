"""Strengths that are measured by restoring: on colours, in batches, with bounds."""

import numpy as np
import pytest
import torch

from convpinv.imaging import blur, deblur

PSF = "gaussian:sigma=1.5"


def blocks(seed, *channels):
    generator = np.random.default_rng(seed)
    scene = np.kron(generator.random((6, 6, *channels)), np.ones((8, 8) + (1,) * len(channels)))
    return scene + 0.1 * generator.random(scene.shape)


@pytest.mark.parametrize("rule", ["gcv", "sure", "discrepancy"])
@pytest.mark.parametrize("prior", ["tv", "gradient"])
def test_bounds_hold_where_the_strength_of_colours_is_measured(prior, rule):
    scene = blocks(0, 3)
    blurred = blur(scene, PSF, noise=0.01, seed=0)
    margin = (scene.shape[0] - blurred.shape[0]) // 2
    under = scene[margin:-margin, margin:-margin]
    restored = deblur(blurred, PSF, prior=prior, strength=rule, bounds=(0.0, None))
    assert restored.min() >= 0.0
    assert np.square(restored - under).mean() < np.square(blurred - under).mean()


@pytest.mark.parametrize("rule", ["gcv", "sure", "discrepancy"])
def test_a_measured_strength_is_that_of_the_picture_alone(rule):
    pictures = [blur(blocks(index), PSF, noise=0.03, seed=index) for index in range(3)]
    batch = torch.from_numpy(np.stack(pictures)[:, None])
    together = deblur(batch, PSF, prior="gradient", strength=rule, full_output=True).report.strength
    for index, strength in enumerate(together):
        alone = deblur(batch[index : index + 1], PSF, prior="gradient", strength=rule, full_output=True).report.strength
        assert float(strength) == pytest.approx(float(np.ravel(alone)[0]), rel=1e-9)
