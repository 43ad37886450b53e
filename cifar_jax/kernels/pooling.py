"""Max pooling that stores where its maxima are, so that the gradient need not search for them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cifar_jax.kernels.unfused import unfused


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(
    x: Float[Array, "b h w c"], window: int
) -> Float[Array, "b {x.shape[1]//window} {x.shape[2]//window} c"]:
    """Max pooling with stride = window and VALID padding; equals `nn.max_pool`, gradient included.

    If a window has several maxima, the gradient goes to the first one, as in XLA. XLA searches for
    it again in the backward pass (select-and-scatter), which is slow on CPU; here the forward pass
    stores its position.
    """
    return _maxima(x, window)


def _maxima(x: jax.Array, window: int) -> jax.Array:
    return nn.max_pool(x, window_shape=(window, window), strides=(window, window))


def _forward(x: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best = _maxima(x, window)
    # By themselves, or XLA would search for them in the backward pass after all.
    positions = unfused(functools.partial(_positions, window=window))(x, best)
    return best, (positions, jnp.zeros((0, *x.shape[1:3]), x.dtype))  # empty: carries the shape


def _positions(x: jax.Array, best: jax.Array, window: int) -> jax.Array:
    """The first position in each window, row by row, that holds the maximum."""
    height, width = best.shape[1] * window, best.shape[2] * window
    dtype = jnp.uint8 if window * window <= 256 else jnp.uint32
    found = lax.full(best.shape, window * window - 1, dtype)
    for offset in reversed(range(window * window - 1)):
        row, column = divmod(offset, window)
        candidate = x[:, row:height:window, column:width:window]
        found = lax.select(candidate == best, lax.full_like(found, offset), found)
    return found


def _backward(
    window: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    position, (_, height, width) = residuals[0], residuals[1].shape
    rows, columns = gradient.shape[1:3]
    # This repeats rows and columns instead of reshaping windows into an image: after a reshape, XLA
    # would compute the following operations twice, once in each shape.
    row, column = (np.arange(n * window) % window for n in (rows, columns))
    positions = (row[:, None] * window + column)[..., None].astype(position.dtype)

    def repeat(x: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.repeat(x, window, axis=1), window, axis=2)

    spread = jnp.where(repeat(position) == positions, repeat(gradient), 0)
    rest = ((0, 0), (0, height - rows * window), (0, width - columns * window), (0, 0))
    return (jnp.pad(spread, rest),)


max_pool.defvjp(_forward, _backward)
