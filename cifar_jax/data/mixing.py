"""Mixup and CutMix: each image is mixed with another one of its batch, and so are their targets.

The original papers mix with a random permutation of the batch. The batch order is already random,
so its reverse does the same.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray

Images = Float32[Array, "b h w c"]
Targets = Float32[Array, "b k"]  # class probabilities; each row sums to 1


def mix(
    key: PRNGKeyArray, images: Images, targets: Targets, mixup_alpha: float, cutmix_alpha: float
) -> tuple[Images, Targets]:
    """Mixup or CutMix, whichever has an alpha above 0; with both, one of them by a fair coin."""

    def by_mixup(key: PRNGKeyArray) -> tuple[Images, Targets]:
        return mixup(key, images, targets, mixup_alpha)

    def by_cutmix(key: PRNGKeyArray) -> tuple[Images, Targets]:
        return cutmix(key, images, targets, cutmix_alpha)

    if not (mixup_alpha and cutmix_alpha):
        return by_mixup(key) if mixup_alpha else by_cutmix(key)
    coin_key, key = jax.random.split(key)
    return jax.lax.cond(jax.random.bernoulli(coin_key), by_mixup, by_cutmix, key)


def mixup(
    key: PRNGKeyArray, images: Images, targets: Targets, alpha: float
) -> tuple[Images, Targets]:
    """The weighted mean of the batch and its reverse, with one weight ~ Beta(alpha, alpha) for all
    images (Zhang et al. 2018)."""
    weight = jax.random.beta(key, alpha, alpha)
    mixed = [weight * x + (1 - weight) * x[::-1] for x in (images, targets)]
    return mixed[0], mixed[1]


def cutmix(
    key: PRNGKeyArray, images: Images, targets: Targets, alpha: float
) -> tuple[Images, Targets]:
    """Puts a rectangle of the batch's reverse into the batch, at one place for all images.

    Its sides have the same share of the image's, the square root of 1 - weight, with weight ~
    Beta(alpha, alpha); its center is anywhere, so it is cut off at the border (Yun et al. 2019).
    The targets are mixed by the area that it has.
    """
    _, height, width, _ = images.shape
    weight_key, *place_keys = jax.random.split(key, 3)
    share = jnp.sqrt(1 - jax.random.beta(weight_key, alpha, alpha))
    bands = []
    for place_key, length in zip(place_keys, (height, width), strict=True):
        center = jax.random.randint(place_key, (), 0, length)
        half = jnp.floor(share * length / 2).astype(jnp.int32)
        position = jnp.arange(length)
        bands.append((position >= center - half) & (position < center + half))
    patch = bands[0][:, None] & bands[1][None, :]
    area = patch.mean()
    images = jnp.where(patch[:, :, None], images[::-1], images)
    return images, (1 - area) * targets + area * targets[::-1]
