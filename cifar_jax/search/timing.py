"""Measures how long a config trains on this machine."""

import statistics
import time

import jax

from cifar_jax.config.schema import Config
from cifar_jax.data import sources
from cifar_jax.training import experiment
from cifar_jax.training.lanes import make_lanes

_STEPS = 5  # measured, after one that compiles


def measure(config: Config, dataset: sources.Dataset) -> dict[str, float]:
    """The median time of a train step in milliseconds, and of all steps in minutes.

    Neither counts compilation, validation or checkpoints.
    """
    exp = experiment.build(config, dataset)
    lanes = make_lanes([exp])
    order, state = lanes.order(0), exp.initial_state()
    times = []
    for _ in range(1 + _STEPS):
        began = time.monotonic()
        state, sums = lanes.dispatch(state, lanes.arrays, order, 1)
        jax.block_until_ready(sums)
        times.append(time.monotonic() - began)
    seconds = statistics.median(times[1:])
    minutes = seconds * config.epochs * exp.steps_per_epoch / 60
    return {"step_ms": 1000 * seconds, "minutes": minutes}
