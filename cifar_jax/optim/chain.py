"""One optax chain: coupled L2 -> clipping -> Adam, momentum or Muon -> learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from cifar_jax.optim import muon


class KerasAdamState(NamedTuple):
    step: jax.Array  # int32
    mu: Any
    nu: Any


def scale_by_keras_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam as Keras computes it, with "epsilon hat" (Kingma & Ba 2015, end of section 2).

    `optax.scale_by_adam` adds epsilon to the bias-corrected root; Keras adds it to the
    uncorrected one, which in early steps is as if its epsilon were up to 1 / sqrt(1 - b2) times
    larger. Small gradients feel it.
    """

    def init(params):
        return KerasAdamState(
            jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        )

    def update(updates, state, params=None):
        del params
        step = optax.safe_increment(state.step)
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, KerasAdamState(step, mu, nu)

    return optax.GradientTransformation(init, update)


def make_schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step, the plateau's factor aside."""
    schedule, peak = config.schedule, config.optimizer.learning_rate
    total = config.epochs * steps_per_epoch
    warmup = min(round(schedule.warmup_epochs * steps_per_epoch), total - 1)
    last = schedule.final_fraction
    if schedule.name == "one_cycle":
        # Linear up, linear down; by default 30 % of the run rises, as Smith & Topin 2018 do.
        rise = max(warmup, 1) if schedule.warmup_epochs else max(round(0.3 * total), 1)
        return optax.join_schedules(
            [
                optax.linear_schedule(peak / 25, peak, rise),
                optax.linear_schedule(peak, last * peak, total - rise),
            ],
            [rise],
        )
    if schedule.name == "linear":
        main = optax.linear_schedule(peak, last * peak, total - warmup)
    elif schedule.name == "cosine":
        main = optax.cosine_decay_schedule(peak, total - warmup, alpha=last)
    elif schedule.name == "piecewise":
        # join_schedules counts from the end of the warm-up; the boundaries are of the whole run.
        drops: dict[int, float] = {}
        for at in schedule.boundaries:
            step = round(at * total) - warmup
            drops[step] = drops.get(step, 1.0) * schedule.factor
        main = optax.piecewise_constant_schedule(peak, drops)
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    return optax.join_schedules(
        [optax.linear_schedule(schedule.initial_fraction * peak, peak, warmup), main], [warmup]
    )


def kernels(params) -> Any:
    """A mask tree: True at the leaves named "kernel"."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def rates(config: ConfigDict, params: Any) -> Any:
    """A tree like `params` with each leaf's learning rate relative to the config's; 0: frozen."""
    whitening = config.model.whitening

    def rate(path, _):
        layer, leaf = path[0].key, path[-1].key
        if layer.startswith("batch_normalization") and leaf == "bias":
            return config.optimizer.norm_bias_rate
        if layer == "head":
            return config.optimizer.head_rate
        if layer == "stem" and whitening.enabled:
            return whitening.bias_rate if leaf == "bias" else 0.0
        return 1.0

    return jax.tree_util.tree_map_with_path(rate, params)


def freeze(config: ConfigDict, params: Any) -> Any:
    """`params` without a gradient for those whose rate is 0: nothing is computed for them."""
    return jax.tree.map(
        lambda leaf, rate: leaf if rate else jax.lax.stop_gradient(leaf),
        params,
        rates(config, params),
    )


def l2_weights(config: ConfigDict, by_layer: dict[str, float], params: Any) -> Any:
    """A tree like `params` with the weight of each leaf's square in the objective.

    Args:
      by_layer: layer name -> weight of its kernel. `config.optimizer.l2` comes on top, for all that
        is trained; divided by a leaf's relative rate, so that all shrink at one pace. Not for
        kernels under Muon, whose norm is fixed.
    """
    fixed = config.optimizer.name == "muon"

    def weight(path, rate, label):
        if fixed and label == "muon":
            return 0.0
        own = by_layer.get(path[0].key, 0.0) if path[-1].key == "kernel" else 0.0
        return own + config.optimizer.l2 / rate if rate else 0.0

    return jax.tree_util.tree_map_with_path(weight, rates(config, params), muon.labels(params))


def make_optimizer(
    config: ConfigDict, schedule: optax.Schedule, l2: Any
) -> optax.GradientTransformation:
    """The chain of a config.

    Args:
      schedule: step -> learning rate.
      l2: of `l2_weights`. The penalty `l2 * sum(w ** 2)` has the gradient `2 * l2 * w` (Keras'
        `kernel_regularizer`), which joins the loss' gradient before clipping and Adam: coupled,
        unlike `weight_decay`.
    """
    optimizer = config.optimizer
    chain = []
    for weight in sorted({leaf for leaf in jax.tree.leaves(l2) if leaf}):
        mask = jax.tree.map(lambda leaf, weight=weight: leaf == weight, l2)
        chain.append(optax.add_decayed_weights(2 * weight, mask))
    if optimizer.gradient_clip:
        chain.append(optax.clip_by_global_norm(optimizer.gradient_clip))
    if optimizer.name == "sgd":
        chain.append(optax.trace(optimizer.momentum, optimizer.nesterov))
    elif optimizer.name == "muon":
        chain.append(muon.scale_by_muon(config, l2))
    else:
        chain.append(scale_by_keras_adam(optimizer.b1, optimizer.b2, optimizer.epsilon))
    if optimizer.weight_decay:
        chain.append(optax.add_decayed_weights(optimizer.weight_decay, kernels))
    relative = rates(config, l2)
    if set(jax.tree.leaves(relative)) != {1.0}:
        chain.append(
            optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, relative))
        )
    chain.append(optax.scale_by_learning_rate(schedule))
    if optimizer.name == "muon":
        chain.append(muon.keep_norms())
    return optax.chain(*chain)


def l2_penalty(params: Any, l2: Any) -> jax.Array:
    """`sum over leaves of l2 * sum(w ** 2)`, float32: what Keras adds to the printed loss."""
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(l2), strict=True)
    terms = [weight * jnp.sum(jnp.square(leaf)) for leaf, weight in leaves if weight]
    return jnp.asarray(sum(terms), jnp.float32)
