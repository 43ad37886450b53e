"""Runs a network over all images of a data set, batch by batch."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8

from cifar_jax.data import batches
from cifar_jax.training import steps

_AHEAD = 2  # batches in flight: the device never waits for the host, and few hold memory


def predict(
    eval_step: Callable[..., jax.Array],
    variables: dict,
    images: UInt8[Array, "n h w c"] | steps.Features,
    batch_size: int,
) -> Float32[np.ndarray, "n k"]:
    """Computes the logits of all images, in order; or their features, if `eval_step` does.

    The last batch is padded with image 0 and the padding is cut off, so there is one compiled shape
    and no image is lost or counted twice.
    """
    parts: list[jax.Array] = []
    for batch in batches.padded_batches(len(images), batch_size):
        parts.append(eval_step(variables, images, batch))
        jax.block_until_ready(parts[:-_AHEAD][-1:])
    logits = np.concatenate(jax.device_get(parts))[: len(images)]
    assert logits.shape[0] == len(images)
    return logits
