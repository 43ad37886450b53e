"""The one count of training FLOPs, which README, docs and benchmarks share."""

import flax.linen as nn

from cifar_jax import models
from cifar_jax.models import summary
from cifar_jax.report.evidence import Run

IMAGE_SHAPE = (32, 32, 3)


def train_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOPs of one image's train step: two for each multiply-add of a kernel.

    A kernel works three times: in the forward pass and in the gradients of its input and of itself.
    The first one needs no input gradient. Convolutions count as direct ones, whichever algorithm
    runs.
    """
    work = [row.multiply_adds for row in summary.layers(model, image_shape) if row.multiply_adds]
    return 2 * (3 * sum(work) - work[0])


def of_run(run: Run) -> int:
    """`train_flops` of the network of a finished run on CIFAR-10."""
    assert run.result is not None
    config, classes = run.config, len(run.result["confusion_matrix"])
    model = models.build(config.model, IMAGE_SHAPE, classes, resize=config.data.resize)
    return train_flops(model, IMAGE_SHAPE)
