"""Preprocessing and augmentation: pure functions on device, of a batch and a key."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32, Int32, PRNGKeyArray, UInt8
from ml_collections import ConfigDict

Images = Float32[Array, "b h w c"]
Targets = Float32[Array, "b k"]  # rows of probabilities
Flips = Bool[Array, " b"]
Statistic = Float[Array | np.ndarray, " c"]


def normalize(
    images: UInt8[Array, "b h w c"], mean: Statistic | None, std: Statistic | None
) -> Images:
    """To float32 in [0, 1]; standardised where mean and deviation of the channels are given."""
    return standardize(images.astype(jnp.float32) / 255, mean, std)


def standardize(images: Images, mean: Statistic | None, std: Statistic | None) -> Images:
    """By mean and deviation of the channels, where they are given."""
    return images if mean is None or std is None else (images - mean) / std


def random_flips(key: PRNGKeyArray, size: int) -> Flips:
    """Which of `size` images to mirror: each with probability 1/2."""
    return jax.random.bernoulli(key, shape=(size,))


def alternating_flips(key: PRNGKeyArray, index: Int32[Array, " b"], epoch: ArrayLike) -> Flips:
    """Which images to mirror so that each is mirrored in every other epoch (Jordan 2024).

    Two epochs show both views of every image, where a coin shows one of them twice half of the
    time. Whether an image begins mirrored is random.

    Args:
      key: the same in all epochs.
      index: which images, by their place in the training set.
      epoch: int32 scalar.
    """
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)
    return first ^ (jnp.asarray(epoch) % 2 == 1)


def mirror(images: Images, flips: Flips) -> Images:
    """Mirrors left-right the images that `flips` picks."""
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def random_crop(key: PRNGKeyArray, images: Images, padding: int, fill: str = "zero") -> Images:
    """Pads each image, crops its size back at a random offset.

    Args:
      fill: "zero", or "reflect": with the image mirrored at its border, which is not repeated.
    """
    batch, height, width, channels = images.shape
    mode = "constant" if fill == "zero" else fill
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode)
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image, offset):
        return jax.lax.dynamic_slice(image, (*offset, 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def cutout(key: PRNGKeyArray, images: Images, size: int) -> Images:
    """Sets a random square of each image to zero; it lies wholly inside."""
    batch, height, width, _ = images.shape
    row_key, column_key = jax.random.split(key)

    def band(key, length):
        first = jax.random.randint(key, (batch, 1), 0, length - size + 1)
        position = jnp.arange(length)
        return (position >= first) & (position < first + size)

    hole = band(row_key, height)[:, :, None] & band(column_key, width)[:, None, :]
    return jnp.where(hole[..., None], 0, images)


def mixup(
    key: PRNGKeyArray, images: Images, targets: Targets, alpha: float
) -> tuple[Images, Targets]:
    """Mixes the batch with itself reversed, one weight ~ Beta(alpha, alpha) (Zhang et al. 2018).

    The batch order is random, so its reverse is as good as a permutation.
    """
    weight = jax.random.beta(key, alpha, alpha)
    mixed = [weight * x + (1 - weight) * x[::-1] for x in (images, targets)]
    return mixed[0], mixed[1]


def views(images: Images, kind: str) -> list[tuple[float, Images]]:
    """Test-time augmentation: weight and view, for a mean of logits.

    Args:
      kind: "none"; "flip": the image and its mirror; "multicrop": half of the weight on these, half
        on two crops of the image padded by one reflected pixel, top left and bottom right, and
        their mirrors (Jordan 2024, section 3.5).
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


def names(config: ConfigDict) -> list[str]:
    """The augmentations that `config.augment` turns on, in the order of their application."""
    augment = config.augment
    switches = {
        "alternating_flip" if augment.alternate_flips else "random_flip": augment.flip,
        "random_crop": augment.crop_padding,
        "cutout": augment.cutout,
        "mixup": augment.mixup,
    }
    return [name for name, on in switches.items() if on]


def augment(
    config: ConfigDict,
    key: PRNGKeyArray,
    images: Images,
    targets: Targets,
    flips: Flips | None = None,
) -> tuple[Images, Targets]:
    """Applies the augmentations of `config.augment` to normalised images and their targets.

    Each has its own key, so that turning one on does not change another's draws.

    Args:
      flips: which images to mirror where `config.augment.flip` is on; None: at random.
    """
    options = config.augment
    flip_key, crop_key, cutout_key, mixup_key = jax.random.split(key, 4)
    if options.flip:
        flips = random_flips(flip_key, len(images)) if flips is None else flips
        images = mirror(images, flips)
    if options.crop_padding:
        images = random_crop(crop_key, images, options.crop_padding, options.crop_fill)
    if options.cutout:
        images = cutout(cutout_key, images, options.cutout)
    if options.mixup:
        images, targets = mixup(mixup_key, images, targets, options.mixup)
    return images, targets
