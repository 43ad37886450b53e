"""Which pixels an answer hangs on: SmoothGrad.

Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise". With M(x) the gradient of a
class' score by the pixels x, a map is the mean over n noisy copies of the image,

    1/n sum_i M(x + N(0, sigma^2)),  n = 50,  sigma = 0.15 (max x - min x),

and as there shown by its absolute values, cut at their 99th percentile. The score is the logit, and
a pixel counts by the largest of its channels (Simonyan et al. 2014, "Deep Inside Convolutional
Networks"). The noise is always the same, so that an image has one map.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, UInt8

from cifar_jax.data import augment
from cifar_jax.evaluation.trained import Trained
from cifar_jax.runtime import compilation, settings

SAMPLES = 50
NOISE = 0.15  # as a share of the image's range
_PERCENTILE = 99

Map = Float32[np.ndarray, "h w"]


def make(network: Trained) -> Callable[[np.ndarray, int], Map]:
    """Returns `saliency(image, label) -> map`, compiled at its first call.

    It takes an image uint8 `[H, W, C]` of `network.image_shape` and the index of a class in
    `network.class_names`, and gives float32 `[H, W]` in [0, 1]: 1 where the class hangs most on the
    pixel, all 0 where it hangs on none.
    """

    def smooth_grad(
        variables: Any, image: UInt8[Array, "h w c"], label: ArrayLike
    ) -> Float32[Array, "h w"]:
        pixels = augment.normalize(image[None], None, None)
        noise = jax.random.normal(jax.random.key(0), (SAMPLES, *image.shape))
        noisy = pixels + NOISE * (pixels.max() - pixels.min()) * noise

        def score(pixels: Float32[Array, "b h w c"]) -> Array:
            return network.apply_pixels(variables, pixels)[:, label].sum()

        size = jnp.abs(jax.grad(score)(noisy).mean(axis=0)).max(axis=-1)
        most = jnp.percentile(size, _PERCENTILE)
        return jnp.clip(size / jnp.maximum(most, jnp.finfo(size.dtype).tiny), 0, 1)

    compiled = compilation.jit(smooth_grad)

    @settings.pinned()
    def saliency(image: np.ndarray, label: int) -> Map:
        return jax.device_get(compiled(network.variables, image, label))

    return saliency
