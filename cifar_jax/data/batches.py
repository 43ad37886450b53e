"""Batch order: which images form which batch, computed from the random key and the epoch alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, PRNGKeyArray


def epoch_order(
    key: PRNGKeyArray, epoch: Int[Array, ""] | int, size: int, batch_size: int
) -> Int32[Array, "{size//batch_size} {batch_size}"]:
    """Shuffles the images for one epoch and cuts them into batches; drops the last partial batch.

    Args:
      key: the run's key for the batch order, the same in all epochs.
      epoch: int32 scalar, from 0.
      size: number of images.
      batch_size: must not exceed `size`.

    Returns:
      `[size // batch_size, batch_size]` int32 indices below `size`, each at most once.
    """
    steps = size // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def padded_batches(size: int, batch_size: int) -> Int32[np.ndarray, "steps {batch_size}"]:
    """All indices below `size`, in order; zeros fill up the last batch.

    Returns:
      `[ceil(size / batch_size), batch_size]` int32.
    """
    steps = -(-size // batch_size)
    indices = np.zeros(steps * batch_size, np.int32)
    indices[:size] = np.arange(size)
    return indices.reshape(steps, batch_size)
