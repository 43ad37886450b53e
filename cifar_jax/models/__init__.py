"""The networks, by name: a family is a module with `build(config.model, ...)`."""

import flax.linen as nn
import jax
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


def l2_weights(model: nn.Module, params: dict) -> dict:
    """A tree like `params` with the L2 weight of each leaf: `model.l2()` on kernels, else 0."""
    by_layer = model.l2()

    def weight(path, _):
        layer, leaf = path[0].key, path[-1].key
        return by_layer.get(layer, 0.0) if leaf == "kernel" else 0.0

    return jax.tree_util.tree_map_with_path(weight, params)
