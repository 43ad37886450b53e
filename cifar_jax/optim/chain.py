"""One optax chain: coupled L2 -> clipping -> direction -> decay -> rates -> schedule x plateau."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from cifar_jax.config.schema import Optimizer
from cifar_jax.optim import muon
from cifar_jax.optim.rules import Table


def make_optimizer(
    optimizer: Optimizer, schedule: optax.Schedule, table: Table, steps_per_epoch: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Builds the chain for the trained parameters of a table.

    `update(gradients, state, params, plateau_scale=...)` takes the current scale of the plateau as
    well. The L2 term `l2 * sum(w ** 2)` has the gradient `2 * l2 * w` (Keras'
    `kernel_regularizer`), which is added to that of the loss before clipping and Adam: coupled,
    unlike `weight_decay`.

    Args:
      schedule: step, from 0 -> learning rate.
      steps_per_epoch: turns the epochs in rules into steps.
    """
    weights = table.tree(lambda setting: setting.l2)
    chain: list[optax.GradientTransformation] = []
    for weight in sorted({leaf for leaf in jax.tree.leaves(weights) if leaf}):
        mask = jax.tree.map(lambda leaf, weight=weight: leaf == weight, weights)
        chain.append(optax.add_decayed_weights(2 * weight, mask))
    if optimizer.gradient_clip:
        chain.append(optax.clip_by_global_norm(optimizer.gradient_clip))
    chain.append(_DIRECTIONS[optimizer.name](optimizer, table))
    if optimizer.weight_decay:
        decayed = table.tree(lambda setting: setting.decay)
        chain.append(optax.add_decayed_weights(optimizer.weight_decay, decayed))
    relative = table.tree(lambda setting: setting.rate)
    if set(jax.tree.leaves(relative)) != {1.0}:
        chain.append(
            optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, relative))
        )
    chain.append(_scale_by_rate_and_plateau(schedule))
    if optimizer.name == "muon":
        chain.append(muon.keep_norms(table))
    if any(setting.start or setting.stop < math.inf for setting in table.settings.values()):
        chain.append(_only_from_start_to_stop(table, steps_per_epoch))
    return optax.with_extra_args_support(optax.chain(*chain))


def _adam(optimizer: Optimizer, _: Table) -> optax.GradientTransformation:
    return scale_by_keras_adam(optimizer.b1, optimizer.b2, optimizer.epsilon)


def _momentum(optimizer: Optimizer, _: Table) -> optax.GradientTransformation:
    return optax.trace(optimizer.momentum, optimizer.nesterov)


def _muon(optimizer: Optimizer, table: Table) -> optax.GradientTransformation:
    of_muon = muon.scale_by_muon(optimizer.muon_momentum)
    labels = table.tree(lambda setting: "muon" if setting.muon else "rest")
    return optax.partition({"muon": of_muon, "rest": _momentum(optimizer, table)}, labels)


_DIRECTIONS = {"adam": _adam, "adamw": _adam, "sgd": _momentum, "muon": _muon}


def _only_from_start_to_stop(table: Table, steps_per_epoch: int) -> optax.GradientTransformation:
    """Makes updates 0 outside the epochs in which a parameter is to train; counts steps."""
    first = table.tree(lambda setting: setting.start * steps_per_epoch)
    end = table.tree(lambda setting: setting.stop * steps_per_epoch)

    def update(updates: Any, step: jax.Array, params: Any = None) -> tuple[Any, jax.Array]:
        del params
        kept = jax.tree.map(
            lambda u, first, end: jnp.where((step >= first) & (step < end), u, 0),
            updates,
            first,
            end,
        )
        return kept, optax.safe_increment(step)

    return optax.GradientTransformation(lambda _: jnp.zeros([], jnp.int32), update)


def _scale_by_rate_and_plateau(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    rate = optax.scale_by_learning_rate(schedule)

    def update(
        updates: Any, state: Any, params: Any = None, *, plateau_scale: ArrayLike, **_: Any
    ) -> tuple[Any, Any]:
        updates, state = rate.update(updates, state, params)
        return jax.tree.map(lambda u: plateau_scale * u, updates), state

    return optax.GradientTransformationExtraArgs(rate.init, update)


class KerasAdamState(NamedTuple):
    step: jax.Array  # int32, updates so far
    mu: Any  # running mean of gradients
    nu: Any  # running mean of squared gradients


def scale_by_keras_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam as Keras computes it, with "epsilon hat" (Kingma & Ba 2015, end of section 2).

    `optax.scale_by_adam` adds epsilon to the bias-corrected root, Keras to the uncorrected one. In
    early steps this acts like an epsilon up to 1 / sqrt(1 - b2) times larger, which matters for
    small gradients.
    """

    def init(params: Any) -> KerasAdamState:
        return KerasAdamState(
            jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        )

    def update(
        updates: Any, state: KerasAdamState, params: Any = None
    ) -> tuple[Any, KerasAdamState]:
        del params
        step = optax.safe_increment(state.step)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, KerasAdamState(step, mu, nu)

    return optax.GradientTransformation(init, update)
