"""Lookahead (Zhang et al. 2019) with a scheduled decay, over parameters and batch statistics.

Every few steps the slow copy moves toward the fast one, which then restarts from the slow copy. As
in Jordan 2024, section 3.4, the slow copy's weight rises over the run, and the run ends with the
slow copy. `optax.lookahead` has a fixed weight and leaves out the statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp


def update(
    every: int, decay: float, step: jax.Array, steps: int, slow: Any, fast: Any
) -> tuple[Any, Any]:
    """Updates both copies after a step and returns `(slow, fast)`.

    Args:
      every: steps between updates of the slow copy.
      decay: per-step decay of the slow copy at the end of the run, in [0, 1).
      step: int32 scalar, steps done, this one included.
      steps: steps of the whole run.
      slow, fast: trees of the same structure, arrays of any shape.
    """
    due, last = step % every == 0, step == steps
    weight = jnp.where(due, 1 - decay**every * (step / steps) ** 3, 0.0)
    slow = jax.tree.map(lambda s, f: s + weight.astype(s.dtype) * (f - s), slow, fast)
    return slow, jax.tree.map(lambda s, f: jnp.where(due | last, s, f), slow, fast)
