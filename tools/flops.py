"""The one count of training FLOPs, which README, docs and benchmarks share."""

import re
from collections.abc import Sequence

import flax.linen as nn

from cifar_jax import models
from cifar_jax.config.schema import Rule
from cifar_jax.models import summary
from cifar_jax.models.network import Network
from cifar_jax.report.evidence import Run

IMAGE_SHAPE = (32, 32, 3)


def train_flops(
    model: nn.Module, image_shape: tuple[int, int, int], rules: Sequence[Rule] = ()
) -> int:
    """FLOPs of one image's train step: two for each multiply-add of a kernel.

    A kernel works three times: in the forward pass and in the gradients of its input and of itself.
    What comes before the first trained kernel needs no gradient, and a frozen kernel none of
    itself. Convolutions count as direct ones, whichever algorithm runs.

    Args:
      rules: the network's own, which say what is frozen.
    """
    frozen = [rule.path for rule in rules if rule.frozen]
    total, goes_on = 0, False
    for row in summary.layers(model, image_shape):
        if row.multiply_adds:
            trained = not any(re.fullmatch(path, f"{row.name}/kernel") for path in frozen)
            total += 2 * row.multiply_adds * (1 + trained + goes_on)
            goes_on |= trained
    return total


def of_run(run: Run) -> int:
    """`train_flops` of the network of a finished run on CIFAR-10."""
    model = _model(run)
    return train_flops(model, IMAGE_SHAPE, model.rules())


def multiply_adds(run: Run) -> int:
    """Multiply-adds of one image's forward pass, of the network of a finished run on CIFAR-10."""
    return sum(row.multiply_adds for row in summary.layers(_model(run), IMAGE_SHAPE))


def _model(run: Run) -> Network:
    assert run.result is not None
    config, classes = run.config, len(run.result["confusion_matrix"])
    return models.build(config.model, IMAGE_SHAPE, classes, resize=config.data.resize)
