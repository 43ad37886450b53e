"""Max-pooling that notes where its maxima are, so that its gradient needs no search."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(
    x: Float[Array, "b h w c"], window: int
) -> Float[Array, "b {x.shape[1]//window} {x.shape[2]//window} c"]:
    """Max-pooling with stride = window, VALID: `nn.max_pool` in value and gradient.

    Of equal maxima the first has the gradient, as in XLA, which finds it anew by
    select-and-scatter, slow on CPU. Here the forward pass notes its place.
    """
    return _maxima(x, window)


def _maxima(x: jax.Array, window: int) -> jax.Array:
    return nn.max_pool(x, window_shape=(window, window), strides=(window, window))


def _forward(x: jax.Array, window: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    best = _maxima(x, window)
    height, width = best.shape[1] * window, best.shape[2] * window
    # The first place in the window that holds the maximum, row-major.
    dtype = jnp.uint8 if window * window <= 256 else jnp.uint32
    place = jnp.full(best.shape, window * window - 1, dtype)
    for offset in reversed(range(window * window - 1)):
        row, column = divmod(offset, window)
        candidate = x[:, row:height:window, column:width:window]
        place = jnp.where(candidate == best, dtype(offset), place)
    return best, (place, jnp.zeros((0, *x.shape[1:3]), x.dtype))


def _backward(
    window: int, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    place, (_, height, width) = residuals[0], residuals[1].shape
    rows, columns = gradient.shape[1:3]
    # Rows and columns are repeated one by one rather than windows reshaped into an image: XLA would
    # compute what follows once in either shape.
    row, column = (np.arange(n * window) % window for n in (rows, columns))
    places = (row[:, None] * window + column)[..., None].astype(place.dtype)

    def repeat(x: jax.Array) -> jax.Array:
        return jnp.repeat(jnp.repeat(x, window, axis=1), window, axis=2)

    spread = jnp.where(repeat(place) == places, repeat(gradient), 0)
    rest = ((0, 0), (0, height - rows * window), (0, width - columns * window), (0, 0))
    return (jnp.pad(spread, rest),)


max_pool.defvjp(_forward, _backward)
