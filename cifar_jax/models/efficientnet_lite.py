"""EfficientNet-Lite 0, 1 and 2: small networks with weights from ImageNet, to transfer from.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as published in
tensorflow/tpu, models/official/efficientnet/lite. The variants scale width and depth.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from cifar_jax.config.keys import key
from cifar_jax.config.schema import Model, Rule, family
from cifar_jax.data.augment import standardize
from cifar_jax.errors import UserError
from cifar_jax.forms import FLAG, FRACTION, one_of, whole
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.models.network import Network

_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of width and depth
# Repeats, filters, expansion, side of the kernel, stride of the first block.
STAGES = (
    (1, 16, 1, 3, 1),
    (2, 24, 6, 3, 2),
    (2, 40, 6, 5, 2),
    (3, 80, 6, 3, 2),
    (3, 112, 6, 5, 1),
    (4, 192, 6, 5, 2),
    (1, 320, 6, 3, 1),
)
_STEM, _HEAD = 32, 1280  # filters, which the variants do not scale


class Origin(NamedTuple):
    """Details that weights were trained with."""

    epsilon: float  # of batch norm
    same_padding: bool  # as TensorFlow pads; otherwise the same on all sides
    mean: tuple[float, ...]  # of each channel, in [0, 1]
    std: tuple[float, ...]


ORIGINS = {
    "tensorflow": Origin(1e-3, True, (127 / 255,) * 3, (128 / 255,) * 3),
    "timm": Origin(1e-5, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclasses.dataclass(frozen=True)
class Config(Model):
    """A backbone of inverted residual blocks, and a linear classifier on the mean of its map."""

    name: str = family("efficientnet_lite")
    variant: int = key(0, one_of(0, 1, 2), "which scaling of width and depth")
    origin: str = key(
        "tensorflow", one_of(*ORIGINS), "whose padding, standardization and epsilon to use"
    )
    dropout: float = key(0.2, FRACTION, "dropout rate of the features")
    frozen_norm: bool = key(
        False, FLAG, "in training, normalize by the running statistics, and leave them unchanged"
    )
    frozen_blocks: int = key(
        0, whole(0), "leave the stem and this many blocks as they are; 0: train all"
    )
    norm_momentum: float = key(0.9, FRACTION, "momentum of batch norm's running statistics")

    standardizes = True

    def faults(self) -> Iterator[str]:
        count = len(blocks(self.variant))
        if self.frozen_blocks > count:
            yield (
                f"config.model.frozen_blocks={self.frozen_blocks} exceeds the {count} blocks of "
                f"config.model.variant={self.variant}: use at most {count}"
            )


class Shape(NamedTuple):
    """What one block is, and its place: `repeat` within `stage`, both from 0."""

    stage: int
    repeat: int
    filters: int
    expansion: int
    side: int
    stride: int


def blocks(variant: int) -> list[Shape]:
    """The blocks of a variant, in order."""
    width, depth = _SCALES[variant]
    found = []
    for stage, (repeats, filters, expansion, side, stride) in enumerate(STAGES):
        is_end = stage in (0, len(STAGES) - 1)  # never repeated more often
        for repeat in range(repeats if is_end else math.ceil(repeats * depth)):
            first = stride if repeat == 0 else 1
            found.append(Shape(stage, repeat, _rounded(filters * width), expansion, side, first))
    return found


def _rounded(filters: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least 90 % of `filters`."""
    nearest = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return nearest if nearest >= 0.9 * filters else nearest + divisor


class ConvNorm(nn.Module):
    """A convolution without bias, batch norm, and ReLU6 if `activates`."""

    config: Config
    filters: int
    dtype: jnp.dtype
    side: int = 1
    stride: int = 1
    depthwise: bool = False
    activates: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b _ _ f"]:
        origin, edge = ORIGINS[self.config.origin], self.side // 2
        groups = self.filters if self.depthwise else 1
        x = nn.Conv(
            self.filters,
            (self.side, self.side),
            (self.stride, self.stride),
            padding="SAME" if origin.same_padding else edge,
            feature_group_count=groups,
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal"),
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="conv",
        )(x)
        x = nn.BatchNorm(
            use_running_average=not train or self.config.frozen_norm,
            momentum=self.config.norm_momentum,
            epsilon=origin.epsilon,
            dtype=self.dtype,
            name="norm",
        )(x)
        return nn.relu6(x) if self.activates else x


class Block(nn.Module):
    """Inverted residual: expand, filter each channel, project; add the input if shapes agree."""

    config: Config
    shape: Shape
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b _ _ f"]:
        conv = functools.partial(ConvNorm, self.config, dtype=self.dtype)
        shape, shortcut = self.shape, x
        wide = shape.expansion * x.shape[-1]
        if shape.expansion > 1:
            x = conv(filters=wide, name="expand")(x, train)
        x = conv(
            filters=wide, side=shape.side, stride=shape.stride, depthwise=True, name="depthwise"
        )(x, train)
        x = conv(filters=shape.filters, activates=False, name="project")(x, train)
        return x + shortcut if x.shape == shortcut.shape else x


class Backbone(nn.Module):
    """Images in [0, 1] -> features, the mean of the last map."""

    config: Config
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, images: Float32[Array, "b h w 3"], train: bool) -> Float[Array, "b f"]:
        conv = functools.partial(ConvNorm, self.config, dtype=self.dtype)
        origin = ORIGINS[self.config.origin]
        x = standardize(images, np.array(origin.mean, np.float32), np.array(origin.std, np.float32))
        frozen = self.config.frozen_blocks
        stem = conv(filters=_STEM, side=3, stride=2, name="stem")
        x = stem(x.astype(self.dtype), train and not frozen)
        for i, shape in enumerate(blocks(self.config.variant)):
            x = Block(self.config, shape, self.dtype, name=f"block_{i}")(x, train and i >= frozen)
        return conv(filters=_HEAD, name="head")(x, train).mean((1, 2))


class EfficientNetLite(Network):
    """Images -> logits. With `train=True` it updates "batch_stats", unless they are frozen."""

    config: Config
    num_classes: int
    dtype: jnp.dtype

    backbone_path = "backbone/.*"

    def setup(self) -> None:
        self.backbone = Backbone(self.config, self.dtype)
        self.dropout = nn.Dropout(self.config.dropout)
        self.classifier = nn.Dense(self.num_classes, dtype=self.dtype)

    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        return self.classify(self.features(images, train), train)

    def features(self, images: jax.Array, train: bool) -> jax.Array:
        return self.backbone(images, train)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        dropped = self.dropout(features, deterministic=not train)
        return self.classifier(dropped).astype(jnp.float32)

    def rules(self) -> tuple[Rule, ...]:
        frozen = self.config.frozen_blocks
        names = ["stem", *(f"block_{i}" for i in range(frozen))]
        return (Rule(f"backbone/({'|'.join(names)})/.*", frozen=True),) if frozen else ()


def build(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, dtype: jnp.dtype
) -> EfficientNetLite:
    """Builds the network of a config; images of any size fit.

    Raises:
      UserError: the images are not in color.
    """
    if image_shape[-1] != 3:
        raise UserError(
            f"config.model.name=efficientnet_lite needs images of 3 channels, not {image_shape[-1]}"
        )
    return EfficientNetLite(config, num_classes, dtype)
