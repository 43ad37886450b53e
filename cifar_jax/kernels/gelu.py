"""GELU, with a gradient that is computed once."""

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from cifar_jax.kernels.unfused import unfused


@jax.custom_vjp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Phi(x)`, Phi being the normal distribution (Hendrycks and Gimpel 2016): exact to rounding.

    `flax.linen.gelu` computes Phi by erfc, to keep digits of values near zero that nothing here
    needs; on CPU that takes XLA several times as long as erf.
    """
    return x * _phi(x)


def _phi(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + lax.erf(np.sqrt(0.5).astype(x.dtype) * x))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # By itself: several sums of batch norm need it, and XLA's library must not get its operations.
    return (unfused(_gradient)(x, gradient),)


def _gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    density = np.sqrt(0.5 / np.pi).astype(x.dtype) * lax.exp(-0.5 * x * x)
    return gradient * (_phi(x) + x * density)


gelu.defvjp(_forward, _backward)
