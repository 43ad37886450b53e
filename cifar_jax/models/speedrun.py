"""The networks of fast published CIFAR-10 trainings (airbench94 and 96, Jordan 2024).

A 2x2 stem, three groups of two 3x3 convolutions, a linear head on what is left of the picture.
`config.model.widths` are the groups' filters; with `config.model.residual` a group has a third
convolution, to which the first one's activation is added.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float32

from cifar_jax.config.keys import key
from cifar_jax.config.schema import Model, Rule, family
from cifar_jax.errors import UserError
from cifar_jax.forms import FLAG, FRACTION, POSITIVE, SIZE, all_of, number
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.models.initializers import UNIFORM, dirac, uniform
from cifar_jax.models.layers import Flatten, MaxPool, stem, stem_rules
from cifar_jax.models.network import Network

_LAST_POOL = 3


@dataclasses.dataclass(frozen=True)
class Config(Model):
    """Groups of two 3x3 convolutions behind a stem."""

    name: str = family("speedrun")
    widths: tuple[int, ...] = key(
        (64, 256, 256), all_of("a tuple of filters", SIZE), "filters of the groups"
    )
    residual: bool = key(False, FLAG, "each group has a third convolution and a shortcut")
    norm_momentum: float = key(0.6, FRACTION, "of batch norm's running statistics")
    logit_scale: float = key(1 / 9, POSITIVE, "that the logits are multiplied by", factor=True)
    head_std: float = key(
        0.0,
        number(0),
        "of the head's initial kernel; 0: U(+-1 / sqrt(fan_in))",
        factor=True,
    )
    dirac: bool = key(False, FLAG, "convolutions begin by passing their input channels on")
    whitening: bool = key(False, FLAG, "the stem's kernel whitens the images and is not trained")


class Speedrun(Network):
    """Images -> logits. With `train=True` it updates the collection "batch_stats"."""

    config: Config
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        def norm(x, name):
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.config.norm_momentum,
                epsilon=1e-12,
                use_scale=False,
                use_fast_variance=False,  # at this epsilon the one-pass variance may be negative
                dtype=self.dtype,
                name=f"batch_normalization_{name}",
            )(x)

        def norm_gelu(x, name):
            return nn.gelu(norm(x, name), approximate=False)

        def conv(x, filters, name):
            return nn.Conv(
                filters,
                (3, 3),
                use_bias=False,
                kernel_init=dirac if self.config.dirac else UNIFORM,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv2d_{name}",
            )(x)

        x = stem(images.astype(self.dtype))
        x = nn.gelu(x, approximate=False)
        for i, filters in enumerate(self.config.widths):
            x = MaxPool(2, name=f"max_pooling2d_{i}")(conv(x, filters, f"{i}_0"))
            first = norm_gelu(x, f"{i}_0")
            x = norm_gelu(conv(first, filters, f"{i}_1"), f"{i}_1")
            if self.config.residual:
                x = norm(conv(x, filters, f"{i}_2"), f"{i}_2") + first
                x = nn.gelu(x, approximate=False)
        x = Flatten(name="flatten")(MaxPool(_LAST_POOL, name="max_pooling2d")(x))
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=uniform(self.config.head_std),
            dtype=self.dtype,
            name="head",
        )
        return head(x).astype(jnp.float32) * self.config.logit_scale

    def rules(self) -> tuple[Rule, ...]:
        # The stem is no place for Muon, whose steps would take its kernel to a norm of their own.
        return (Rule("stem/kernel", muon=False), *stem_rules(self.config.whitening))

    def whitened(self) -> tuple[str, ...]:
        return ("stem/kernel",) if self.config.whitening else ()


def build(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, dtype: jnp.dtype
) -> Speedrun:
    """The network of a config for images `[H, W, C]`.

    Raises:
      UserError: the images are too small for so many groups.
    """
    smallest = _LAST_POOL * 2 ** len(config.widths) + 1
    if min(image_shape[:2]) < smallest:
        raise UserError(
            f"config.model.widths has {len(config.widths)} groups, which need images of at least "
            f"{smallest} pixels, not {min(image_shape[:2])}: drop a group"
        )
    return Speedrun(config, num_classes, dtype)
