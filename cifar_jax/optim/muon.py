"""Muon for convolutions (Jordan et al. 2024): each step is an orthogonal matrix.

A kernel `[rows, columns, C_in, C_out]` is treated as a `rows * columns * C_in` by `C_out` matrix.
Muon's steps have a fixed norm, so the norm of the kernel is fixed, too, as in airbench94_muon:
before each step it is scaled to the Frobenius norm `sqrt(C_out)`, an average of 1 per filter.
"""

import jax
import jax.numpy as jnp
import optax

from cifar_jax.optim.rules import Table

_MATRIX = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
_STEPS = 3  # Newton-Schulz iterations, as in the recipe; optax' default is 5


def scale_by_muon(momentum: float) -> optax.GradientTransformation:
    """Muon for trees that contain only convolution kernels, `[rows, columns, C_in, C_out]`."""
    return optax.contrib.scale_by_muon(
        beta=momentum,
        ns_steps=_STEPS,
        eps=1e-7,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: _MATRIX, tree),
    )


def keep_norms(table: Table) -> optax.GradientTransformation:
    """Adds the rescaling of each kernel to the norm `sqrt(C_out)` to the kernel's Muon step."""
    of_muon = table.tree(lambda setting: setting.muon)

    def add(is_muon: bool, step: jax.Array, kernel: jax.Array) -> jax.Array:
        if not is_muon:
            return step
        norm = jnp.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel.ravel())
        return step + (norm - 1) * kernel

    return optax.stateless(lambda updates, params: jax.tree.map(add, of_muon, updates, params))
