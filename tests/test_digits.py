"""The digits data set is small, bundled, always the same, and learnable."""

import hashlib

import numpy as np
import pytest

from cifar_jax.config import schema
from cifar_jax.data import sources


@pytest.fixture
def digits():
    return sources.load(schema.Data("digits"))


def test_digits_are_small_color_images_with_the_full_range(digits: sources.Dataset):
    assert digits.train_images.shape == (1437, 32, 32, 3)
    assert digits.test_images.shape == (360, 32, 32, 3)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.train_images.min() == 0 and digits.train_images.max() == 255
    assert (digits.train_images == digits.train_images[..., :1]).all()
    assert digits.class_names == tuple("0123456789")


def test_digits_are_split_by_class_without_overlap(digits: sources.Dataset):
    assert np.bincount(digits.test_labels).tolist() == [36] * 10
    assert np.bincount(digits.train_labels).min() >= 138
    train, test = (set(map(bytes, x)) for x in (digits.train_images, digits.test_images))
    assert not train & test and len(train) + len(test) == 1797


def test_digits_can_be_learned(digits: sources.Dataset):
    """The nearest training image has the right class for 97 % of the test images."""
    train, test = (
        x[..., 0].reshape(len(x), -1).astype(np.float32)
        for x in (digits.train_images, digits.test_images)
    )
    distances = (train**2).sum(1) - 2 * test @ train.T
    nearest = digits.train_labels[distances.argmin(1)]
    assert (nearest == digits.test_labels).mean() > 0.97


def test_digits_never_change(digits: sources.Dataset):
    assert (
        hashlib.sha256(digits.test_labels.astype("<i4")).hexdigest()  # pyright: ignore[reportArgumentType]
        == "086957c15586b6750b87f7463fc1f085a15321e26cdecefdf0e54ef49411d788"
    )
