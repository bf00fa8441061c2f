"""What a restoration can know, against the dense matrices: every number by its definition."""

import numpy as np
import pytest
import torch

from convpinv import Conv2dOperator
from convpinv.arguments import ArgumentError, ConvergenceError
from convpinv.imaging import blur, deblur, psf, resolution
from convpinv.imaging.model import DOWN, RIGHT

SIZE = (11, 13)
KERNEL = psf.from_array(np.random.default_rng(0).random((3, 4)) + 0.2)


def maps(found):
    """Return the two maps, which must be there."""
    assert found.noise_gain_map is not None
    assert found.cell_map is not None
    return found.noise_gain_map, found.cell_map


def restoration(kernel, size, prior, strength, boundary, weights):
    """R and R A as dense matrices over the pixels of the picture, by the definition in the docstring."""
    rows, columns = size
    if boundary == "circular":
        operator = Conv2dOperator(kernel.flip(-2, -1)[None, None], size, padding="same", padding_mode="circular")
        dense, scene, top, left = operator.to_dense(), size, 0, 0
    else:
        # The scene that the picture sees; farther out the prior alone holds it, which changes nothing here.
        scene = tuple(n + k - 1 for n, k in zip(size, kernel.shape, strict=True))
        dense = Conv2dOperator(kernel.flip(-2, -1)[None, None], scene).to_dense()
        top, left = (k - 1 - k // 2 for k in kernel.shape)
    if prior == "tikhonov":
        penalty = torch.eye(dense.shape[1], dtype=torch.float64)
    else:  # periodic differences
        weight = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
        for output, taps in enumerate((DOWN, RIGHT)):
            for row, column, value in taps:
                weight[output, 0, 1 + row, 1 + column] = value
        differences = Conv2dOperator(weight, scene, padding="same", padding_mode="circular").to_dense()
        penalty = differences.T @ differences
    w = torch.diag(weights.flatten())
    inverse = torch.linalg.solve(dense.T @ w @ dense + strength * penalty, dense.T @ w)
    inside = torch.zeros(scene, dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    return inverse[inside.flatten()], (inverse @ dense)[inside.flatten()][:, inside.flatten()]


@pytest.mark.parametrize("prior", ["gradient", "tikhonov"])
@pytest.mark.parametrize("strength", [0.3, 0.01])
def test_without_borders_the_spectrum_is_the_dense_matrix(prior, strength):
    largest = float(torch.fft.fft2(KERNEL, s=SIZE).abs().max()) ** 2
    found = resolution(KERNEL, SIZE, strength=strength, prior=prior, boundary="circular")
    inverse, kept = restoration(
        KERNEL, SIZE, prior, strength * largest, "circular", torch.ones(SIZE, dtype=torch.float64)
    )
    assert found.noise_gain == pytest.approx(float(inverse[17].norm()), rel=1e-9)
    assert found.cell == pytest.approx(float(kept[17, 17]) ** -0.5, rel=1e-9)
    response = torch.fft.fft2(kept[:, 0].reshape(SIZE)).abs()
    assert found.response == pytest.approx(np.fft.fftshift(response.numpy()), abs=1e-9)
    assert found.noise_gain_map is None
    assert found.cell_map is None


@pytest.mark.parametrize("prior", ["gradient", "tikhonov"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("boundary", "kernel"), [("unknown", psf.box(3)), ("circular", KERNEL)])
def test_maps_are_rows_of_the_dense_matrix(prior, masked, boundary, kernel):
    # 14 + 2 and 16 + 2 are sizes that the FFT likes as they are: the grid is the scene.
    size = (14, 16) if boundary == "unknown" else SIZE
    weights = torch.ones(size, dtype=torch.float64)
    if masked:
        weights[3:7, 2:9] = 0.0
        weights[9, 9] = 0.5
    if boundary == "circular" and not masked:
        return
    found = resolution(kernel, size, strength=0.02, prior=prior, boundary=boundary, mask=weights.numpy(), spacing=16)
    largest = float(torch.fft.fft2(kernel, s=size).abs().max()) ** 2
    inverse, kept = restoration(kernel, size, prior, 0.02 * largest, boundary, weights)
    assert maps(found)[0].flatten() == pytest.approx(inverse.norm(dim=1).numpy(), rel=1e-3, abs=1e-4)
    assert maps(found)[1].flatten() ** -2.0 == pytest.approx(kept.diagonal().numpy(), abs=1e-3)


def test_combs_come_near_the_exact_maps():
    exact = resolution("gaussian:sigma=1", (18, 16), strength=0.02, spacing=18)
    combs = resolution("gaussian:sigma=1", (18, 16), strength=0.02, spacing=8)
    assert maps(combs)[0] == pytest.approx(maps(exact)[0], rel=0.2)
    assert maps(combs)[1] == pytest.approx(maps(exact)[1], rel=0.1)
    assert np.mean(np.abs(maps(combs)[0] / maps(exact)[0] - 1)) < 0.05
    other = resolution("gaussian:sigma=1", (18, 16), strength=0.02, spacing=8, seed=1)
    assert not np.array_equal(maps(other)[0], maps(combs)[0])


def test_far_from_borders_the_maps_are_the_spectrum():
    found = resolution("gaussian:sigma=1.2", (40, 40), strength=0.05)
    middle = (slice(14, 26), slice(14, 26))
    assert maps(found)[0][middle].mean() == pytest.approx(found.noise_gain, rel=0.05)
    assert maps(found)[1][middle].mean() == pytest.approx(found.cell, rel=0.02)
    assert maps(found)[1][0, 0] > 1.05 * found.cell  # a corner is seen by a quarter of the PSF


def test_it_foretells_the_noise_of_deblur():
    """deblur with the same strength, on noise alone, makes as much noise as said: at the middle and at the border."""
    found = resolution("gaussian:sigma=0.8", (16, 16), strength=0.1, spacing=16)
    noise = torch.randn(100, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    restored = deblur(noise[:, None], "gaussian:sigma=0.8", prior="gradient", strength=0.1, boundary="unknown")
    seen = restored[:, 0].std(0).numpy()
    assert seen[4:12, 4:12].mean() == pytest.approx(maps(found)[0][4:12, 4:12].mean(), rel=0.05)
    assert seen[0].mean() == pytest.approx(maps(found)[0][0].mean(), rel=0.1)


def test_lines_at_the_half_response_come_back_at_half_their_height():
    found = resolution("motion:length=9,angle=0", (96, 96), strength=0.02, maps=False)
    for direction in (0, 90):
        frequency = float(found.half_response[direction * 180 // 180])
        if frequency > 0.49:
            continue
        waves = round(frequency * 96)
        place = np.arange(96) * 2 * np.pi * waves / 96
        scene = np.cos(place)[None] * np.ones((96, 1)) if direction == 0 else np.cos(place)[:, None] * np.ones(96)
        seen = blur(scene, "motion:length=9,angle=0", boundary="circular")
        back = deblur(seen, "motion:length=9,angle=0", prior="gradient", strength=0.02, boundary="circular")
        assert np.sqrt(2) * back.std() == pytest.approx(0.5, abs=0.2)
    # Across the motion nothing was blurred.
    assert found.half_response[90] > 3 * found.half_response[0]
    assert found.detail[0] < 2 < found.detail[1]


def test_less_light_or_more_prior_means_less_resolution_and_less_noise():
    loose, tight = (resolution("defocus:radius=3", (32, 32), strength=s, maps=False) for s in (0.001, 0.1))
    assert tight.noise_gain < loose.noise_gain
    assert tight.cell > loose.cell
    assert (tight.half_response <= loose.half_response).all()


def test_total_variation_is_the_quadratic_prior_of_that_contrast():
    total = resolution(KERNEL, SIZE, strength=0.003, prior="tv", contrast=0.1, maps=False)
    gradient = resolution(KERNEL, SIZE, strength=0.03, maps=False)
    assert total.prior == "gradient"
    assert total.strength == pytest.approx(gradient.strength)
    assert total.noise_gain == pytest.approx(gradient.noise_gain)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("strength", {"strength": 0.0}),
        ("prior", {"prior": "none"}),
        ("contrast", {"prior": "tv"}),
        ("contrast", {"contrast": 0.1}),
        ("boundary", {"boundary": "zeros"}),
        ("mask", {"mask": np.ones((2, 2))}),
        ("size", {"size": (0, 4)}),
        ("psf", {"size": (2, 2)}),
        ("spacing", {"spacing": 0}),
    ],
)
def test_refuses(named, arguments):
    with pytest.raises(ArgumentError, match=rf"^resolution: {named} is "):
        resolution(**{"psf": KERNEL, "size": SIZE, "strength": 0.1, **arguments})


def test_says_when_the_maps_cannot_be_solved():
    with pytest.raises(ConvergenceError, match="larger strength"):
        resolution("gaussian:sigma=2", (24, 24), strength=1e-13, spacing=1)
