"""What deblurring takes and gives back: arrays, tensors, dtypes, units, channels; what it refuses."""

import math

import numpy as np
import pytest
import torch

from convpinv.arguments import ArgumentError, ConvpinvError, result_fits
from convpinv.imaging import blur, deblur, estimate_noise
from imaging.shaken import MOTION, case, photograph
from scenes import ROUNDING


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_scale_and_offset_pass_through(prior):
    blurred, _ = case(scene=photograph(96))
    restored = deblur(blurred, MOTION, prior=prior)
    for scale, offset in ((1e5, 0.0), (1e-5, 0.0), (255.0, 100.0), (-1.0, 1.0)):
        again = (deblur(scale * blurred + offset, MOTION, prior=prior) - offset) / scale
        assert np.abs(again - restored).max() < 2e-3


def test_arrays_tensors_and_batches_agree():
    colour = np.stack([case(scene=photograph(64, 130, left), seed=left)[0] for left in (150, 190, 230)], axis=-1)
    restored = deblur(colour, MOTION, coupled=False)
    assert restored.shape == colour.shape
    tensor = torch.from_numpy(colour).permute(2, 0, 1)
    alone = deblur(tensor, MOTION, coupled=False)
    assert torch.allclose(alone, torch.from_numpy(restored).permute(2, 0, 1), atol=ROUNDING)
    batch = torch.stack([tensor, 2 * tensor.flip(0)])
    together = deblur(batch, MOTION, coupled=False)
    assert together.shape == batch.shape
    for picture, result in zip(batch, together, strict=True):
        for plane, plane_result in zip(picture, result, strict=True):
            assert torch.allclose(deblur(plane, MOTION), plane_result, atol=ROUNDING)


def test_one_psf_a_channel():
    kernels = torch.zeros(2, 7, 7, dtype=torch.float64)
    kernels[0, 3] = 1 / 7
    kernels[1, :, 3] = 1 / 7
    scene = torch.from_numpy(np.stack([photograph(64), photograph(64, 200, 100)]))
    blurred = blur(scene, kernels, noise=0.01, seed=0)
    restored = deblur(blurred, kernels)
    for channel in (0, 1):
        assert torch.allclose(restored[channel], deblur(blurred[channel], kernels[channel]), atol=1e-9)


@pytest.mark.parametrize(
    ("given", "returned"),
    [("uint8", "float32"), ("uint16", "float32"), (">u2", "float32"), ("float16", "float16"), ("float32", "float32")],
)
def test_dtypes_and_units_of_arrays(given, returned):
    levels = np.clip(np.rint(case(scene=photograph(64))[0] * 255), 0, 255)
    restored = deblur(levels.astype(given), MOTION, prior="gradient")
    assert restored.dtype == returned
    exact = deblur(levels, MOTION, prior="gradient")
    assert exact.dtype == np.float64
    assert np.abs(restored - exact).max() < (1.0 if given == "float16" else 0.1)
    assert exact.max() > 100


def test_inputs_are_left_alone_and_views_are_read():
    blurred, _ = case(scene=photograph(64))
    kernel = MOTION.numpy().copy()
    before, kernel_before = blurred.copy(), kernel.copy()
    blurred.flags.writeable = False
    restored = deblur(blurred[::-1, ::-1], kernel[::-1, ::-1])
    assert np.array_equal(blurred, before)
    assert np.array_equal(kernel, kernel_before)
    assert np.abs(restored - deblur(np.ascontiguousarray(blurred[::-1, ::-1]), MOTION)).max() < 1e-9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image": np.ones((2, 2, 2, 2))}, "image"),
        ({"image": torch.ones(1, 1, 1, 9, 9)}, "image"),
        ({"image": np.ones((9, 9), complex)}, "image"),
        ({"image": np.ones((9, 9), bool)}, "image"),
        ({"image": np.full((9, 9), np.nan)}, "image"),
        ({"image": [[1.0]]}, "image"),
        ({"image": np.ones((0, 9))}, "image"),
        ({"psf": np.ones((3, 99))}, "psf"),
        ({"psf": np.ones((3, 3, 3))}, "psf"),
        ({"psf": np.zeros((3, 3))}, "psf"),
        ({"psf": np.full((3, 3), np.inf)}, "psf"),
        ({"psf": np.ones((3, 3), complex)}, "psf"),
        ({"psf": None}, "psf"),
        ({"noise": -1.0}, "noise"),
        ({"noise": float("nan")}, "noise"),
        ({"noise": "low"}, "noise"),
        ({"prior": "laplacian"}, "prior"),
        ({"prior": 3.0}, "prior"),
        ({"boundary": "mirror"}, "boundary"),
        ({"strength": 0}, "strength"),
        ({"strength": -1}, "strength"),
        ({"strength": float("inf")}, "strength"),
        ({"prior": "none", "strength": 1.0}, "strength"),
        ({"prior": "none", "strength": "gcv"}, "strength"),
        ({"strength": "best"}, "strength"),
        ({"progress": 3}, "progress"),
        ({"noise": 10**400}, "noise"),
        ({"noise": [0.1, 0.1]}, "noise"),
        ({"noise": np.array([-0.1])}, "noise"),
        ({"image": np.ones((9, 9), np.float32), "noise": 1e300}, "noise"),
        ({"image": torch.ones(9, 9).to_sparse()}, "image"),
        ({"image": torch.ones(9, 9, device="meta")}, "image"),
        ({"image": torch.ones(9, 9).to(torch.float8_e4m3fn)}, "image"),
        ({"psf": [[1.0], [1.0, 2.0]]}, "psf"),
        ({"psf": torch.ones(3, 3).to_sparse()}, "psf"),
        ({"psf": "gaussian:sigma=-1"}, "psf"),
        ({"psf": "blob:size=3"}, "psf"),
    ],
)
def test_refuses_in_one_line_that_names_the_argument(change, says):
    arguments = {"image": np.random.default_rng(0).random((9, 9)), "psf": "gaussian:sigma=0.5"} | change
    with pytest.raises(ArgumentError, match=f"^deblur: {says} is ") as caught:
        deblur(arguments.pop("image"), arguments.pop("psf"), **arguments)
    assert "\n" not in str(caught.value)
    if says == "prior":
        assert "'tikhonov'" in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 5)])
@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
def test_tiny_pictures_give_finite_ones(shape, prior):
    picture = np.random.default_rng(0).random(shape)
    kernel = np.ones((min(shape[0], 2), min(shape[1], 3)))
    for boundary in ("unknown", "circular", "replicate"):
        assert np.isfinite(deblur(picture, kernel, prior=prior, boundary=boundary)).all()


@pytest.mark.parametrize("prior", ["tv", "gradient", "tikhonov"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_magnitude_is_restored_alike(prior, dtype):
    blurred, _ = case(scene=photograph(64))
    restored = deblur(blurred, MOTION, prior=prior)
    scales = (1e-30, 1e30) if dtype == np.float32 else (1e-290, 1e290)
    for scale in scales:
        result = deblur((blurred * scale).astype(dtype), MOTION, prior=prior, full_output=True)
        assert np.abs(result.image.astype(float) / scale - restored).max() < 5e-3
        assert np.isfinite(result.report.noise)
        assert result.report.noise > 0
        assert result.report.warnings == ()


def test_a_small_deviation_from_a_large_mean_is_a_picture_above_rounding_only():
    blurred, _ = case(scene=photograph(64))
    restored = deblur(blurred, MOTION)
    for deviation, touched in ((1.0, True), (1e-3, False)):
        lifted = (1e4 + deviation * (blurred - blurred.mean())).astype(np.float32)
        result = deblur(lifted, MOTION, noise=0.01 * deviation, full_output=True)
        assert any("rounding" in warning for warning in result.report.warnings) != touched
        if touched:
            assert np.abs((result.image - 1e4) - (restored - blurred.mean())).max() < 0.05
        else:
            assert np.array_equal(result.image, lifted)


def test_a_result_beyond_the_range_of_its_dtype_is_refused():
    blurred, _ = case(scene=photograph(64))
    high = (65500 * (blurred - blurred.min()) / np.ptp(blurred)).astype(np.float16)
    with pytest.raises(
        ArgumentError, match=r"^deblur: the result exceeds float16's range; give the picture as float32$"
    ):
        deblur(high, MOTION)
    with pytest.raises(ArgumentError, match=r"^blur: the result exceeds float32's range"):
        blur(blurred.astype(np.float32), MOTION, noise=1e300)


def test_a_result_of_nan_is_not_said_to_exceed_a_range():
    with pytest.raises(ConvpinvError, match=r"^deblur: the result holds NaN"):
        result_fits("deblur", torch.tensor([0.0, math.nan]), torch.float64)


def test_noise_may_be_any_number_or_one_a_channel():
    blurred, _ = case(scene=photograph(64))
    expected = deblur(blurred, MOTION, noise=0.01)
    for noise in (np.float64(0.01), np.array(0.01), torch.tensor(0.01, dtype=torch.float64), [0.01]):
        assert np.array_equal(deblur(blurred, MOTION, noise=noise), expected)
    colour = np.stack([blurred, 2 * blurred[::-1]], -1)
    estimated = estimate_noise(colour)
    result = deblur(colour, MOTION, noise=estimated, full_output=True)
    assert result.report.noise == pytest.approx(tuple(estimated), rel=1e-12)
    assert np.array_equal(result.image, deblur(colour, MOTION))
    assert np.allclose(deblur(colour, MOTION, noise=(0.01, 0.3))[..., 0], expected, atol=1e-9)
    batch = torch.from_numpy(np.stack([colour, colour[:, ::-1]])).permute(0, 3, 1, 2)
    levels = estimate_noise(batch)
    assert levels.shape == (2, 2)
    assert torch.equal(deblur(batch, MOTION, noise=levels), deblur(batch, MOTION))
    assert torch.equal(deblur(batch, MOTION, noise=[0.01, 0.2]), deblur(batch, MOTION, noise=[[0.01, 0.2]] * 2))


def test_blur_is_a_convolution_with_the_centre_at_half_the_size():
    point = np.zeros((9, 9))
    point[4, 4] = 1
    kernel = np.arange(1.0, 13.0).reshape(3, 4) / 78
    seen = blur(point, kernel, boundary="zeros")
    assert np.allclose(seen[4 - 1 : 4 + 2, 4 - 2 : 4 + 2], kernel)
    assert seen.sum() == pytest.approx(1.0)
    assert blur(point, kernel).shape == (7, 6)
    for boundary in ("circular", "reflect", "replicate"):
        assert np.allclose(blur(point, kernel, boundary=boundary), seen)
    again = blur(point, kernel, noise=0.1, seed=3)
    assert np.array_equal(again, blur(point, kernel, noise=0.1, seed=3))
    assert not np.array_equal(again, blur(point, kernel, noise=0.1, seed=4))
    assert np.std(blur(np.zeros((200, 200)), kernel, noise=0.1) / 0.1) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "says"), [({"noise": -1}, "noise"), ({"seed": -1}, "seed"), ({"boundary": "unknown"}, "boundary")]
)
def test_blur_refuses(change, says):
    with pytest.raises(ArgumentError, match=f"^blur: {says} is "):
        blur(np.ones((9, 9)), "box:size=3", **change)
