"""The networks, by name: a family is a module with `build(config.model, ...)`."""

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from cifar_jax.models import cnn, speedrun

FAMILIES = {"cnn": cnn.build, "speedrun": speedrun.build}


def build(config: ConfigDict, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network of a validated `config` for images `[H, W, C]`.

    Raises:
      UserError: the network does not fit the images.
    """
    dtype = jnp.dtype(config.dtype)
    return FAMILIES[config.model.name](config.model, image_shape, num_classes, dtype)
