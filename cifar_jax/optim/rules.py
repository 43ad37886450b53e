"""Settings for parameters by path: learning rate, when to train, frozen, L2, decay, Muon.

The network has rules of its own, and the config adds more (`optimizer.rules`). For each parameter
and setting, the last matching rule that has the setting wins. A path joins the names of the modules
and of the parameter: "stage_0/conv_1/kernel".
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from cifar_jax.config.schema import Optimizer, Rule
from cifar_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Setting:
    """How one parameter is trained."""

    rate: float = 1.0  # learning rate, relative to the schedule's
    start: float = 0.0  # epochs before it begins to train
    stop: float = math.inf  # epochs until it stops
    frozen: bool = False
    l2: float = 0.0  # the objective includes l2 * sum(w ** 2)
    decay: bool = False  # whether decoupled weight decay applies
    muon: bool = False  # whether Muon trains it, if the optimizer is Muon


@dataclasses.dataclass(frozen=True)
class Table:
    """The settings of all parameters of a network, by path."""

    settings: Mapping[str, Setting]

    def split(self, params: Any) -> tuple[Any, Any]:
        """Splits a tree of parameters into a tree of trained and a tree of frozen ones."""
        flat = flatten(params)
        frozen = {path for path, setting in self.settings.items() if setting.frozen}
        return (
            unflatten({path: leaf for path, leaf in flat.items() if path not in frozen}),
            unflatten({path: leaf for path, leaf in flat.items() if path in frozen}),
        )

    def merge(self, trained: Any, frozen: Any) -> Any:
        """Undoes `split`."""
        return unflatten({**flatten(trained), **flatten(frozen)})

    def stopped(self, epoch: int) -> frozenset[str]:
        """The trained parameters that do not train in an epoch, counted from 0, nor after it."""
        return frozenset(p for p, s in self.settings.items() if s.stop <= epoch and not s.frozen)

    def tree(self, of: Callable[[Setting], Any]) -> Any:
        """A tree with the structure of the trained parameters and the values `of(setting)`."""
        return unflatten({p: of(s) for p, s in self.settings.items() if not s.frozen})

    def penalty(self, params: Any) -> jax.Array:
        """The sum over trained parameters of `l2 * sum(w ** 2)`, which Keras adds to the loss.

        A float32 scalar.
        """
        weights = self.tree(lambda setting: setting.l2)
        leaves = zip(jax.tree.leaves(self.split(params)[0]), jax.tree.leaves(weights), strict=True)
        terms = [weight * jnp.sum(jnp.square(leaf)) for leaf, weight in leaves if weight]
        return jnp.asarray(sum(terms), jnp.float32)


def table(params: Any, own: Iterable[Rule], optimizer: Optimizer) -> Table:
    """Applies the rules to all parameters of a network.

    Args:
      params: a tree of arrays or shapes.
      own: the network's rules.
      optimizer: has the config's rules and `l2`, which adds to the L2 of every trained parameter.
        It is divided by the relative rate, so that all parameters shrink at the same pace. It does
        not apply where Muon trains, since Muon fixes the norm.

    Raises:
      UserError: a rule matches no parameter, a parameter stops before it starts, or all parameters
        are frozen.
    """
    flat = flatten(params)
    settings = {
        path: Setting(decay=is_kernel(path), muon=is_kernel(path) and len(leaf.shape) == 4)
        for path, leaf in flat.items()
    }
    for rule in (*own, *optimizer.rules):
        matched = [path for path in settings if re.fullmatch(rule.path, path)]
        if not matched:
            raise UserError(
                f"the rule for {rule.path!r} in config.optimizer.rules matches no parameter: "
                f"it must match a whole path, one of {', '.join(settings)}"
            )
        given = {
            field.name: value
            for field in dataclasses.fields(rule)
            if field.name != "path" and (value := getattr(rule, field.name)) is not None
        }
        for path in matched:
            settings[path] = dataclasses.replace(settings[path], **given)
    for path, setting in settings.items():
        if setting.start >= setting.stop:
            raise UserError(
                f"the rules for {path} in config.optimizer.rules never train it: they start after "
                f"{setting.start:g} epochs and stop after {setting.stop:g}; set frozen"
            )
    if all(setting.frozen for setting in settings.values()):
        raise UserError("config.optimizer.rules freeze every parameter: nothing is left to train")
    return Table({path: _with_l2(setting, optimizer) for path, setting in settings.items()})


def _with_l2(setting: Setting, optimizer: Optimizer) -> Setting:
    muon = setting.muon and optimizer.name == "muon"
    l2 = 0.0 if muon else setting.l2 + optimizer.l2 / setting.rate
    return dataclasses.replace(setting, muon=muon, l2=0.0 if setting.frozen else l2)


def is_kernel(path: str) -> bool:
    """Whether a path such as "conv2d_0/kernel" ends with the name "kernel"."""
    return path.rpartition("/")[2] == "kernel"


def flatten(tree: Any) -> dict[str, Any]:
    """Flattens a nested dict to `{"conv2d_0/kernel": leaf, ...}`."""
    return {str(path): leaf for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def unflatten(flat: Mapping[str, Any]) -> Any:
    """Undoes `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")
