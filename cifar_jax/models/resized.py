"""A network for images of another size."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float32

from cifar_jax.config.schema import Rule
from cifar_jax.data.augment import resize
from cifar_jax.models.network import Network


class Resized(Network):
    """Resizes images to `side`, then calls `network`, whose parameters keep their paths."""

    network: Network
    side: int

    def setup(self) -> None:
        nn.share_scope(self, self.network)

    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        return self.network(resize(images, self.side), train)

    @property
    def num_classes(self) -> int:
        """The number of classes of the network."""
        return self.network.num_classes

    @property
    def backbone_path(self) -> str:
        """See `Network`."""
        return self.network.backbone_path

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        return self.network.features(resize(images, self.side), train)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        return self.network.classify(features, train)

    def rules(self) -> tuple[Rule, ...]:
        return self.network.rules()

    def whitened(self) -> tuple[str, ...]:
        return self.network.whitened()
