"""One run, or several seeds of one config trained side by side in one program, a lane each.

A small network leaves much of a large device idle; other seeds can use it. Each lane gives the same
run as its seed alone, up to rounding: sums are taken in another order.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.runtime import compilation, sharding
from cifar_jax.training import progressive, steps
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.state import TrainState


@runtime_checkable
class Lanes(Protocol):
    """What the loop trains. With several lanes, all arrays have a leading axis of lanes."""

    arrays: Any  # the training images and labels

    def dispatch(self, epoch: int, /) -> steps.Dispatch:
        """What trains the steps of an epoch, counted from 0."""
        ...

    def order(self, epoch: int) -> Any:
        """The batches of an epoch, counted from 0: see `Experiment.epoch_order`."""
        ...

    def join(self, states: list[TrainState]) -> TrainState:
        """Stacks one state per lane to the state of all lanes."""
        ...

    def split(self, tree: Any) -> list[Any]:
        """Splits a tree of all lanes into one tree per lane."""
        ...


def make_lanes(experiments: list[Experiment]) -> Lanes:
    """Makes lanes for experiments whose configs differ only in the seed."""
    return _Single(experiments[0]) if len(experiments) == 1 else _SideBySide(experiments)


class _Single:
    def __init__(self, exp: Experiment):
        seed, statistics = exp.config.seed, exp.statistics
        self.dispatch = _dispatches(
            exp, lambda step, state, arrays, order: step(state, arrays, order, seed, statistics)
        )
        self.arrays, self.order = exp.put(exp.train), exp.epoch_order

    def join(self, states: list[TrainState]) -> TrainState:
        return states[0]

    def split(self, tree: Any) -> list[Any]:
        return [tree]


class _SideBySide:
    def __init__(self, experiments: list[Experiment]):
        self._experiments, first = experiments, experiments[0]
        seeds = first.put(np.array([exp.config.seed for exp in experiments], np.uint32))
        statistics = first.put(_stacked([exp.statistics for exp in experiments]))
        self.dispatch = _dispatches(
            first,
            lambda step, state, arrays, order: jax.vmap(step)(
                state, arrays, order, seeds, statistics
            ),
        )
        # Each lane has its own training split.
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


def _dispatches(
    exp: Experiment, train: Callable[[steps.TrainStep, TrainState, Any, Any], TrainState]
) -> Callable[[int], steps.Dispatch]:
    """Returns what gives the dispatch of an epoch. Epochs with the same step share a program.

    Args:
      train: `train(step, state, arrays, order)` -> new state, which calls `step`.
    """
    made: dict[Any, steps.Dispatch] = {}

    def of_epoch(epoch: int) -> steps.Dispatch:
        side = progressive.side(exp.config.augment.sides, exp.config.epochs, epoch)
        kind = side, exp.table.stopped(epoch)
        if kind not in made:
            step = functools.partial(train, exp.train_step(epoch))
            made[kind] = steps.make_dispatch(step, exp.mesh)
        return made[kind]

    return of_epoch


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
