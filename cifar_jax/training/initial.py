"""Initial values that are not random: computed from the data, or trained before.

`Network.whitened` says which kernels are computed from the data, `config.init` what to load.
"""

import re
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, UInt8

from cifar_jax import places
from cifar_jax.config.schema import Init, Model
from cifar_jax.errors import UserError, first_of
from cifar_jax.models import initializers
from cifar_jax.models.network import Network
from cifar_jax.optim import rules
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.training import best, claim, published
from cifar_jax.training.published import Loaded
from cifar_jax.training.steps import Statistics


def from_data(
    init: Init, model: Network, images: UInt8[np.ndarray, "n h w c"], statistics: Statistics
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Path -> kernel, for the kernels that whiten the training images.

    Args:
      images: the training images; `init.whitening_images` of them are used, evenly spaced.
      statistics: what the network's images are standardized by.
    """
    if not model.whitened():
        return {}
    every = max(1, len(images) // init.whitening_images)
    some = images[::every][: init.whitening_images]
    kernel = initializers.whitening(some, *statistics, init.whitening_epsilon)
    return {f"params/{path}": kernel for path in model.whitened()}


def check_source(init: Init) -> None:
    """Checks that `init.source` is a run or published weights, before anything is loaded.

    Raises:
      UserError: it is neither.
    """
    if init.source and not published.is_weights(init.source):
        claim.load_config(_workdir(init))


def from_source(init: Init, model: Model, like: dict[str, Any]) -> Loaded:
    """The variables to load from `init.source`: a run's best epoch, or published weights.

    Args:
      model: the config of the network.
      like: shapes and dtypes of "params" and "batch_stats".

    Raises:
      UserError: there is no such source, or its variables differ in name or shape and `init.skip`
        does not match those that do.
    """
    loaded = _load(init, model)
    found, wanted = loaded.variables, rules.flatten(like)
    every_path = {path.partition("/")[2] for path in (*found, *wanted)}
    for pattern in init.skip:
        if not any(re.fullmatch(pattern, path) for path in every_path):
            raise UserError(f"config.init.skip: {pattern!r} matches no parameter")
    skipped = {
        path
        for path in (*found, *wanted)
        if any(re.fullmatch(pattern, path.partition("/")[2]) for pattern in init.skip)
    }
    wrong = [
        f"{path} ({_shape(found.get(path))} there, {_shape(wanted.get(path))} here)"
        for path in sorted({*found, *wanted} - skipped)
        if _shape(found.get(path)) != _shape(wanted.get(path))
    ]
    if wrong:
        raise UserError(
            f"the network of config.init.source={init.source} differs: {first_of(wrong)}"
            "; list in config.init.skip what not to load"
        )
    return loaded._replace(variables={path: found[path] for path in wanted if path not in skipped})


def _load(init: Init, model: Model) -> Loaded:
    if published.is_weights(init.source):
        return published.read(init.source, model)
    source = _workdir(init)
    restore_best = claim.load_config(source).early_stopping.restore_best
    found = best.find(Reader(source / files.CHECKPOINTS), source, restore_best)
    return Loaded(rules.flatten(found.variables), str(source))


def _workdir(init: Init) -> epath.Path:
    return places.anywhere(init.source, "config.init.source")


def replace(variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A copy of `variables` with the given values at their paths."""
    flat = {**rules.flatten(variables), **given}
    return {name: {} for name in variables} | rules.unflatten(flat)


def _shape(leaf: Any) -> str:
    return "absent" if leaf is None else str(list(leaf.shape))
