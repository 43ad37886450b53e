"""Layers as modules of their own, so that a summary sees them as rows of its table."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, "b h w c"], window: int
) -> Float[Array, "b {x.shape[1]//window} {x.shape[2]//window} c"]:
    """Max-pooling with stride = window, VALID.

    Written as the maximum of strided slices: the same function as `nn.max_pool`, whose gradient
    (select-and-scatter) is slow on CPU.
    """
    height, width = (x.shape[1] // window * window, x.shape[2] // window * window)
    pooled = x[:, :height:window, :width:window]
    for offset in range(1, window * window):
        row, column = divmod(offset, window)
        pooled = jnp.maximum(pooled, x[:, row:height:window, column:width:window])
    return pooled


class MaxPool(nn.Module):
    """`max_pool` as a layer."""

    window: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ c"]:
        return max_pool(x, self.window)


class Flatten(nn.Module):
    """`[B, H, W, C] -> [B, H * W * C]`, in row-major order."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h*w*c"]:
        return x.reshape(x.shape[0], -1)
