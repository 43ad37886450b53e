"""Early stopping and reduce-on-plateau as pure functions of state that a checkpoint holds."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from cifar_jax.config.schema import EarlyStopping, Plateau

Leaf = Any  # of a state: an array, or what stands for one in an abstract or sharding tree


class Callbacks(flax.struct.PyTreeNode):
    """What the loop remembers from epoch to epoch; scalars, stepped once an epoch."""

    best_epoch: Leaf  # int32, from 1: the first with the best validation accuracy; 0: none
    best_accuracy: Leaf  # float32
    best_value: Leaf  # float32, of the monitored metric, sign turned so that less is better
    waited: Leaf  # int32, epochs without improvement of the monitored metric
    should_stop: Leaf  # bool
    plateau: Any  # optax' own state

    @property
    def learning_rate_scale(self) -> jax.Array:
        """float32 in (0, 1]: the product of the plateau's reductions."""
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

    Patience counts as Keras' `EarlyStopping` and `ReduceLROnPlateau` do: the n-th epoch in a row
    without improvement acts.

    Args:
      epoch: int32 scalar, from 1.
      loss: float32 scalar, of the validation split.
      accuracy: float32 scalar in [0, 1], of the validation split.
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
