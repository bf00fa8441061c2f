"""Known borders: no side of a picture is treated unlike the others, and a single row has its reflection."""

import numpy as np
import pytest

from convpinv import blur, deblur, psf

BOUNDARIES = ["unknown", "circular", "zeros", "reflect", "replicate"]


@pytest.mark.parametrize("prior", ["tv", "gradient", "hyperlaplacian", "tikhonov"])
def test_a_single_row_may_be_reflected(prior):
    scene = np.repeat(np.random.default_rng(0).random(8), 8)[None]
    row = blur(scene, [[1, 2, 1]], boundary="reflect", noise=0.01, seed=0)
    # With a plateau: whether it hides light is asked by way of the differences.
    for picture in (row, np.minimum(row, 0.7)):
        restored = deblur(picture, [[1, 2, 1]], prior=prior, boundary="reflect", strength=0.01)
        upright = deblur(picture.T, [[1], [2], [1]], prior=prior, boundary="reflect", strength=0.01)
        assert np.allclose(restored, upright.T, atol=1e-3)


def mirrored(picture):
    return picture[::-1, ::-1].copy()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("prior", "within"), [("gradient", 1e-3), ("tv", 0.02)])
def test_no_side_of_a_picture_is_treated_unlike_the_others(prior, boundary, within):
    scene = np.kron(np.random.default_rng(0).random((8, 8)), np.ones((6, 6))) + 0.5
    seen = "valid" if boundary == "unknown" else boundary
    photo = blur(scene, psf.gaussian(1.2), noise=0.01, seed=0, boundary=seen)
    options = {"prior": prior, "boundary": boundary, "strength": 0.01}
    restored = deblur(photo, psf.gaussian(1.2), **options)
    # Total variation couples each difference down with the one to the right: its mirror image costs a little more.
    assert np.sqrt(np.mean((restored - mirrored(deblur(mirrored(photo), psf.gaussian(1.2), **options))) ** 2)) < within
    if boundary == "zeros":
        sides = [restored[:2] - scene[:2], restored[-2:] - scene[-2:]]
        sides += [restored[:, :2] - scene[:, :2], restored[:, -2:] - scene[:, -2:]]
        assert max(np.sqrt(np.mean(side**2)) for side in sides) < 0.07
