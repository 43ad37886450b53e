"""Preprocessing and augmentation: pure functions of a batch and a random key, run on the device."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, UInt8

from cifar_jax.config.schema import Augment
from cifar_jax.data import mixing, trivial_augment

Images = Float32[Array, "b h w c"]
Targets = Float32[Array, "b k"]  # class probabilities; each row sums to 1
Flips = Bool[Array, " b"]
Statistic = Float[Array | np.ndarray, " c"]


def normalize(
    images: UInt8[Array, "b h w c"], mean: Statistic | None, std: Statistic | None
) -> Images:
    """Scales pixels to float32 in [0, 1], then standardizes them if `mean` and `std` are given."""
    return standardize(images.astype(jnp.float32) / 255, mean, std)


def standardize(images: Images, mean: Statistic | None, std: Statistic | None) -> Images:
    """`(images - mean) / std` per channel; unchanged if either is None."""
    return images if mean is None or std is None else (images - mean) / std


def resize(images: Images, side: int) -> Float32[Array, "b {side} {side} c"]:
    """Resizes images to `side` x `side` pixels by bicubic interpolation (Keys 1981, a = -0.5).

    Where it makes them smaller, it averages over the larger pixels (antialiasing), as Pillow does.
    Images of that size are returned as they are.
    """
    batch, height, width, channels = images.shape
    if height == width == side:
        return images
    return jax.image.resize(images, (batch, side, side, channels), "cubic")


def random_flips(key: PRNGKeyArray, size: int) -> Flips:
    """Picks which of `size` images to mirror, each with probability 1/2."""
    return jax.random.bernoulli(key, shape=(size,))


def alternating_flips(key: PRNGKeyArray, index: Int32[Array, " b"], epoch: ArrayLike) -> Flips:
    """Picks which images to mirror so that each is mirrored every other epoch (Jordan 2024).

    Any two consecutive epochs show both views of every image; independent random flips would show
    half of the images the same way twice. Whether an image is mirrored in epoch 0 is random.

    Args:
      key: must be the same in all epochs.
      index: positions of the images in the training set.
      epoch: int32 scalar, from 0.
    """
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)
    return first ^ (jnp.asarray(epoch) % 2 == 1)


def mirror(images: Images, flips: Flips) -> Images:
    """Mirrors left-right those images whose entry in `flips` is True."""
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_crop(key: PRNGKeyArray, images: Images, padding: int, fill: str = "zero") -> Images:
    """Pads each image on all sides, then crops it to its original size at a random offset.

    Args:
      padding: pixels added on each side.
      fill: "zero", or "reflect" (mirrors the image at its border without repeating the edge pixel).
    """
    batch, height, width, channels = images.shape
    mode = "constant" if fill == "zero" else fill
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode)
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*offset, 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def cutout(key: PRNGKeyArray, images: Images, size: int) -> Images:
    """Zeroes a random `size` x `size` square in each image; the square lies fully inside.

    Zero is the mean color only if the images are standardized. Unlike DeVries and Taylor (2017),
    the square is never clipped at the border.
    """
    batch, height, width, _ = images.shape
    row_key, column_key = jax.random.split(key)

    def band(key: PRNGKeyArray, length: int) -> jax.Array:
        first = jax.random.randint(key, (batch, 1), 0, length - size + 1)
        position = jnp.arange(length)
        return (position >= first) & (position < first + size)

    hole = band(row_key, height)[:, :, None] & band(column_key, width)[:, None, :]
    return jnp.where(hole[..., None], 0, images)


def jitter(key: PRNGKeyArray, pixels: Images, brightness: float, contrast: float) -> Images:
    """Changes brightness, then contrast, of each image by a random factor around 1.

    Args:
      pixels: in [0, 1], as is what is returned.
      brightness: all pixels of an image are multiplied by one factor, uniform in
        [1 - brightness, 1 + brightness].
      contrast: the same for their distance from the mean gray of the image.
    """

    def factors(key: PRNGKeyArray, strength: float) -> jax.Array:
        return 1 + strength * jax.random.uniform(key, (len(pixels), 1, 1, 1), minval=-1.0)

    brightness_key, contrast_key = jax.random.split(key)
    pixels = (factors(brightness_key, brightness) * pixels).clip(0, 1)
    mean = trivial_augment.gray(pixels).mean((1, 2), keepdims=True)
    return (mean + factors(contrast_key, contrast) * (pixels - mean)).clip(0, 1)


def trivial(key: PRNGKeyArray, pixels: Images) -> Images:
    """TrivialAugment on pixels in [0, 1]: see `trivial_augment.py`."""
    choice = trivial_augment.choose(key, len(pixels))
    return trivial_augment.apply(choice, jnp.round(255 * pixels)) / 255


def on_pixels(
    change: Callable[[Images], Images],
    images: Images,
    mean: Statistic | None,
    std: Statistic | None,
) -> Images:
    """Applies a function of pixels in [0, 1] to images standardized by `mean` and `std`."""
    pixels = images if mean is None or std is None else images * std + mean
    return standardize(change(pixels), mean, std)


def views(images: Images, kind: str) -> list[tuple[float, Images]]:
    """Test-time augmentation: the views to classify and the weight of each.

    Args:
      kind: "none": the images alone. "flip": the images and their mirror images. "multicrop"
        (Jordan 2024, section 3.5): half of the weight goes to those two; the other half goes to two
        crops (top left and bottom right) of the images padded by one reflected pixel, and to the
        mirror images of both crops.

    Returns:
      (weight, view) pairs for a weighted mean of the logits; the weights sum to 1 and each view has
      the shape of `images`.
    """
    if kind == "none":
        return [(1.0, images)]
    _, height, width, _ = images.shape
    plain = [images]
    if kind == "multicrop":
        padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        plain += [padded[:, :height, :width], padded[:, 2:, 2:]]
    weights = [1 / 2] if kind == "flip" else [1 / 4, 1 / 8, 1 / 8]
    both = [(view, view[:, :, ::-1]) for view in plain]
    return [(w, view) for w, pair in zip(weights, both, strict=True) for view in pair]


class Draw(NamedTuple):
    """Where in a run a batch is drawn."""

    images: Int32[Array, " b"]  # which ones of the training set
    epoch: ArrayLike  # int32 scalar, from 0
    flip_key: PRNGKeyArray  # of alternating flips: the same throughout a run
    # What the images are standardized by: mean and standard deviation of each channel.
    statistics: tuple[Statistic | None, Statistic | None]


class Augmentation(NamedTuple):
    """A way to vary a batch. A new one takes a function, an entry below and a key in the schema."""

    stream: int  # of its random draws; its own for good, so that earlier runs stay as they are
    name: Callable[[Augment], str | None]  # as a summary shows it; None where it is off
    apply: Callable[[Augment, PRNGKeyArray, Draw, Images, Targets], tuple[Images, Targets]]


def _flip(
    options: Augment, key: PRNGKeyArray, draw: Draw, images: Images, targets: Targets
) -> tuple[Images, Targets]:
    if options.alternate_flips:
        flips = alternating_flips(draw.flip_key, draw.images, draw.epoch)
    else:
        flips = random_flips(key, len(images))
    return mirror(images, flips), targets


# In the order they are applied.
AUGMENTATIONS = (
    Augmentation(
        0,
        lambda o: ("alternating_flip" if o.alternate_flips else "random_flip") if o.flip else None,
        _flip,
    ),
    Augmentation(
        1,
        lambda o: "random_crop" if o.crop_padding else None,
        lambda o, key, _, x, y: (random_crop(key, x, o.crop_padding, o.crop_fill), y),
    ),
    Augmentation(
        5,
        lambda o: "color_jitter" if o.brightness or o.contrast else None,
        lambda o, key, draw, x, y: (
            on_pixels(lambda p: jitter(key, p, o.brightness, o.contrast), x, *draw.statistics),
            y,
        ),
    ),
    Augmentation(
        4,
        lambda o: "trivial_augment" if o.trivial else None,
        lambda o, key, draw, x, y: (on_pixels(lambda p: trivial(key, p), x, *draw.statistics), y),
    ),
    Augmentation(
        2,
        lambda o: "cutout" if o.cutout else None,
        lambda o, key, _, x, y: (cutout(key, x, o.cutout), y),
    ),
    Augmentation(
        3,
        lambda o: "_or_".join(name for name in ("mixup", "cutmix") if getattr(o, name)) or None,
        lambda o, key, _, x, y: mixing.mix(key, x, y, o.mixup, o.cutmix),
    ),
)


def names(options: Augment) -> list[str]:
    """Names of the augmentations that are on, in the order they are applied."""
    return [name for entry in AUGMENTATIONS if (name := entry.name(options))]


def augment(
    options: Augment, key: PRNGKeyArray, draw: Draw, images: Images, targets: Targets
) -> tuple[Images, Targets]:
    """Applies the augmentations that are on to normalized images and their targets.

    Each has its own key, so turning one on does not change the random draws of the others.
    """
    keys = jax.random.split(key, len(AUGMENTATIONS))
    for entry in AUGMENTATIONS:
        if entry.name(options):
            images, targets = entry.apply(options, keys[entry.stream], draw, images, targets)
    return images, targets
