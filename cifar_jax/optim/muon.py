"""Muon for convolutions (Jordan et al. 2024): steps that are orthogonal matrices.

A kernel `[rows, columns, C_in, C_out]` is taken as a matrix of `rows * columns * C_in` by `C_out`.
Its steps have a fixed size, so that of the kernel is fixed, too, as in airbench94_muon: before
each step it is scaled to the Frobenius norm `sqrt(C_out)`, a row's mean norm of 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

_MATRIX = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
_STEPS = 3  # of Newton and Schulz' iteration, the recipe's; optax' default is 5


def labels(params: Any) -> Any:
    """A tree like `params`: "muon" at the kernels of the layers "conv2d_...", else "rest"."""

    def label(path, _):
        is_kernel = path[0].key.startswith("conv2d") and path[-1].key == "kernel"
        return "muon" if is_kernel else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


def scale_by_muon(config: ConfigDict, like: Any) -> optax.GradientTransformation:
    """Muon on the convolutions of trees like `like`, SGD with momentum on the rest."""
    optimizer = config.optimizer
    muon = optax.contrib.scale_by_muon(
        beta=optimizer.muon_momentum,
        ns_steps=_STEPS,
        eps=1e-7,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: _MATRIX, tree),
    )
    rest = optax.trace(optimizer.momentum, optimizer.nesterov)
    return optax.partition({"muon": muon, "rest": rest}, labels(like))


def keep_norms() -> optax.GradientTransformation:
    """Adds to each step of Muon's what brings its kernel to the norm `sqrt(C_out)` before."""

    def update(updates, params):
        def add(label, step, kernel):
            if label != "muon":
                return step
            norm = jnp.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel.ravel())
            return step + (norm - 1) * kernel

        return jax.tree.map(add, labels(params), updates, params)

    return optax.stateless(update)
