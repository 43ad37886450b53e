"""Muon for convolutions (Jordan et al. 2024): steps that are orthogonal matrices.

A kernel `[rows, columns, C_in, C_out]` is taken as a matrix of `rows * columns * C_in` by `C_out`.
Its steps have a fixed size, so that of the kernel is fixed, too, as in airbench94_muon: before
each step it is scaled to the Frobenius norm `sqrt(C_out)`, a row's mean norm of 1.
"""

import jax
import jax.numpy as jnp
import optax

from cifar_jax.optim.rules import Table

_MATRIX = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
_STEPS = 3  # of Newton and Schulz' iteration, the recipe's; optax' default is 5


def scale_by_muon(momentum: float) -> optax.GradientTransformation:
    """Muon on trees of convolution kernels alone."""
    return optax.contrib.scale_by_muon(
        beta=momentum,
        ns_steps=_STEPS,
        eps=1e-7,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: _MATRIX, tree),
    )


def keep_norms(table: Table) -> optax.GradientTransformation:
    """Adds to each step of Muon's what brings its kernel to the norm `sqrt(C_out)` before."""
    of_muon = table.tree(lambda setting: setting.muon)

    def add(is_muon: bool, step: jax.Array, kernel: jax.Array) -> jax.Array:
        if not is_muon:
            return step
        norm = jnp.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel.ravel())
        return step + (norm - 1) * kernel

    return optax.stateless(lambda updates, params: jax.tree.map(add, of_muon, updates, params))
