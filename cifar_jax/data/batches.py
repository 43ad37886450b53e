"""The index plan: which images make which batch, from the seed and the epoch alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, PRNGKeyArray


def epoch_order(
    key: PRNGKeyArray, epoch: Int[Array, ""] | int, size: int, batch_size: int
) -> Int32[Array, "{size//batch_size} {batch_size}"]:
    """The batches of an epoch: a fresh permutation, cut; the last partial batch is dropped.

    Args:
      key: of the run.
      epoch: int32 scalar, from 0.
      size: number of images.
      batch_size: at most `size`.

    Returns:
      `[size // batch_size, batch_size]` int32 indices, each image at most once.
    """
    steps = size // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def padded_batches(size: int, batch_size: int) -> Int32[np.ndarray, "steps {batch_size}"]:
    """All indices below `size` once and in order, then zeros to fill the last batch.

    Returns:
      `[ceil(size / batch_size), batch_size]` int32.
    """
    steps = -(-size // batch_size)
    indices = np.zeros(steps * batch_size, np.int32)
    indices[:size] = np.arange(size)
    return indices.reshape(steps, batch_size)
