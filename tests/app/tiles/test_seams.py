"""In tiles as in one piece: seams stay below what was said, at the border and inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from convpinv import imaging
from tiled import coarse_noise, restored

# Conjugate gradients end at an estimated error of 3e-4 of the deviation (root mean square); at single pixels of the
# border of this picture two runs differ by up to 0.012 deviations.
BORDER = 0.03


@pytest.mark.parametrize("strength", [0.3, 0.1, 0.03])
@pytest.mark.parametrize("psf", ["gaussian:sigma=1.5", "defocus:radius=3", "motion:length=5,angle=30"])
def test_the_bound_holds_on_random_noise(psf: str, strength: float, tmp_path: Path) -> None:
    picture = coarse_noise(331, 403)
    np.save(tmp_path / "in.npy", picture)
    options = {"prior": "gradient", "strength": strength, "noise": 0.1}
    report = restored(tmp_path / "in.npy", tmp_path / "out.npy", psf, **options)
    assert report["tiles"] >= 4
    whole = imaging.deblur(picture, psf, clip=False, **options)
    error = np.abs(np.load(tmp_path / "out.npy") - whole)
    bound = float(report["halo"].partition("< ")[2].split()[0])
    edge = report["layout"]["halo"]
    assert "(bound)" in report["halo"]
    assert error[edge:-edge, edge:-edge].max() < bound
    assert error.max() < bound + BORDER * picture.std()
    assert np.sqrt((error**2).mean()) < bound + 1e-3 * picture.std()


@pytest.mark.parametrize("prior", ["gradient", "tikhonov"])
@pytest.mark.parametrize("boundary", ["circular", "reflect", "replicate", "zeros"])
def test_known_borders(boundary: str, prior: str, tmp_path: Path) -> None:
    picture = coarse_noise(290, 301)
    np.save(tmp_path / "in.npy", picture)
    options = {"prior": prior, "strength": 0.1, "noise": 0.1, "boundary": boundary}
    report = restored(tmp_path / "in.npy", tmp_path / "out.npy", "gaussian:sigma=1.5", **options)
    assert report["tiles"] >= 4
    whole = imaging.deblur(picture, "gaussian:sigma=1.5", clip=False, **options)
    bound = float(report["halo"].partition("< ")[2].split()[0])
    # "tikhonov" draws towards the mean, and that of the sample is not quite the picture's.
    assert np.abs(np.load(tmp_path / "out.npy") - whole).max() < bound + 3e-3 * picture.std()


def test_total_variation_differs_by_its_tolerance(tmp_path: Path) -> None:
    scene = data.camera()[100:330, 150:380] / np.float32(255)
    picture = imaging.blur(scene, "gaussian:sigma=1.5", noise=0.01, seed=0).astype(np.float32)
    np.save(tmp_path / "in.npy", picture)
    options = {"prior": "tv", "strength": 1e-3, "noise": 0.01}
    report = restored(tmp_path / "in.npy", tmp_path / "out.npy", "gaussian:sigma=1.5", **options)
    assert report["tiles"] >= 4
    assert "(measured)" in report["halo"]
    error = np.load(tmp_path / "out.npy") - imaging.deblur(picture, "gaussian:sigma=1.5", clip=False, **options)
    assert np.sqrt((error**2).mean()) < 0.02 * picture.std()


def test_the_automatic_choice_is_near_that_of_the_whole(tmp_path: Path) -> None:
    scene = data.camera() / np.float32(255)
    picture = imaging.blur(scene, "gaussian:sigma=2", noise=0.01, seed=0).astype(np.float32)
    np.save(tmp_path / "in.npy", picture)
    report = restored(tmp_path / "in.npy", tmp_path / "out.npy", "gaussian:sigma=2", 256, 256, prior="gradient")
    whole = imaging.deblur(picture, "gaussian:sigma=2", prior="gradient", full_output=True).report
    (strength,), (noise,) = report["agreement"]["strength"], report["agreement"]["noise"]
    # Blocks know less of the slow frequencies than the whole; measured here: 1.9.
    assert 1 / 2.5 < strength / whole.strength < 2.5
    assert noise == pytest.approx(whole.noise, rel=0.1)


def test_clipped_light_is_decided_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scene = np.kron(generator.random((20, 20)) ** 4 * 3, np.ones((14, 14)))
    picture = imaging.blur(scene, "gaussian:sigma=1.5", noise=0.003, seed=0).clip(0, 1).astype(np.float32)
    np.save(tmp_path / "in.npy", picture)
    report = restored(tmp_path / "in.npy", tmp_path / "out.npy", "gaussian:sigma=1.5", prior="tv", strength=1e-3)
    assert report["agreement"]["clip"][1] == 1
    assert np.load(tmp_path / "out.npy").max() > 1.3
