"""Shows which pixels a prediction depends on, by SmoothGrad.

Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise". With M(x) the gradient of a
class score with respect to the pixels x, the map is the mean over n noisy copies of the image,

    1/n sum_i M(x + N(0, sigma^2)),  n = 50,  sigma = 0.15 (max x - min x),

shown, as in the paper, by its absolute values, clipped at their 99th percentile. The score is the
logit, and each pixel takes the largest of its channels (Simonyan et al. 2014, "Deep Inside
Convolutional Networks"). The noise is fixed, so an image always gets the same map.
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
NOISE = 0.15  # standard deviation, as a share of the range of the image
_PERCENTILE = 99

Map = Float32[np.ndarray, "h w"]


def make(network: Trained) -> Callable[[np.ndarray, int], Map]:
    """Returns `saliency(image, label) -> map`, which is compiled at its first call.

    `image` is `[H, W, C]` uint8 of `network.image_shape`, `label` an index into
    `network.class_names`. The map is `[H, W]` float32 in [0, 1], 1 where the class score depends
    most on the pixel; it is 0 everywhere if the score does not depend on the image.
    """

    def smooth_grad(
        variables: dict[str, Any], image: UInt8[Array, "h w c"], label: ArrayLike
    ) -> Float32[Array, "h w"]:
        pixels = augment.normalize(image[None], None, None)
        noise = jax.random.normal(jax.random.key(0), (SAMPLES, *image.shape))
        noisy = pixels + NOISE * (pixels.max() - pixels.min()) * noise

        def score(pixels: Float32[Array, "b h w c"]) -> Array:
            return network.apply_pixels(variables, pixels)[:, label].sum()

        size = jnp.abs(jax.grad(score)(noisy).mean(axis=0)).max(axis=-1)
        highest = jnp.percentile(size, _PERCENTILE)
        return jnp.clip(size / jnp.maximum(highest, jnp.finfo(size.dtype).tiny), 0, 1)

    compiled = compilation.jit(smooth_grad)

    @settings.pinned()
    def saliency(image: np.ndarray, label: int) -> Map:
        return jax.device_get(compiled(network.variables, image, label))

    return saliency
