"""Published figures of the student's report that this project reproduces."""

import dataclasses
import re

from cifar_jax.config import files, keys, schema


@dataclasses.dataclass(frozen=True)
class Reported:
    """A model of the report: its results on the 10,000 test images, and what was new in it."""

    accuracy: float  # in [0, 1]
    objective: float  # cross-entropy in nats plus the L2 penalty, which Keras prints as loss
    cure: str  # what it adds against overfitting
    multiply_adds: int  # of one image's forward pass


# Keyed by the config that reproduces the model, in the report's order.
REPORTED = {
    "model1": Reported(0.6877, 1.1005, "nothing: it overfits", 4_548_608),
    "model2": Reported(0.7556, 0.8183, "dropout, random flips", 4_548_608),
    "model3": Reported(0.8169, 0.8241, "L2, a larger network", 49_488_512),
    "final": Reported(
        0.8637,
        0.7141,
        "batch norm, dropout, L2, early stopping, learning-rate schedule",
        58_663_552,
    ),
}

# Our fast recipes: mean test accuracy, as in results/, and multiply-adds.
SPEEDRUNS = {
    "speedrun_cpu": (0.8774, 43_126_688),
    "speedrun_searched": (0.8844, 75_526_176),
    "speedrun90": (0.9027, 54_223_904),
    "speedrun94": (0.9315, 118_147_360),
}

# Precision, recall and F1 of the final model for the ten classes, in the data set's order.
FINAL_CLASSES = (
    (0.87, 0.87, 0.87),
    (0.94, 0.91, 0.93),
    (0.85, 0.81, 0.83),
    (0.79, 0.69, 0.74),
    (0.83, 0.87, 0.85),
    (0.83, 0.79, 0.81),
    (0.84, 0.94, 0.88),
    (0.90, 0.90, 0.90),
    (0.86, 0.94, 0.90),
    (0.92, 0.90, 0.91),
)


def config_name(command: str) -> str | None:
    """The config in a run's command: "final" for `main.py --config=configs/final.py`.

    `--config=sweep.py:wide` is an experiment of its own, so it gives "sweep:wide". None if the
    command names no config.
    """
    match = re.search(r"--?config[= ]\S*?([\w-]+)\.py(:\S+)?", command)
    return match and match[1] + (match[2] or "")


def departures(command: str) -> list[str]:
    """The keys, sorted, with which a run's command departs from its config.

    A seed is no departure, nor is what depends on the machine alone, such as the place of the data.
    """
    default = schema.Config(model=schema.Model())
    free = {leaf.name for leaf in keys.leaves(default) if leaf.key.machine} | {"seed", "seeds"}
    return sorted(set(files.overridden(command.split())) - free)
