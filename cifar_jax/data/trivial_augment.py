"""TrivialAugment (Müller and Hutter 2021, arXiv 2103.10158), its "wide" space, on the device.

Each image gets one of 14 operations, at a strength of its own. An operation moves pixels, blends
the image with another one made from it, or maps its values. So every image passes the same three
stages, and two of them leave it as it is: the device never branches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, PRNGKeyArray

Pixels = Float32[Array, "b h w c"]  # whole numbers from 0 to 255
Scalars = Float32[Array, " b"]

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
_LEVELS = 31  # of strength, the weakest of which changes nothing or little
_SHEAR, _TRANSLATE, _ROTATE, _BLEND = 0.99, 32.0, 135.0, 0.99  # strongest; pixels and degrees
_BITS = 6  # that posterize removes at its strongest
_GRAY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
_SMOOTH = 13.0  # weight of a smoothing kernel of ones around a 5


class Choice(NamedTuple):
    """What happens to each image."""

    operation: Int32[Array, " b"]  # an index into `OPERATIONS`
    strength: Scalars  # in [0, 1]
    sign: Scalars  # -1 or 1, for operations that have two directions


def choose(key: PRNGKeyArray, size: int) -> Choice:
    """Draws an operation, a strength and a sign for each of `size` images, all equally likely."""
    keys = jax.random.split(key, 3)
    operation = jax.random.randint(keys[0], (size,), 0, len(OPERATIONS))
    strength = jax.random.randint(keys[1], (size,), 0, _LEVELS) / (_LEVELS - 1)
    return Choice(operation, strength, jax.random.rademacher(keys[2], (size,), jnp.float32))


def apply(choice: Choice, images: Pixels) -> Pixels:
    """Applies to each image its operation. Pixels from outside are 0."""
    return _mapped(choice, jnp.round(_blended(choice, _moved(choice, images))))


def _value(choice: Choice, name: str, value: jax.Array, otherwise: float) -> Scalars:
    """`value` for the images whose operation is `name`."""
    return jnp.where(choice.operation == OPERATIONS.index(name), value, otherwise)


def _moved(choice: Choice, images: Pixels) -> Pixels:
    """Shears, translates, or rotates around the center; a pixel comes from where it was nearest."""
    _, height, width, _ = images.shape
    signed = choice.sign * choice.strength
    angle = _value(choice, "rotate", jnp.deg2rad(_ROTATE) * signed, 0.0)
    shear_x, shear_y, right, down = (
        _value(choice, name, strongest * signed, 0.0)[:, None, None]
        for name, strongest in (
            ("shear_x", _SHEAR),
            ("shear_y", _SHEAR),
            ("translate_x", _TRANSLATE),
            ("translate_y", _TRANSLATE),
        )
    )
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    # The centers of the pixels. Shears leave the first row or column where it is, as Pillow's do.
    row, column = jnp.arange(height)[:, None] + 0.5, jnp.arange(width)[None, :] + 0.5
    y, x = row - height / 2, column - width / 2
    to_x = cos * x - sin * y + width / 2 + shear_x * row - right
    to_y = cos * y + sin * x + height / 2 + shear_y * column - down
    from_x, from_y = (jnp.floor(place).astype(jnp.int32) for place in (to_x, to_y))
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    found = jax.vmap(lambda image, i, j: image[i, j])(
        images, from_y.clip(0, height - 1), from_x.clip(0, width - 1)
    )
    return jnp.where(inside[..., None], found, 0.0)


def gray(images: Pixels) -> Float32[Array, "b h w 1"]:
    """The luma of colors; the mean of the channels if there are not three."""
    channels = images.shape[-1]
    weights = jnp.array(_GRAY if channels == len(_GRAY) else [1 / channels] * channels)
    return (images @ weights)[..., None]


def _blended(choice: Choice, images: Pixels) -> Pixels:
    """Changes brightness, color, contrast or sharpness, by a factor from 0.01 to 1.99."""
    luma = jnp.round(gray(images))
    mean = jnp.round(luma.mean((1, 2), keepdims=True))
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    around = jax.lax.reduce_window(padded, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "VALID")
    smooth = jnp.round((around + 4 * images) / _SMOOTH)
    # The border stays as it is.
    smooth = images.at[:, 1:-1, 1:-1].set(smooth[:, 1:-1, 1:-1])
    others = {"brightness": 0 * images, "color": luma, "contrast": mean, "sharpness": smooth}
    factor = 1 + _BLEND * choice.sign * choice.strength
    for name, other in others.items():
        share = _value(choice, name, factor, 1.0)[:, None, None, None]
        images = other + share * (images - other)
    return images.clip(0, 255)


def _mapped(choice: Choice, images: Pixels) -> Pixels:
    """Posterizes, solarizes, stretches the contrast, or equalizes the histogram of each channel."""
    step = 2.0 ** jnp.round(_BITS * _value(choice, "posterize", choice.strength, 0.0))
    step = step[:, None, None, None]
    images = jnp.floor(images / step) * step
    threshold = 255 * (1 - _value(choice, "solarize", choice.strength, -1.0))[:, None, None, None]
    images = jnp.where(images >= threshold, 255 - images, images)
    low, high = (f((1, 2), keepdims=True) for f in (images.min, images.max))
    stretched = jnp.floor((images - low) * 255 / jnp.maximum(high - low, 1))
    for name, changed in (("autocontrast", stretched), ("equalize", _equalized(images))):
        is_chosen = choice.operation == OPERATIONS.index(name)
        images = jnp.where(is_chosen[:, None, None, None], changed, images)
    return images


def _equalized(images: Pixels) -> Pixels:
    """Spreads each channel's values so that all are about equally frequent, as Pillow does."""

    def channel(values: Float32[Array, "h w"]) -> Float32[Array, "h w"]:
        index = values.astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[index].add(1)
        last = counts[index.max()]
        step = (values.size - last) // 255
        before = jnp.cumsum(counts) - counts
        table = jnp.minimum((step // 2 + before) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table[index].astype(jnp.float32), values)

    return jax.vmap(jax.vmap(channel, -1, -1))(images)
