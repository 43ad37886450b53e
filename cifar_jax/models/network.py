"""What a network tells the rest of the code, besides its logits."""

import flax.linen as nn

from cifar_jax.config.schema import Rule


class Network(nn.Module):
    """Images `[B, H, W, C]` -> logits `[B, num_classes]` float32, by `__call__(images, train)`.

    With `train=True` it may use the rng stream "dropout" and update the collection "batch_stats".
    """

    def rules(self) -> tuple[Rule, ...]:
        """What sets some of its parameters apart; rules of the config come after these."""
        return ()

    def whitened(self) -> tuple[str, ...]:
        """The paths of the 2x2 kernels whose initial values are to whiten the training images."""
        return ()
