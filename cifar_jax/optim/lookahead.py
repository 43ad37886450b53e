"""Lookahead (Zhang et al. 2019) with a scheduled decay, over parameters and batch statistics.

Every few steps a slow copy moves towards the fast one, which then starts anew from the slow. As in
Jordan 2024, section 3.4, the slow copy's weight rises with the run, and the run ends on it.
`optax.lookahead` has a fixed weight and does not see the statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


def init(config: ConfigDict, fast: Any) -> Any:
    """The slow copy of a tree of float arrays; None where lookahead is off."""
    return jax.tree.map(jnp.copy, fast) if config.optimizer.lookahead_every else None


def update(config: ConfigDict, step: jax.Array, steps: int, slow: Any, fast: Any) -> Any:
    """Both copies after a step: `(slow, fast)`.

    Args:
      step: int32 scalar, steps done.
      steps: of the whole run.
    """
    every = config.optimizer.lookahead_every
    due, last = step % every == 0, step == steps
    decay = config.optimizer.lookahead_decay**every * (step / steps) ** 3
    weight = jnp.where(due, 1 - decay, 0.0)
    slow = jax.tree.map(lambda s, f: s + weight.astype(s.dtype) * (f - s), slow, fast)
    return slow, jax.tree.map(lambda s, f: jnp.where(due | last, s, f), slow, fast)
