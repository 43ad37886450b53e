"""One run as a program, or several seeds of one config as one program of several lanes.

What a small network leaves idle of a large device, other seeds can use. Each lane is the run that
its seed alone would make, but for the rounding of sums in another order.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.runtime import compilation, sharding
from cifar_jax.training import steps
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.state import TrainState


@runtime_checkable
class Lanes(Protocol):
    """What the loop trains. Trees have a leading axis of lanes, where there are several."""

    dispatch: steps.Dispatch
    arrays: Any  # the training images and labels

    def order(self, epoch: int) -> Any:
        """The batches of an epoch."""
        ...

    def join(self, states: list[TrainState]) -> TrainState: ...

    def split(self, tree: Any) -> list[Any]: ...


def make_lanes(experiments: list[Experiment]) -> Lanes:
    """Lanes for experiments whose configs differ in the seed alone."""
    return _Single(experiments[0]) if len(experiments) == 1 else _SideBySide(experiments)


class _Single:
    def __init__(self, exp: Experiment):
        step, seed, statistics = exp.train_step(), exp.config.seed, exp.statistics
        self.dispatch = steps.make_dispatch(
            lambda state, arrays, order: step(state, arrays, order, seed, statistics), exp.mesh
        )
        self.arrays, self.order = exp.put(exp.train), exp.epoch_order

    def join(self, states: list[TrainState]) -> TrainState:
        return states[0]

    def split(self, tree: Any) -> list[Any]:
        return [tree]


class _SideBySide:
    def __init__(self, experiments: list[Experiment]):
        self._experiments, first = experiments, experiments[0]
        step = first.train_step()
        seeds = first.put(np.array([exp.config.seed for exp in experiments], np.uint32))
        statistics = first.put(_stacked([exp.statistics for exp in experiments]))
        self.dispatch = steps.make_dispatch(
            lambda state, arrays, order: jax.vmap(step)(state, arrays, order, seeds, statistics),
            first.mesh,
        )
        # Each has a training split of its own.
        self.arrays = first.put(_stacked([exp.train for exp in experiments]))
        self._stack = compilation.jit(
            lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
            out_shardings=sharding.replicated(first.mesh),
        )

    def order(self, epoch: int) -> jax.Array:
        return self._stack([exp.epoch_order(epoch) for exp in self._experiments])

    def join(self, states: list[TrainState]) -> TrainState:
        return self._stack(states)

    def split(self, tree: Any) -> list[Any]:
        count = len(self._experiments)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
