"""The networks: each file here with a `Config` and a `build` is a family that configs can name."""

import importlib
import importlib.util
import pkgutil
import sys

import jax.numpy as jnp

from cifar_jax.config import schema
from cifar_jax.errors import UserError
from cifar_jax.models.network import Network
from cifar_jax.models.resized import Resized


def names() -> list[str]:
    """The names of all families, sorted: the allowed values of `config.model.name`."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if config_class(module.name)
    )


def config_class(name: str) -> type[schema.Model] | None:
    """The config class of a family; None if there is no such family."""
    if not name.isidentifier() or importlib.util.find_spec(f"{__name__}.{name}") is None:
        return None
    module = importlib.import_module(f"{__name__}.{name}")
    found = getattr(module, "Config", None)
    is_family = isinstance(found, type) and issubclass(found, schema.Model)
    return found if is_family and found.__module__ == module.__name__ else None


def build(
    config: schema.Model,
    image_shape: tuple[int, int, int],
    num_classes: int,
    dtype: str = "float32",
    resize: int = 0,
) -> Network:
    """Builds the network of a config for images of shape `[H, W, C]`.

    Args:
      resize: side in pixels that the network resizes images to first; 0: it takes them as they are.
      dtype: dtype of its computations, "float32" or "bfloat16".

    Raises:
      UserError: the network does not fit the images, or whitens images that are resized.
    """
    if not resize:
        family = sys.modules[type(config).__module__]
        return family.build(config, image_shape, num_classes, jnp.dtype(dtype))
    network = resized(config, image_shape[-1], num_classes, dtype, resize)
    if network.whitened():
        raise UserError(
            f"config.data.resize={resize} does not go with a whitening stem, whose kernel is "
            "computed from the images as they are: set config.model.whitening=False"
        )
    return network


def resized(
    config: schema.Model, channels: int, num_classes: int, dtype: str, side: int
) -> Resized:
    """Builds the network of a config so that it resizes images to `side` pixels first.

    Raises:
      UserError: the network does not fit such images.
    """
    return Resized(build(config, (side, side, channels), num_classes, dtype), side)
