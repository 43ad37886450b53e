"""The 15 corruptions: what each does to the pixels, and that higher severity is stronger."""

import numpy as np
import pytest
from scipy import ndimage

from cifar_jax.data import resampling
from cifar_jax.data.corruptions import NAMES, SEVERITIES, corrupt

# The pixel distance of these need not rise with the published severity: a shift gives way to a
# displacement, sigma trades off with iterations, and frost with a darker image.
NOT_BY_DISTANCE = {"elastic_transform", "glass_blur", "frost"}


def photographs(count: int = 8, side: int = 32, channels: int = 3):
    """Colored patches of all sizes, uint8 `[count, side, side, channels]`."""
    noise = np.random.default_rng(0).normal(size=(count, side, side, channels))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0), mode="wrap")
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray):
    return np.abs(a.astype(float) - b).mean()


@pytest.mark.parametrize("name", NAMES)
def test_each_severity_is_repeatable_and_stronger_than_the_last(name: str):
    images = photographs()
    before = images.copy()
    corrupted = [corrupt(images, name, severity) for severity in SEVERITIES]
    np.testing.assert_array_equal(images, before)
    for severity, result in zip(SEVERITIES, corrupted, strict=True):
        assert result.shape == images.shape and result.dtype == np.uint8
        np.testing.assert_array_equal(result, corrupt(images, name, severity))
    distances = [distance(result, images) for result in corrupted]
    assert min(distances) > 0.1 and distances[0] != distances[4]
    if name not in NOT_BY_DISTANCE:
        assert distances == sorted(distances)


@pytest.mark.parametrize("name", NAMES)
def test_small_gray_images_of_any_height_and_width_work(name: str):
    images = photographs(3, 16, 1)[:, :12]
    result = corrupt(images, name, 5)
    assert result.shape == (3, 12, 16, 1) and distance(result, images) > 0.1
    assert corrupt(images[:0], name, 5).shape == (0, 12, 16, 1)


def test_each_seed_and_each_image_gets_its_own_noise():
    images = np.full((501, 32, 32, 3), 128, np.uint8)  # more than are processed at a time
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "snow", "frost", "fog"):
        result = corrupt(images, name, 5)
        assert len({image.tobytes() for image in result}) == len(images)
        assert (result != corrupt(images, name, 5, seed=1)).any()


# ---------------------------------------------------------------------------- noise
def test_noise_has_the_published_strength():
    images = np.full((20, 32, 32, 3), 128, np.uint8)
    assert corrupt(images, "gaussian_noise", 5).std() == pytest.approx(0.10 * 255, rel=0.02)
    # Poisson noise with n photons for white: a pixel of value x has variance x / n.
    shot = corrupt(images, "shot_noise", 5)
    assert shot.std() == pytest.approx(255 * (128 / 255 / 50) ** 0.5, rel=0.02)
    impulses = corrupt(images, "impulse_noise", 5)
    for value in (0, 255):
        assert (impulses == value).mean() == pytest.approx(0.07 / 2, rel=0.1)
    assert set(np.unique(impulses)) == {0, 128, 255}


# ---------------------------------------------------------------------------- blur
@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"]
)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_blurs_and_shifts_leave_a_uniform_image_unchanged(name: str, severity: int):
    images = np.full((2, 32, 32, 3), (200, 100, 7), np.uint8)
    np.testing.assert_array_equal(corrupt(images, name, severity), images)


def test_defocus_blur_spreads_a_point_over_a_disk():
    images = np.zeros((1, 32, 32, 1), np.uint8)
    images[0, 16, 16] = 255
    square = corrupt(images, "defocus_blur", 5)[0, 15:18, 15:18, 0]
    np.testing.assert_array_equal(square, np.full((3, 3), round(255 / 9)))  # radius 1.5


def test_glass_blur_copies_pixels_from_above_and_from_the_left_only():
    images = np.zeros((50, 32, 32, 1), np.uint8)
    images[:, 16, 16] = 255
    result = corrupt(images, "glass_blur", 1)  # its blur of 0.05 pixels does nothing
    hit = result.mean(0)[..., 0] / 255
    assert set(np.unique(result)) <= {0, 255}
    assert set(zip(*np.nonzero(hit), strict=True)) == {(16, 16), (16, 17), (17, 16), (17, 17)}
    assert hit[16:18, 16:18].mean() == pytest.approx(0.25, abs=0.1)


def test_a_streak_at_angle_0_is_half_a_gaussian_upward():
    pixels = np.zeros((1, 32, 32, 1), np.float32)
    pixels[0, 16, 16] = 1
    column = resampling.streak(pixels, np.zeros(1), 6, 2.0)[0, :, 16, 0]
    taps = np.exp(-((np.arange(13) / 2.0) ** 2) / 2)
    np.testing.assert_allclose(column[16:3:-1], taps / taps.sum(), atol=1e-6)
    assert column.sum() == pytest.approx(1)


def test_zooming_by_2_doubles_the_center():
    ramp = np.broadcast_to(np.arange(32.0)[:, None, None], (1, 32, 32, 1))
    zoomed = resampling.zoom(ramp, 2.0)[0, :, 0, 0]
    np.testing.assert_allclose(np.diff(zoomed), 15 / 31, rtol=1e-5)
    assert zoomed.mean() == pytest.approx(ramp.mean())


def test_interpolation_is_linear_inside_and_mirrored_outside():
    rows, columns = (a[None] for a in np.mgrid[:8, :8].astype(float))
    plane = (3 * rows + 5 * columns)[..., None]
    at = resampling.interpolate(plane, rows * 0 + 2.25, columns * 0 + 3.5)
    np.testing.assert_allclose(at, 3 * 2.25 + 5 * 3.5)
    np.testing.assert_array_equal(resampling.interpolate(plane, -rows, columns), plane)
    np.testing.assert_array_equal(resampling.interpolate(plane, 14 - rows, columns), plane)


# ---------------------------------------------------------------------------- weather
def test_brightness_adds_to_gray_and_keeps_the_hue():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    images[0, 0, :3] = [(100, 100, 100), (100, 50, 25), (250, 250, 250)]
    result = corrupt(images, "brightness", 4)[0]  # 0.2, which is 51 of 255
    np.testing.assert_array_equal(result[0, 0], [151, 151, 151])
    np.testing.assert_array_equal(result[0, 1], np.rint(np.array([100, 50, 25]) * 1.51))
    np.testing.assert_array_equal(result[0, 2], [255, 255, 255])
    np.testing.assert_array_equal(result[1, 0], [51, 51, 51])


@pytest.mark.parametrize("name", ["snow", "frost"])
def test_snow_and_frost_only_brighten_at_severity_1(name: str):
    images = photographs()
    assert (corrupt(images, name, 1).astype(int) - images).min() >= -1


def test_fog_keeps_the_range_of_an_image_and_is_gray():
    images = np.full((5, 32, 32, 3), 90, np.uint8)
    foggy = corrupt(images, "fog", 3)
    assert (foggy == foggy[..., :1]).all()
    for image in foggy:  # a uniform image of value m ranges from m * m / (m + amount) to m
        assert image.max() == 90 and image.min() == round(90 * 90 / (90 + 0.75 * 255))


# ---------------------------------------------------------------------------- digital
def test_contrast_keeps_the_mean_of_each_channel():
    images = photographs()
    for severity, factor in zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        result = corrupt(images, "contrast", severity)
        np.testing.assert_allclose(result.mean((1, 2)), images.mean((1, 2)), atol=0.5)
        np.testing.assert_allclose(result.std((1, 2)), factor * images.std((1, 2)), atol=0.5)


def test_pixelate_leaves_the_expected_number_of_uniform_blocks():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    for severity, blocks in zip(SEVERITIES, (30, 28, 27, 24, 20), strict=True):
        result = corrupt(images, "pixelate", severity)
        changes = (np.diff(result.astype(int), axis=1) != 0).any((0, 2, 3))
        assert 1 + changes.sum() == blocks
        np.testing.assert_allclose(result.mean(), images.mean(), atol=2)


def test_jpeg_compression_barely_changes_smooth_images():
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 32, 3))
    assert 0 < distance(corrupt(ramp, "jpeg_compression", 5), ramp) < 4
