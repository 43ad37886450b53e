"""Every random stream of a run, by name. All that is drawn comes from the seed and the step.

Streams do not share keys, so that drawing more from one changes no other. Their numbers are part of
what a run is: a run is made again only with the same ones.
"""

import enum
from typing import NamedTuple

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PRNGKeyArray


class Stream(enum.IntEnum):
    """What is drawn."""

    INITIAL_VALUES = 0
    BATCH_ORDER = 1  # by epoch
    STEP = 2  # augmentation and dropout, by step
    ALTERNATING_FLIPS = 3  # by image


class StepKeys(NamedTuple):
    augment: PRNGKeyArray
    dropout: PRNGKeyArray


def key(seed: ArrayLike, stream: Stream) -> PRNGKeyArray:
    """The key of a stream.

    Args:
      seed: uint32 scalar, from 0.
    """
    return jax.random.fold_in(jax.random.key(seed), stream)


def at_step(seed: ArrayLike, step: Int[Array, ""]) -> StepKeys:
    """The keys of one train step, counted from 0."""
    return StepKeys(*jax.random.split(jax.random.fold_in(key(seed, Stream.STEP), step)))
