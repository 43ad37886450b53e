"""Initial kernels that pass channels on (Dirac), or whiten the images.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", sections 3.2 and 3.3.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +-1 / sqrt(fan_in)
STEM_SIDE = 2  # side of the stem's kernel, in pixels


def uniform(std: float) -> Callable[..., jax.Array]:
    """An initializer: uniform around 0 with this standard deviation, or `UNIFORM` if it is 0."""
    if not std:
        return UNIFORM
    limit = std * math.sqrt(3)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -limit, limit
    )


def stem_filters(channels: int) -> int:
    """Number of filters of a whitening stem: the eigenvectors of 2x2 patches, with both signs."""
    return 2 * STEM_SIDE**2 * channels


def dirac(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """U(+-1 / sqrt(fan_in)), except that each of the first C_in filters passes one channel on.

    Args:
      shape: `[rows, columns, C_in, C_out]` with odd rows and columns.
    """
    rows, columns, channels_in, channels_out = shape
    kernel = UNIFORM(key, shape, dtype)
    count = min(channels_in, channels_out)
    identity = jnp.zeros((rows, columns, channels_in, count), dtype)
    identity = identity.at[rows // 2, columns // 2].set(jnp.eye(channels_in, count, dtype=dtype))
    return kernel.at[..., :count].set(identity)


def whitening(
    images: UInt8[np.ndarray, "n h w c"],
    mean: Float[Array | np.ndarray, " c"] | None,
    std: Float[Array | np.ndarray, " c"] | None,
    epsilon: float,
) -> Float32[np.ndarray, "2 2 c k"]:
    """A stem kernel whose outputs are uncorrelated and have variance 1 on these images.

    The filters are the eigenvectors of `E[p p']` over all 2x2 patches p (not centered), each
    divided by `sqrt(eigenvalue + epsilon)`, with the largest eigenvalue first. Their negatives
    follow, so that the activation loses nothing.

    Args:
      mean, std: statistics that the network's images are standardized by; None if the network takes
        pixels in [0, 1].
    """
    pixels = images.astype(np.float64) / 255
    if mean is not None and std is not None:
        pixels = (pixels - mean) / std
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (STEM_SIDE, STEM_SIDE), (1, 2))
    channels = images.shape[-1]
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, STEM_SIDE**2 * channels)
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    # Rounding can make an eigenvalue slightly negative.
    filters = (vectors / np.sqrt(np.maximum(values, 0) + epsilon))[:, ::-1]
    kernel = np.concatenate([filters, -filters], axis=1)
    return kernel.reshape(STEM_SIDE, STEM_SIDE, channels, -1).astype(np.float32)
