"""The interface of a network."""

import flax.linen as nn

from cifar_jax.config.schema import Rule


class Network(nn.Module):
    """`__call__(images, train)` maps float32 `[B, H, W, C]` to float32 logits `[B, num_classes]`.

    With `train=True` it may use the rng stream "dropout" and update the collection "batch_stats".
    """

    def rules(self) -> tuple[Rule, ...]:
        """Settings for some of its parameters. The rules of the config come after these."""
        return ()

    def whitened(self) -> tuple[str, ...]:
        """The paths of the 2x2 kernels to initialize so that they whiten the training images."""
        return ()
