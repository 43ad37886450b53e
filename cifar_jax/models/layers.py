"""Layers as modules, so that the summary has a row for each."""

import flax.linen as nn
from jaxtyping import Array, Float

from cifar_jax.config.schema import Rule
from cifar_jax.kernels.convolution import conv_general_dilated
from cifar_jax.kernels.pooling import max_pool
from cifar_jax.models import initializers


class MaxPool(nn.Module):
    """`max_pool` as a layer, with window and stride `window`."""

    window: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ c"]:
        return max_pool(x, self.window)


def stem(x: Float[Array, "b h w c"]) -> Float[Array, "b {x.shape[1]-1} {x.shape[2]-1} _"]:
    """The layer "stem": an unpadded 2x2 convolution, whose kernel may whiten the images."""
    filters, side = initializers.stem_filters(x.shape[-1]), initializers.STEM_SIDE
    return nn.Conv(
        filters,
        (side, side),
        padding="VALID",
        kernel_init=initializers.UNIFORM,
        dtype=x.dtype,
        conv_general_dilated=conv_general_dilated,
        name="stem",
    )(x)


def stem_rules(whitening: bool) -> tuple[Rule, ...]:
    """Freezes the stem's kernel if it whitens the images."""
    return (Rule("stem/kernel", frozen=True),) if whitening else ()


class Flatten(nn.Module):
    """`[B, H, W, C] -> [B, H * W * C]`, in row-major order."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h*w*c"]:
        return x.reshape(x.shape[0], -1)
