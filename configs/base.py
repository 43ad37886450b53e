"""The base of all configs, which change only what differs from the defaults.

docs/config.md lists all keys; `cifar_jax/config/schema.py` defines them.
"""

import inspect
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
      TypeError: it has no such key.
    """
    family = models.config_class(name)
    if family is None:
        raise ValueError(f"no network {name!r}: choose one of {', '.join(models.names())}")
    bound = inspect.signature(family).bind(**keys)
    bound.apply_defaults()
    given = {name: value for name, value in bound.arguments.items() if value is not None}
    return convert.to_config_dict(given)


def conv_block(filters: int, *values: Any, **keys: Any) -> ConfigDict:
    """A block of the network "cnn": see `ConvBlock` in `cifar_jax/models/cnn.py`."""
    return convert.to_config_dict(cnn.ConvBlock(filters, *values, **keys))


def choose(name: str, **keys: Any) -> ConfigDict:
    """A range for `config.search.space`: see `Range` in `cifar_jax/config/schema.py`."""
    return convert.to_config_dict(schema.Range(name, **keys))


def rule(path: str, **keys: Any) -> ConfigDict:
    """A rule for `config.optimizer.rules`: see `Rule` in `cifar_jax/config/schema.py`."""
    return convert.to_config_dict(schema.Rule(path, **keys))
