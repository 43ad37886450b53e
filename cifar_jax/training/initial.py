"""Initial values of parameters that do not come from the seed: from the data, or from another run.

The network says what it needs of the data (`Network.whitened`), the config what it starts from
(`config.init`).
"""

import re
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float32, UInt8

from cifar_jax import places
from cifar_jax.config.schema import Init
from cifar_jax.errors import UserError
from cifar_jax.models import initializers
from cifar_jax.models.network import Network
from cifar_jax.optim import rules
from cifar_jax.runtime import metrics_writer, weights
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.training import best, claim
from cifar_jax.training.steps import Statistics


def from_data(
    init: Init, model: Network, images: UInt8[np.ndarray, "n h w c"], statistics: Statistics
) -> dict[str, Float32[np.ndarray, "..."]]:
    """Path -> kernel, of those that are to whiten the training images.

    Args:
      images: the training images, of which as many as `init` says are looked at.
    """
    if not model.whitened():
        return {}
    every = max(1, len(images) // init.whitening_images)
    some = images[::every][: init.whitening_images]
    kernel = initializers.whitening(some, *statistics, init.whitening_epsilon)
    return {f"params/{path}": kernel for path in model.whitened()}


def check_source(init: Init) -> None:
    """Checks that there is a run to start from, before anything is loaded or written.

    Raises:
      UserError: there is none.
    """
    if init.workdir:
        claim.load_config(_source(init))


def _source(init: Init) -> epath.Path:
    return places.anywhere(init.workdir, "config.init.workdir")


def from_run(init: Init, like: dict[str, Any]) -> dict[str, np.ndarray]:
    """Path -> array, of the variables that start from the best epoch of another run.

    Args:
      like: shapes and dtypes of "params" and "batch_stats".

    Raises:
      UserError: there is no such run; or it lacks a variable, has one too many or one of another
        shape, which `init.skip` does not name.
    """
    if not init.workdir:
        return {}
    found, wanted = _variables(_source(init)), rules.flatten(like)
    every_path = {path.partition("/")[2] for path in (*found, *wanted)}
    for pattern in init.skip:
        if not any(re.fullmatch(pattern, path) for path in every_path):
            raise UserError(f"config.init.skip: {pattern!r} matches no path of a parameter")
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
        others = f" and {len(wrong) - 1} others" if wrong[1:] else ""
        raise UserError(
            f"the network of config.init.workdir={init.workdir} is another one: {wrong[0]}{others}"
            "; name by config.init.skip what is to keep fresh values"
        )
    return {path: found[path] for path in wanted if path not in skipped}


def replace(variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`variables` with the given values at their paths."""
    flat = {**rules.flatten(variables), **given}
    return {name: {} for name in variables} | rules.unflatten(flat)


def _variables(source: epath.Path) -> dict[str, np.ndarray]:
    exported = source / files.WEIGHTS
    if exported.exists():
        return weights.read_flat(exported)
    config = claim.load_config(source)
    rows = best.in_order(metrics_writer.read_rows(source), config.early_stopping.restore_best)
    reader = Reader(source / files.CHECKPOINTS)
    found = reader.entries_of_first(best.ENTRIES, [row["step"] for row in rows])
    if found is None:
        raise UserError(f"config.init.workdir={source} has no epoch with a whole checkpoint")
    return rules.flatten(best.averaged(found[1]))


def _shape(leaf: Any) -> str:
    return "absent" if leaf is None else str(list(leaf.shape))
