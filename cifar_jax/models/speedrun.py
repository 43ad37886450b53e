"""The networks of airbench94 and airbench96, two CIFAR-10 speed records (Jordan 2024).

A 2x2 stem, three groups of two 3x3 convolutions and a linear head. `config.model.widths` sets the
number of filters of each group. With `config.model.residual` each group has a third convolution and
a shortcut to its output from the activation of the first.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from cifar_jax.config.keys import key
from cifar_jax.config.schema import Model, Rule, family
from cifar_jax.errors import UserError
from cifar_jax.forms import FLAG, FRACTION, POSITIVE, SIZE, all_of, number
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.kernels.gelu import gelu
from cifar_jax.models.initializers import UNIFORM, dirac, uniform
from cifar_jax.models.layers import Flatten, MaxPool, stem, stem_rules
from cifar_jax.models.network import Network

_LAST_POOL = 3


@dataclasses.dataclass(frozen=True)
class Config(Model):
    """A stem, then groups of two 3x3 convolutions."""

    name: str = family("speedrun")
    widths: tuple[int, ...] = key(
        (64, 256, 256), all_of("a tuple of filters", SIZE), "number of filters of each group"
    )
    residual: bool = key(False, FLAG, "give each group a third convolution and a shortcut")
    norm_momentum: float = key(0.6, FRACTION, "momentum of batch norm's running statistics")
    logit_scale: float = key(1 / 9, POSITIVE, "factor applied to the logits", factor=True)
    head_std: float = key(
        0.0,
        number(0),
        "standard deviation of the head's initial kernel; 0: U(+-1 / sqrt(fan_in))",
        factor=True,
    )
    dirac: bool = key(False, FLAG, "initialize convolutions to pass their input channels on")
    whitening: bool = key(False, FLAG, "make the stem whiten the images, and freeze its kernel")


class Speedrun(Network):
    """Images -> logits. With `train=True` it updates the collection "batch_stats"."""

    config: Config
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        def norm(x: jax.Array, name: str) -> jax.Array:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.config.norm_momentum,
                epsilon=1e-12,
                use_scale=False,
                use_fast_variance=False,  # one-pass variance + this epsilon may be negative
                dtype=self.dtype,
                name=f"batch_normalization_{name}",
            )(x)

        def norm_gelu(x: jax.Array, name: str) -> jax.Array:
            return gelu(norm(x, name))

        def conv(x: jax.Array, filters: int, name: str) -> jax.Array:
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
        x = gelu(x)
        for i, filters in enumerate(self.config.widths):
            x = MaxPool(2, name=f"max_pooling2d_{i}")(conv(x, filters, f"{i}_0"))
            first = norm_gelu(x, f"{i}_0")
            x = norm_gelu(conv(first, filters, f"{i}_1"), f"{i}_1")
            if self.config.residual:
                x = norm(conv(x, filters, f"{i}_2"), f"{i}_2") + first
                x = gelu(x)
        last = min(_LAST_POOL, *x.shape[1:3])  # small images leave a smaller map
        x = Flatten(name="flatten")(MaxPool(last, name="max_pooling2d")(x))
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=uniform(self.config.head_std),
            dtype=self.dtype,
            name="head",
        )
        return head(x).astype(jnp.float32) * self.config.logit_scale

    def rules(self) -> tuple[Rule, ...]:
        # Muon would rescale the stem's kernel to a fixed norm.
        return (Rule("stem/kernel", muon=False), *stem_rules(self.config.whitening))

    def whitened(self) -> tuple[str, ...]:
        return ("stem/kernel",) if self.config.whitening else ()


def build(
    config: Config, image_shape: tuple[int, int, int], num_classes: int, dtype: jnp.dtype
) -> Speedrun:
    """Builds the network of a config for images of shape `[H, W, C]`.

    Raises:
      UserError: the images are too small for this many groups.
    """
    smallest = 2 ** len(config.widths) + 1
    if min(image_shape[:2]) < smallest:
        raise UserError(
            f"config.model.widths has {len(config.widths)} groups, which need images of at least "
            f"{smallest} pixels, not {min(image_shape[:2])}: use fewer groups"
        )
    return Speedrun(config, num_classes, dtype)
