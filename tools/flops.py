"""The one count of training FLOPs, which README, docs and benchmarks share."""

import flax.linen as nn

from cifar_jax.models import summary


def train_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOPs of one image's train step: two for each multiply-add of a kernel.

    A kernel works three times: in the forward pass and in the gradients of its input and of itself.
    The first one needs no input gradient. Convolutions count as direct ones, whichever algorithm
    runs.
    """
    work = [row.multiply_adds for row in summary.layers(model, image_shape) if row.multiply_adds]
    return 2 * (3 * sum(work) - work[0])
