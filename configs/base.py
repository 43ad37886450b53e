"""What every experiment starts from: each states only what differs from the defaults.

docs/config.md lists all keys; `cifar_jax/config/schema.py` is where they are defined.
"""

from typing import Any

from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import convert, schema
from cifar_jax.models import cnn


def get_config() -> ConfigDict:
    """All defaults, with the network "cnn"."""
    return convert.to_config_dict(schema.Config(model=cnn.Config())).lock()


def model(name: str, **keys: Any) -> ConfigDict:
    """`config.model` with the keys of a network, and these values in place of its defaults."""
    family = models.config_class(name)
    if family is None:
        raise ValueError(f"no network {name!r}: there are {', '.join(models.names())}")
    return convert.to_config_dict(family(**keys))


def conv_block(filters: int, *values: Any, **keys: Any) -> ConfigDict:
    """One block of the network "cnn": see `cifar_jax/models/cnn.py`."""
    return convert.to_config_dict(cnn.ConvBlock(filters, *values, **keys))


def rule(path: str, **keys: Any) -> ConfigDict:
    """An entry of `config.optimizer.rules`: see `schema.Rule`."""
    return convert.to_config_dict(schema.Rule(path, **keys))
