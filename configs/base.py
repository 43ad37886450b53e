"""The base of all configs, which change only what differs from the defaults.

docs/config.md lists all keys; `cifar_jax/config/schema.py` defines them.
"""

from typing import Any

from ml_collections import ConfigDict

from cifar_jax import models
from cifar_jax.config import convert, schema
from cifar_jax.models import cnn


def get_config() -> ConfigDict:
    """A config with all defaults and the network "cnn"."""
    return convert.to_config_dict(schema.Config(model=cnn.Config())).lock()


def model(name: str, **keys: Any) -> ConfigDict:
    """A value for `config.model`: the keys of a network, with these values instead of defaults.

    Raises:
      ValueError: there is no such network.
    """
    family = models.config_class(name)
    if family is None:
        raise ValueError(f"no network {name!r}: choose one of {', '.join(models.names())}")
    return convert.to_config_dict(family(**keys))


def conv_block(filters: int, *values: Any, **keys: Any) -> ConfigDict:
    """A block of the network "cnn": see `ConvBlock` in `cifar_jax/models/cnn.py`."""
    return convert.to_config_dict(cnn.ConvBlock(filters, *values, **keys))


def rule(path: str, **keys: Any) -> ConfigDict:
    """A rule for `config.optimizer.rules`: see `Rule` in `cifar_jax/config/schema.py`."""
    return convert.to_config_dict(schema.Rule(path, **keys))
