"""Early stopping and reduce-on-plateau, as pure functions of a state kept in checkpoints."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from cifar_jax.config.schema import EarlyStopping, Plateau

Leaf = Any  # an array, or its shape or sharding in a tree of those


class Callbacks(flax.struct.PyTreeNode):
    """What the loop remembers from epoch to epoch: scalars, updated once per epoch."""

    best_epoch: Leaf  # int32, from 1: the first epoch with the best validation accuracy; 0: none
    best_accuracy: Leaf  # float32, the best validation accuracy
    best_value: Leaf  # float32: the best monitored metric, negated if it is an accuracy
    waited: Leaf  # int32: epochs since the monitored metric improved
    should_stop: Leaf  # bool
    plateau: Any  # the state of `optax.contrib.reduce_on_plateau`

    @property
    def learning_rate_scale(self) -> jax.Array:
        """The product of all reductions so far: a float32 scalar in [0, 1]."""
        return self.plateau.scale


def _reduce(plateau: Plateau) -> optax.GradientTransformationExtraArgs:
    return optax.contrib.reduce_on_plateau(
        factor=plateau.factor,
        patience=plateau.patience,
        rtol=0.0,
        atol=plateau.min_delta,
        cooldown=plateau.cooldown,
        min_scale=plateau.min_scale,
    )


def init(plateau: Plateau) -> Callbacks:
    """The state before the first epoch."""
    return Callbacks(
        best_epoch=jnp.zeros([], jnp.int32),
        best_accuracy=jnp.full([], -jnp.inf, jnp.float32),
        best_value=jnp.full([], jnp.inf, jnp.float32),
        waited=jnp.zeros([], jnp.int32),
        should_stop=jnp.zeros([], bool),
        plateau=_reduce(plateau).init({}),
    )


def update(
    stopping: EarlyStopping,
    plateau: Plateau,
    state: Callbacks,
    epoch: jax.Array,
    loss: jax.Array,
    accuracy: jax.Array,
) -> Callbacks:
    """The state after an epoch.

    Patience works as in Keras' `EarlyStopping` and `ReduceLROnPlateau`: the run stops, or the rate
    is reduced, at the `patience`-th epoch in a row without improvement.

    Args:
      epoch: int32 scalar, counted from 1.
      loss: float32 scalar, the validation loss.
      accuracy: float32 scalar in [0, 1], the validation accuracy.
    """
    new_best = accuracy > state.best_accuracy
    value = loss if stopping.metric == "validation_loss" else -accuracy
    improved = value < state.best_value - stopping.min_delta
    waited = jnp.where(improved, 0, state.waited + 1)
    reduced = state.plateau
    if plateau.enabled:
        _, reduced = _reduce(plateau).update({}, reduced, value=loss)
    return Callbacks(
        best_epoch=jnp.where(new_best, epoch, state.best_epoch),
        best_accuracy=jnp.where(new_best, accuracy, state.best_accuracy),
        best_value=jnp.where(improved, value, state.best_value),
        waited=waited,
        should_stop=stopping.enabled & (waited >= stopping.patience),
        plateau=reduced,
    )
