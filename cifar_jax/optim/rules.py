"""What sets parameters apart, by their path: learning rate, frozen, L2, decay, Muon.

The network brings rules of its own, and the config adds to them (`optimizer.rules`); for each
parameter the last rule that matches and says something decides. A path is the names of the modules
and of the parameter, "stage_0/conv_1/kernel".
"""

import dataclasses
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
    frozen: bool = False
    l2: float = 0.0  # weight of its square in the objective
    decay: bool = False  # whether the decoupled weight decay shrinks it
    muon: bool = False  # whether Muon trains it, where the optimizer is Muon


@dataclasses.dataclass(frozen=True)
class Table:
    """The settings of a network's parameters, by path."""

    settings: Mapping[str, Setting]

    def split(self, params: Any) -> tuple[Any, Any]:
        """The trained and the frozen parameters of a tree, as trees."""
        flat = flatten(params)
        frozen = {path for path, setting in self.settings.items() if setting.frozen}
        return (
            unflatten({path: leaf for path, leaf in flat.items() if path not in frozen}),
            unflatten({path: leaf for path, leaf in flat.items() if path in frozen}),
        )

    def merge(self, trained: Any, frozen: Any) -> Any:
        """The tree that `split` took apart."""
        return unflatten({**flatten(trained), **flatten(frozen)})

    def tree(self, of: Callable[[Setting], Any]) -> Any:
        """A tree like the trained parameters, of a value for each."""
        return unflatten({p: of(s) for p, s in self.settings.items() if not s.frozen})

    def penalty(self, params: Any) -> jax.Array:
        """`sum over parameters of l2 * sum(w ** 2)`, float32: what Keras adds to the loss."""
        weights = self.tree(lambda setting: setting.l2)
        leaves = zip(jax.tree.leaves(self.split(params)[0]), jax.tree.leaves(weights), strict=True)
        terms = [weight * jnp.sum(jnp.square(leaf)) for leaf, weight in leaves if weight]
        return jnp.asarray(sum(terms), jnp.float32)


def table(params: Any, own: Iterable[Rule], optimizer: Optimizer) -> Table:
    """The settings of all parameters.

    Args:
      params: arrays, or their shapes.
      own: the network's rules.
      optimizer: has the config's rules, and `l2`, which comes on top for all that is trained. That
        one is divided by the relative rate, so that all shrink at one pace, and spares what Muon
        trains, whose norm is fixed.

    Raises:
      UserError: a rule matches no parameter, or all parameters are frozen.
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
                f"the rule for {rule.path!r} in config.optimizer.rules matches no parameter: the "
                f"whole path must match, and there are {', '.join(settings)}"
            )
        said = {
            field.name: value
            for field in dataclasses.fields(rule)
            if field.name != "path" and (value := getattr(rule, field.name)) is not None
        }
        for path in matched:
            settings[path] = dataclasses.replace(settings[path], **said)
    if all(setting.frozen for setting in settings.values()):
        raise UserError("config.optimizer.rules freeze every parameter: nothing is left to train")
    return Table({path: _with_l2(setting, optimizer) for path, setting in settings.items()})


def _with_l2(setting: Setting, optimizer: Optimizer) -> Setting:
    muon = setting.muon and optimizer.name == "muon"
    l2 = 0.0 if muon else setting.l2 + optimizer.l2 / setting.rate
    return dataclasses.replace(setting, muon=muon, l2=0.0 if setting.frozen else l2)


def is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] == "kernel"


def flatten(tree: Any) -> dict[str, Any]:
    """`{"conv2d_0/kernel": leaf, ...}` of a nested dict."""
    return {str(path): leaf for path, leaf in traverse_util.flatten_dict(tree, sep="/").items()}


def unflatten(flat: Mapping[str, Any]) -> Any:
    """The nested dict that `flatten` made flat."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")
