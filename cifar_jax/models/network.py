"""The interface of a network."""

import flax.linen as nn
import jax

from cifar_jax.config.schema import Rule


class Network(nn.Module):
    """`__call__(images, train)` maps float32 `[B, H, W, C]` to float32 logits `[B, num_classes]`.

    With `train=True` it may use the rng stream "dropout" and update the collection "batch_stats".

    A network with a `backbone_path` has two more methods, and calls `classify` on `features`.
    """

    backbone_path = ""  # pattern of the paths of all parameters that `features` needs

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps images to features `[B, F]`, without the classifier."""
        raise NotImplementedError

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Maps features to float32 logits `[B, num_classes]`."""
        raise NotImplementedError

    def rules(self) -> tuple[Rule, ...]:
        """Settings for some of its parameters. The rules of the config come after these."""
        return ()

    def whitened(self) -> tuple[str, ...]:
        """The paths of the 2x2 kernels to initialize so that they whiten the training images."""
        return ()
