"""The networks. A family is a file here with a `Config` and a `build`; nothing else lists it."""

import importlib
import importlib.util
import pkgutil
import sys

import jax.numpy as jnp

from cifar_jax.config import schema
from cifar_jax.models.network import Network


def names() -> list[str]:
    """The families: the values that `config.model.name` may have."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if config_class(module.name)
    )


def config_class(name: str) -> type[schema.Model] | None:
    """The dataclass of a family's keys; None: there is no such family."""
    if not name.isidentifier() or importlib.util.find_spec(f"{__name__}.{name}") is None:
        return None
    found = getattr(importlib.import_module(f"{__name__}.{name}"), "Config", None)
    return found if isinstance(found, type) and issubclass(found, schema.Model) else None


def build(
    config: schema.Model,
    image_shape: tuple[int, int, int],
    num_classes: int,
    dtype: str = "float32",
) -> Network:
    """The network of a config for images `[H, W, C]`.

    Args:
      dtype: of its computations, "float32" or "bfloat16".

    Raises:
      UserError: the network does not fit the images.
    """
    family = sys.modules[type(config).__module__]
    return family.build(config, image_shape, num_classes, jnp.dtype(dtype))
