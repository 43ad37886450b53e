"""The split follows its seed, loses no image, and can keep the class distribution."""

import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.data import augment, splits
from cifar_jax.errors import UserError


def fake_labels(seed: int = 0):
    """50,000 labels in random order, 5,000 of each class, like CIFAR-10."""
    labels = np.repeat(np.arange(10, dtype=np.int32), 5000)
    return np.random.default_rng(seed).permutation(labels)


def test_stratified_split_of_cifar10_has_exact_counts():
    labels = fake_labels()
    train, validation = splits.split(labels, 0.15, 0, stratified=True)
    assert (len(train), len(validation)) == (42_500, 7_500)
    assert np.bincount(labels[validation]).tolist() == [750] * 10
    assert np.bincount(labels[train]).tolist() == [4250] * 10


@pytest.mark.parametrize("stratified", [True, False])
def test_every_image_is_in_one_part(stratified: bool):
    train, validation = splits.split(fake_labels(), 0.15, 3, stratified)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(50_000))
    for part in (train, validation):
        assert part.dtype == np.int32
        np.testing.assert_array_equal(part, np.sort(part))


@pytest.mark.parametrize("stratified", [True, False])
def test_the_seed_decides_the_split(stratified: bool):
    labels = fake_labels()[:5000]
    first = splits.split(labels, 0.15, 7, stratified)
    again = splits.split(labels, 0.15, 7, stratified)
    other = splits.split(labels, 0.15, 8, stratified)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    common = np.intersect1d(first[1], other[1])
    assert len(common) < 0.3 * len(first[1])  # 15 % would be in both by chance


def test_a_split_that_is_not_stratified_ignores_the_labels():
    labels = fake_labels()
    _, validation = splits.split(labels, 0.15, 0, stratified=False)
    assert len(validation) == 7_500
    assert np.bincount(labels[validation]).tolist() != [750] * 10
    _, others = splits.split(labels[::-1].copy(), 0.15, 0, stratified=False)
    np.testing.assert_array_equal(validation, others)


def test_a_stratified_split_keeps_unbalanced_classes_unbalanced():
    labels = np.repeat(np.array([0, 1, 2], np.int32), [600, 300, 100])
    train, validation = splits.split(labels, 0.2, 0, stratified=True)
    assert np.bincount(labels[validation]).tolist() == [120, 60, 20]
    assert np.bincount(labels[train]).tolist() == [480, 240, 80]


IMPOSSIBLE = {
    "a class with one image": (np.array([0] * 20 + [1], np.int32), 0.5),
    "fewer images to validate than classes": (fake_labels()[:100], 0.05),
    "nothing left to train": (np.array([0, 1], np.int32), 0.999),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_split_is_a_user_error(case: str):
    labels, fraction = IMPOSSIBLE[case]
    with pytest.raises(UserError) as caught:
        splits.split(labels, fraction, 0, stratified=True)
    message = str(caught.value)
    assert f"config.data.validation_fraction={fraction}" in message
    assert "config.data.stratified=False" in message
    assert "\n" not in message


def test_class_counts_include_classes_without_images():
    labels = np.array([0, 2, 2, 0, 2], np.int32)
    assert splits.class_counts(labels, ("cat", "dog", "owl")) == {"cat": 2, "dog": 0, "owl": 3}


def test_channel_statistics_agree_with_numpy():
    rng = np.random.default_rng(0)
    images = rng.integers(0, [255, 128, 5], (300, 9, 7, 3)).astype(np.uint8)
    mean, std = splits.channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-6)
    assert mean.dtype == std.dtype == np.float32


@pytest.mark.parametrize("value", [0, 59, 171, 255])
def test_a_constant_channel_has_standard_deviation_zero(value: int):
    mean, std = splits.channel_statistics(np.full((3, 5, 5, 1), value, np.uint8))
    np.testing.assert_allclose(mean, value / 255, rtol=1e-6)
    np.testing.assert_allclose(std, 0, atol=1e-7)


@pytest.mark.parametrize("value", [0, 59, 171, 255])
def test_a_constant_channel_is_standardized_to_zero(value: int):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
    images[..., 1] = value
    mean, std = splits.standardization(images)
    assert std[1] == 1 and std.dtype == np.float32
    pixels = np.asarray(augment.normalize(jnp.asarray(images), mean, std))
    np.testing.assert_allclose(pixels[..., 1], 0, atol=1e-6)
    np.testing.assert_allclose(pixels[..., [0, 2]].std((0, 1, 2)), 1, rtol=1e-5)


def test_a_fraction_of_zero_trains_on_everything():
    labels = np.zeros(7, np.int32)
    train, validation = splits.split(labels, 0.0, 0, True)
    np.testing.assert_array_equal(train, np.arange(7))
    assert len(validation) == 0 and train.dtype == validation.dtype == np.int32
