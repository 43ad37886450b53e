"""The learning rate as a function of the step."""

import optax

from cifar_jax.config.schema import Schedule


def make_schedule(
    schedule: Schedule, peak: float, epochs: int, steps_per_epoch: int
) -> optax.Schedule:
    """Returns a function from the step, counted from 0, to the learning rate.

    The reductions of the plateau come on top, in the chain.

    Args:
      peak: the learning rate at the end of the warm-up.
      epochs: number of epochs of the run.
    """
    total = epochs * steps_per_epoch
    warmup = min(round(schedule.warmup_epochs * steps_per_epoch), total - 1)
    last = schedule.final_fraction
    if schedule.name == "one_cycle":
        # Linear up, linear down; by default up for 30 % of the run. Smith & Topin 2018.
        rise = max(warmup, 1) if schedule.warmup_epochs else max(round(0.3 * total), 1)
        return optax.join_schedules(
            [
                optax.linear_schedule(peak / 25, peak, rise),
                optax.linear_schedule(peak, last * peak, total - rise),
            ],
            [rise],
        )
    if schedule.name == "linear":
        main = optax.linear_schedule(peak, last * peak, total - warmup)
    elif schedule.name == "cosine":
        main = optax.cosine_decay_schedule(peak, total - warmup, alpha=last)
    elif schedule.name == "piecewise":
        # join_schedules counts from the end of the warm-up, the boundaries from the start.
        drops: dict[int, float] = {}
        for at in schedule.boundaries:
            step = round(at * total) - warmup
            drops[step] = drops.get(step, 1.0) * schedule.factor
        main = optax.piecewise_constant_schedule(peak, drops)
    else:
        main = optax.constant_schedule(peak)
    if not warmup:
        return main
    return optax.join_schedules(
        [optax.linear_schedule(schedule.initial_fraction * peak, peak, warmup), main], [warmup]
    )
