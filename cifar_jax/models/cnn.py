"""The one CNN family: the report's four models are values of its fields."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float32
from ml_collections import ConfigDict

from cifar_jax.errors import UserError
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.models.initializers import dirac
from cifar_jax.models.layers import Flatten, MaxPool, stem

# The report used Keras, so its defaults hold here: Glorot uniform kernels, zero biases (Flax's
# default as well), and below batch norm with momentum 0.99 and epsilon 1e-3.
_GLOROT = nn.initializers.glorot_uniform()


@dataclasses.dataclass(frozen=True)
class ConvBlock:
    """Convolution, ReLU, [batch norm], [max-pool], [dropout], in this order.

    The report's tables fix the order of the layers but for the activation, which Keras folds into
    the convolution (`Conv2D(..., activation="relu")`): so it stands before batch norm.
    """

    filters: int
    kernel: int
    padding: str
    batch_norm: bool
    pool: int
    dropout: float
    l2: float


class CNN(nn.Module):
    """[Stem], conv blocks, hidden dense layers, a linear head: images -> logits.

    With `train=True` it needs the rng "dropout" and updates the collection "batch_stats".
    """

    blocks: tuple[ConvBlock, ...]
    dense: tuple[int, ...]
    dense_dropout: float
    dense_l2: float
    stem: bool
    dirac: bool
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        x = images.astype(self.dtype)
        if self.stem:
            x = nn.relu(stem(x))
        for i, block in enumerate(self.blocks):
            x = nn.Conv(
                block.filters,
                (block.kernel, block.kernel),
                padding=block.padding,
                kernel_init=dirac if self.dirac else _GLOROT,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv2d_{i}",
            )(x)
            x = nn.relu(x)
            if block.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    dtype=self.dtype,
                    name=f"batch_normalization_{i}",
                    momentum=0.99,
                    epsilon=1e-3,
                )(x)
            if block.pool > 1:
                x = MaxPool(block.pool, name=f"max_pooling2d_{i}")(x)
            if block.dropout:
                x = nn.Dropout(block.dropout, name=f"dropout_{i}")(x, deterministic=not train)
        x = Flatten(name="flatten")(x)
        for i, width in enumerate(self.dense):
            x = nn.Dense(width, kernel_init=_GLOROT, dtype=self.dtype, name=f"dense_{i}")(x)
            x = nn.relu(x)
            if self.dense_dropout:
                dropout = nn.Dropout(self.dense_dropout, name=f"dense_dropout_{i}")
                x = dropout(x, deterministic=not train)
        logits = nn.Dense(self.num_classes, kernel_init=_GLOROT, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)

    def l2(self) -> dict[str, float]:
        """Layer name -> weight of its squared kernel in the objective; absent: none."""
        weights = {f"conv2d_{i}": block.l2 for i, block in enumerate(self.blocks)}
        weights |= {f"dense_{i}": self.dense_l2 for i in range(len(self.dense))}
        return {layer: weight for layer, weight in weights.items() if weight}


def build(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, dtype) -> CNN:
    """The CNN of `config.model` for images `[H, W, C]`.

    Raises:
      UserError: a block has no pixel left to work on.
    """
    height, width, _ = image_shape
    if config.whitening.enabled:
        height, width = height - 1, width - 1
    for i, block in enumerate(config.blocks):
        if block.padding == "VALID":
            height, width = height - block.kernel + 1, width - block.kernel + 1
        height, width = height // block.pool, width // block.pool
        if min(height, width) < 1:
            raise UserError(
                f"config.model.blocks[{i}] leaves no pixel of a {image_shape[0]}x{image_shape[1]} "
                'image: use padding="SAME", a smaller kernel, pool=1 or fewer blocks'
            )
    return CNN(
        blocks=tuple(ConvBlock(**block) for block in config.blocks),
        dense=tuple(config.dense),
        dense_dropout=config.dense_dropout,
        dense_l2=config.dense_l2,
        stem=config.whitening.enabled,
        dirac=config.dirac,
        num_classes=num_classes,
        dtype=dtype,
    )
