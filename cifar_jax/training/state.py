"""The train state: everything that decides the rest of a run, in one tree."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from cifar_jax.optim import callbacks, lookahead
from cifar_jax.optim.callbacks import Leaf


class EpochSums(flax.struct.PyTreeNode):
    """Sums over the steps of the epoch so far, so that no step waits for the host."""

    loss: Leaf  # float32, of the mean cross-entropies of the batches
    objective: Leaf  # float32, of loss + L2 penalty
    correct: Leaf  # int32, of images classified correctly
    steps: Leaf  # int32
    # int32: the first step of the run with a loss or gradient that is not finite; -1: none
    nonfinite_step: Leaf

    @staticmethod
    def zeros() -> "EpochSums":
        zero, count = jnp.zeros([], jnp.float32), jnp.zeros([], jnp.int32)
        return EpochSums(zero, zero, count, count, jnp.full([], -1, jnp.int32))


class TrainState(flax.struct.PyTreeNode):
    """A run between two steps. A checkpoint is this tree, whole."""

    step: Leaf  # int32, steps done
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    # The slow copy of params and batch_stats; None unless config.optimizer.lookahead_every.
    lookahead: Any
    ema_params: Any  # moving average of params; None unless config.optimizer.ema_decay
    callbacks: callbacks.Callbacks
    sums: EpochSums

    def variables(self) -> dict[str, Any]:
        """What evaluation uses: the averaged parameters where there are any."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, seed: int, image_shape: tuple[int, int, int]) -> dict:
    """Fresh `params` and `batch_stats` (empty without batch norm) from a seed."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def abstract(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    sharding: jax.sharding.Sharding,
) -> TrainState:
    """Shapes and dtypes of what `create` makes, for restoring it as `sharding` says."""
    shapes = jax.eval_shape(lambda: create(config, model, optimizer, image_shape))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def create(
    config: ConfigDict,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    stem: np.ndarray | None = None,
) -> TrainState:
    """The state before the first step; pure, so it can be jitted or only traced.

    Args:
      stem: the kernel of the layer "stem", where it is not to be drawn.
    """
    variables = init_variables(model, config.seed, image_shape)
    params = variables["params"]
    if stem is not None:
        params = {**params, "stem": {**params["stem"], "kernel": jnp.asarray(stem)}}
        variables = {**variables, "params": params}
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(params),
        lookahead=lookahead.init(config, variables),
        ema_params=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay else None,
        callbacks=callbacks.init(config),
        sums=EpochSums.zeros(),
    )
