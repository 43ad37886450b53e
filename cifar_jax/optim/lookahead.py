"""Lookahead (Zhang et al. 2019) with a scheduled decay, over parameters and batch statistics.

Every few steps a slow copy moves towards the fast one, which then starts anew from the slow. As in
Jordan 2024, section 3.4, the slow copy's weight rises with the run, and the run ends on it.
`optax.lookahead` has a fixed weight and does not see the statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp


def update(
    every: int, decay: float, step: jax.Array, steps: int, slow: Any, fast: Any
) -> tuple[Any, Any]:
    """Both copies after a step: `(slow, fast)`.

    Args:
      every: steps between meetings.
      decay: of the slow copy, per step, at the end of the run.
      step: int32 scalar, steps done.
      steps: of the whole run.
    """
    due, last = step % every == 0, step == steps
    weight = jnp.where(due, 1 - decay**every * (step / steps) ** 3, 0.0)
    slow = jax.tree.map(lambda s, f: s + weight.astype(s.dtype) * (f - s), slow, fast)
    return slow, jax.tree.map(lambda s, f: jnp.where(due | last, s, f), slow, fast)
