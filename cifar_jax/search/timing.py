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
    """The mean time of a train step in milliseconds, and of all steps in minutes.

    The steps of an epoch count as the median of a few. Neither figure counts compilation,
    validation or checkpoints.
    """
    exp = experiment.build(config, dataset)
    lanes = make_lanes([exp])
    order, state = lanes.order(0), exp.initial_state()
    seconds = {}
    for epoch in range(config.epochs):
        dispatch, times = lanes.dispatch(epoch), []
        if dispatch in seconds:
            continue
        for _ in range(1 + _STEPS):
            began = time.monotonic()
            state, sums = dispatch(state, lanes.arrays, order, 1)
            jax.block_until_ready(sums)
            times.append(time.monotonic() - began)
        seconds[dispatch] = statistics.median(times[1:])
    mean = statistics.fmean(seconds[lanes.dispatch(epoch)] for epoch in range(config.epochs))
    return {"step_ms": 1000 * mean, "minutes": mean * config.epochs * exp.steps_per_epoch / 60}
