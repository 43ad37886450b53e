"""The train state: everything that determines the rest of a run, in one tree."""

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
    """Sums over the epoch so far, kept on the devices so that no step waits for the host."""

    loss: Leaf  # float32, sum of the batches' mean cross-entropies
    objective: Leaf  # float32, sum of loss + L2 penalty
    correct: Leaf  # int32, images classified correctly
    steps: Leaf  # int32, steps so far
    # int32: the first step of the run with a loss or gradient that is not finite; -1: none
    nonfinite_step: Leaf

    @staticmethod
    def zeros() -> "EpochSums":
        """The sums before the first step."""
        zero, count = jnp.zeros([], jnp.float32), jnp.zeros([], jnp.int32)
        return EpochSums(zero, zero, count, count, jnp.full([], -1, jnp.int32))


class TrainState(flax.struct.PyTreeNode):
    """The state of a run between two steps. A checkpoint holds exactly this tree."""

    step: Leaf  # int32, steps done
    params: Any
    batch_stats: Any  # running statistics of batch norm; {} if there is none
    opt_state: optax.OptState  # of the trained parameters only
    lookahead: Any  # slow copy of params and batch_stats; None if lookahead is off
    ema_params: Any  # moving average of params; None if averaging is off
    callbacks: callbacks.Callbacks
    sums: EpochSums

    def variables(self) -> dict[str, Any]:
        """The variables to evaluate: "params", averaged if averaging is on, and "batch_stats"."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, "batch_stats": self.batch_stats}


def init_variables(model: nn.Module, seed: int, image_shape: tuple[int, int, int]) -> dict:
    """Random initial "params", and "batch_stats", which is empty without batch norm.

    Args:
      image_shape: `[H, W, C]`.
    """
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
      variables: "params" and "batch_stats".
      lookahead, ema: whether to keep a slow copy, and a moving average.
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
