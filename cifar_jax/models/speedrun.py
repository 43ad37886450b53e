"""The networks of fast published CIFAR-10 trainings (airbench94 and 96, Jordan 2024).

A 2x2 stem, three groups of two 3x3 convolutions, a linear head on what is left of the picture.
`config.model.widths` are the groups' filters; with `config.model.residual` a group has a third
convolution, to which the first one's activation is added.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float32
from ml_collections import ConfigDict

from cifar_jax.errors import UserError
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.models.initializers import UNIFORM, dirac, uniform
from cifar_jax.models.layers import Flatten, MaxPool, stem

_LAST_POOL = 3


class Speedrun(nn.Module):
    """Images -> logits. With `train=True` it updates the collection "batch_stats"."""

    widths: tuple[int, ...]
    residual: bool
    norm_momentum: float
    logit_scale: float
    head_std: float
    dirac: bool
    num_classes: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, images: Float32[Array, "b h w c"], train: bool
    ) -> Float32[Array, "b {self.num_classes}"]:
        def norm(x, name):
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.norm_momentum,
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
                kernel_init=dirac if self.dirac else UNIFORM,
                dtype=self.dtype,
                conv_general_dilated=conv_general_dilated,
                name=f"conv2d_{name}",
            )(x)

        x = stem(images.astype(self.dtype))
        x = nn.gelu(x, approximate=False)
        for i, filters in enumerate(self.widths):
            x = MaxPool(2, name=f"max_pooling2d_{i}")(conv(x, filters, f"{i}_0"))
            first = norm_gelu(x, f"{i}_0")
            x = norm_gelu(conv(first, filters, f"{i}_1"), f"{i}_1")
            if self.residual:
                x = norm(conv(x, filters, f"{i}_2"), f"{i}_2") + first
                x = nn.gelu(x, approximate=False)
        x = Flatten(name="flatten")(MaxPool(_LAST_POOL, name="max_pooling2d")(x))
        head = nn.Dense(
            self.num_classes,
            use_bias=False,
            kernel_init=uniform(self.head_std),
            dtype=self.dtype,
            name="head",
        )
        return head(x).astype(jnp.float32) * self.logit_scale

    def l2(self) -> dict[str, float]:
        """Layer name -> weight of its squared kernel in the objective; absent: none."""
        return {}


def build(
    config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int, dtype
) -> Speedrun:
    """The network of `config.model` for images `[H, W, C]`.

    Raises:
      UserError: the images are too small for so many groups.
    """
    smallest = _LAST_POOL * 2 ** len(config.widths) + 1
    if min(image_shape[:2]) < smallest:
        raise UserError(
            f"config.model.widths has {len(config.widths)} groups, which need images of at least "
            f"{smallest} pixels, not {min(image_shape[:2])}: drop a group"
        )
    return Speedrun(
        tuple(config.widths),
        config.residual,
        config.norm_momentum,
        config.logit_scale,
        config.head_std,
        config.dirac,
        num_classes,
        dtype,
    )
