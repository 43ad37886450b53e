"""The random streams of a run, by name. All random numbers depend only on the seed and the step.

Streams do not share keys, so drawing more from one does not change another. Do not renumber them:
runs would no longer be reproducible.
"""

import enum
from typing import NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PRNGKeyArray


class Stream(enum.IntEnum):
    """What the random numbers are for, and what they depend on besides the seed."""

    INITIAL_VALUES = 0
    BATCH_ORDER = 1  # by epoch
    STEP = 2  # augmentation and dropout, by step
    ALTERNATING_FLIPS = 3  # by image


class StepKeys(NamedTuple):
    """The random keys of a train step."""

    augment: PRNGKeyArray
    dropout: PRNGKeyArray


def key(seed: ArrayLike, stream: Stream) -> PRNGKeyArray:
    """The key of a stream.

    Args:
      seed: integer scalar in [0, 2**32).
    """
    return jax.random.fold_in(jax.random.key(seed), stream)


def at_step(seed: ArrayLike, step: Int[Array, ""]) -> StepKeys:
    """The keys of one train step, counted from 0."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key(seed, Stream.STEP), step)))
