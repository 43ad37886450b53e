"""The train state: everything that decides the rest of a run, in one tree."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from cifar_jax import rng
from cifar_jax.optim import callbacks
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
    batch_stats: Any  # running statistics of batch norm; {} without
    opt_state: optax.OptState  # of the trained parameters alone
    lookahead: Any  # the slow copy of params and batch_stats; None where lookahead is off
    ema_params: Any  # moving average of params; None where it is off
    callbacks: callbacks.Callbacks
    sums: EpochSums

    def variables(self) -> dict[str, Any]:
        """What evaluation uses: the averaged parameters where there are any."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, seed: int, image_shape: tuple[int, int, int]) -> dict:
    """Fresh `params` and `batch_stats` (empty without batch norm) from a seed."""
    key = rng.key(seed, rng.Stream.INITIAL_VALUES)
    variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def create(
    variables: dict[str, Any],
    opt_state: optax.OptState,
    states: callbacks.Callbacks,
    *,
    lookahead: bool,
    ema: bool,
) -> TrainState:
    """The state before the first step.

    Args:
      lookahead, ema: whether there is a slow copy, and an average.
    """
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=opt_state,
        lookahead=jax.tree.map(jnp.copy, variables) if lookahead else None,
        ema_params=jax.tree.map(jnp.copy, variables["params"]) if ema else None,
        callbacks=states,
        sums=EpochSums.zeros(),
    )
