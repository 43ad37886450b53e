"""A family of plain CNNs, which includes the four models of the report."""

import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float32

from cifar_jax.config.keys import REQUIRED, Needs, key
from cifar_jax.config.schema import Model, Rule, family
from cifar_jax.errors import UserError
from cifar_jax.forms import FLAG, FRACTION, SIZE, all_of, number, one_of
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.models.initializers import dirac
from cifar_jax.models.layers import Flatten, MaxPool, stem, stem_rules
from cifar_jax.models.network import Network

# The report used Keras, so Keras' defaults apply: Glorot uniform kernels, zero biases (as in Flax),
# and, below, batch norm with momentum 0.99 and epsilon 1e-3.
_GLOROT = nn.initializers.glorot_uniform()


@dataclasses.dataclass(frozen=True)
class ConvBlock:
    """Convolutions, each with ReLU and [batch norm]; then [max-pool], [dropout].

    The order follows the tables of the report. They do not show the ReLU, since Keras includes it
    in the convolution (`Conv2D(..., activation="relu")`); so it comes before batch norm.
    """

    filters: int = key(REQUIRED, SIZE, "number of filters of the convolution")
    kernel: int = key(3, SIZE, "side of the convolution kernel, in pixels")
    padding: str = key("SAME", one_of("SAME", "VALID"), "padding of the convolution")
    batch_norm: bool = key(False, FLAG, "add batch norm")
    pool: int = key(2, SIZE, "window and stride of the max-pooling; 1: no pooling")
    dropout: float = key(0.0, FRACTION, "dropout rate; 0: no dropout")
    l2: float = key(0.0, number(0), "coupled L2 weight of the kernels", factor=True)
    convolutions: int = key(1, SIZE, "number of convolutions, one after the other")


_BLOCKS = (ConvBlock(32), ConvBlock(64))


@dataclasses.dataclass(frozen=True)
class Config(Model):
    """Convolution blocks, then hidden dense layers."""

    name: str = family("cnn")
    blocks: tuple[ConvBlock, ...] = key(_BLOCKS, None, "in order", maker="base.conv_block(...)")
    dense: tuple[int, ...] = key(
        (64,),
        all_of("a tuple of widths", SIZE),
        "widths of the hidden dense layers, each with ReLU",
    )
    dense_dropout: float = key(
        0.0, FRACTION, "dropout after each hidden layer", needs=Needs("dense")
    )
    dense_l2: float = key(
        0.0,
        number(0),
        "coupled L2 weight of the kernels of the hidden dense layers",
        needs=Needs("dense"),
        factor=True,
    )
    dirac: bool = key(False, FLAG, "initialize convolutions to pass their input channels on")
    whitening: bool = key(False, FLAG, "start with a 2x2 convolution that whitens the images")

    def faults(self) -> Iterator[str]:
        even = [i for i, block in enumerate(self.blocks) if block.kernel % 2 == 0]
        if self.dirac and even:
            yield (
                "config.model.dirac passes channels on through the center of a kernel: set "
                f"config.model.blocks[{even[0]}].kernel to an odd number"
            )


class CNN(Network):
    """[Stem], convolution blocks, hidden dense layers, linear head: images -> logits."""

    config: Config
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        x = images.astype(self.dtype)
        if self.config.whitening:
            x = nn.relu(stem(x))
        for i, block in enumerate(self.config.blocks):
            for place in [str(i), *(f"{i}_{j}" for j in range(1, block.convolutions))]:
                x = nn.Conv(
                    block.filters,
                    (block.kernel, block.kernel),
                    padding=block.padding,
                    kernel_init=dirac if self.config.dirac else _GLOROT,
                    dtype=self.dtype,
                    conv_general_dilated=conv_general_dilated,
                    name=f"conv2d_{place}",
                )(x)
                x = nn.relu(x)
                if block.batch_norm:
                    x = nn.BatchNorm(
                        use_running_average=not train,
                        dtype=self.dtype,
                        name=f"batch_normalization_{place}",
                        momentum=0.99,
                        epsilon=1e-3,
                    )(x)
            if block.pool > 1:
                x = MaxPool(block.pool, name=f"max_pooling2d_{i}")(x)
            if block.dropout:
                x = nn.Dropout(block.dropout, name=f"dropout_{i}")(x, deterministic=not train)
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.config.dense):
            x = nn.Dense(width, kernel_init=_GLOROT, dtype=self.dtype, name=f"dense_{i}")(x)
            x = nn.relu(x)
            if self.config.dense_dropout:
                dropout = nn.Dropout(self.config.dense_dropout, name=f"dense_dropout_{i}")
                x = dropout(x, deterministic=not train)
        logits = nn.Dense(self.num_classes, kernel_init=_GLOROT, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)

    def rules(self) -> tuple[Rule, ...]:
        weights = {rf"conv2d_{i}(_\d+)?": block.l2 for i, block in enumerate(self.config.blocks)}
        weights |= {f"dense_{i}": self.config.dense_l2 for i in range(len(self.config.dense))}
        l2 = tuple(
            Rule(f"{layer}/kernel", l2=weight) for layer, weight in weights.items() if weight
        )
        return (*l2, *stem_rules(self.config.whitening))

    def whitened(self) -> tuple[str, ...]:
        return ("stem/kernel",) if self.config.whitening else ()


def build(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, dtype: jnp.dtype
) -> CNN:
    """Builds the CNN of a config for images of shape `[H, W, C]`.

    Raises:
      UserError: the images are too small for the blocks.
    """
    height, width, _ = image_shape
    if config.whitening:
        height, width = height - 1, width - 1
    for i, block in enumerate(config.blocks):
        if block.padding == "VALID":
            cut = block.convolutions * (block.kernel - 1)
            height, width = height - cut, width - cut
        height, width = height // block.pool, width // block.pool
        if min(height, width) < 1:
            raise UserError(
                f"config.model.blocks[{i}] leaves no pixel of a {image_shape[0]}x{image_shape[1]} "
                'image: use padding="SAME", a smaller kernel, pool=1 or fewer blocks'
            )
    return CNN(config, num_classes, dtype)
