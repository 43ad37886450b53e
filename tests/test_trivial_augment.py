"""Each operation of TrivialAugment gives what Pillow gives."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cifar_jax.data import trivial_augment
from cifar_jax.data.trivial_augment import OPERATIONS, Choice

SIDE = 32


def pictures(count: int, channels: int = 3) -> np.ndarray:
    """Smooth pictures with some noise: uint8, `[count, 32, 32, channels]`."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 220, (count, 4, 4, channels)).repeat(8, 1).repeat(8, 2)
    return (coarse + rng.integers(0, 20, coarse.shape)).astype(np.uint8)


def applied(name: str, images: np.ndarray, strength: float, sign: float) -> np.ndarray:
    count = len(images)
    operation = jnp.full(count, OPERATIONS.index(name), jnp.int32)
    choice = Choice(operation, jnp.full(count, strength), jnp.full(count, sign))
    return np.asarray(trivial_augment.apply(choice, jnp.asarray(images, jnp.float32)))


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


# Of an image, a strength s in [0, 1] and a sign d.
EXPECTED: dict[str, Callable[[Image.Image, float, float], Image.Image]] = {
    "identity": lambda image, s, d: image,
    "shear_x": lambda image, s, d: affine(image, 1, 0.99 * s * d, 0, 0, 1, 0),
    "shear_y": lambda image, s, d: affine(image, 1, 0, 0, 0.99 * s * d, 1, 0),
    "translate_x": lambda image, s, d: affine(image, 1, 0, -32 * s * d, 0, 1, 0),
    "translate_y": lambda image, s, d: affine(image, 1, 0, 0, 0, 1, -32 * s * d),
    "rotate": lambda image, s, d: image.rotate(135 * s * d),
    "brightness": lambda image, s, d: ImageEnhance.Brightness(image).enhance(1 + 0.99 * s * d),
    "color": lambda image, s, d: ImageEnhance.Color(image).enhance(1 + 0.99 * s * d),
    "contrast": lambda image, s, d: ImageEnhance.Contrast(image).enhance(1 + 0.99 * s * d),
    "sharpness": lambda image, s, d: ImageEnhance.Sharpness(image).enhance(1 + 0.99 * s * d),
    "posterize": lambda image, s, d: ImageOps.posterize(image, 8 - round(6 * s)),
    "solarize": lambda image, s, d: ImageOps.solarize(image, math.ceil(255 * (1 - s))),
    "autocontrast": lambda image, s, d: ImageOps.autocontrast(image),
    "equalize": lambda image, s, d: ImageOps.equalize(image),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("strength", "sign"), [(0.2, 1.0), (0.2, -1.0), (0.7, 1.0), (0.7, -1.0)])
def test_an_operation_is_that_of_pillow(name: str, strength: float, sign: float):
    images = pictures(6)
    found = applied(name, images, strength, sign)
    pillow = [EXPECTED[name](Image.fromarray(image), strength, sign) for image in images]
    expected = np.stack([np.asarray(image) for image in pillow]).astype(np.float32)
    assert (found != images).any() == (name != "identity")
    # Pillow cuts off where this rounds, and pixels half way between two may come from either.
    near = np.abs(found - expected) <= 1
    assert near.mean() > (0.97 if name in ("rotate", "shear_x", "shear_y") else 0.9999)


@pytest.mark.slow
def test_every_image_has_an_operation_of_its_own():
    choice = trivial_augment.choose(jax.random.key(0), 4000)
    counts = np.bincount(np.asarray(choice.operation), minlength=len(OPERATIONS))
    assert 0.8 < counts.min() / counts.mean() and counts.max() / counts.mean() < 1.2
    assert set(np.unique(np.asarray(choice.sign))) == {-1.0, 1.0}
    assert len(np.unique(np.asarray(choice.strength))) == 31
    images = pictures(len(OPERATIONS)).astype(np.float32)
    operation = jnp.arange(len(OPERATIONS), dtype=jnp.int32)
    whole = Choice(operation, jnp.full(len(images), 0.5), jnp.ones(len(images)))
    together = np.asarray(trivial_augment.apply(whole, jnp.asarray(images)))
    for i, name in enumerate(OPERATIONS):
        alone = applied(name, images[i : i + 1].astype(np.uint8), 0.5, 1.0)[0]
        np.testing.assert_array_equal(together[i], alone, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_whole_numbers_of_a_byte(channels: int):
    images = pictures(200, channels)
    choice = trivial_augment.choose(jax.random.key(1), len(images))
    found = np.asarray(trivial_augment.apply(choice, jnp.asarray(images, jnp.float32)))
    assert found.shape == images.shape and (found == np.round(found)).all()
    assert found.min() >= 0 and found.max() <= 255
