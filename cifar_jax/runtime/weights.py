"""Parameters as one safetensors file, which other tools read as well."""

from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath
from flax import traverse_util

from cifar_jax.forms import Damaged
from cifar_jax.runtime import checked
from cifar_jax.runtime import workdir as files


def to_bytes(variables: dict[str, Any]) -> bytes:
    """`variables` under names such as "params/conv2d_0/kernel"."""
    flat = traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    return safetensors.numpy.save({name: np.ascontiguousarray(leaf) for name, leaf in flat.items()})


def is_export(flat: dict[str, np.ndarray]) -> bool:
    """Whether these are the names that `to_bytes` writes."""
    return all(name.startswith(("params/", "batch_stats/")) for name in flat)


def read_flat(path: epath.Path, remedy: str = "export it again") -> dict[str, np.ndarray]:
    """Name -> array, as `to_bytes` wrote them.

    Args:
      remedy: how to get a file that is not damaged.

    Raises:
      UserError: the file cannot be read, is damaged, or has values that are not finite.
    """
    with checked.reading(path, remedy):
        try:
            flat = safetensors.numpy.load(path.read_bytes())
        except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype NumPy lacks
            raise Damaged(" ".join(str(error).split())) from error
        if not all(np.isfinite(leaf).all() for leaf in flat.values()):
            raise Damaged("it has parameters that are not finite")
    return flat


def read(path: epath.Path, like: dict[str, Any]) -> dict[str, Any]:
    """The variables that `to_bytes` wrote.

    Args:
      like: their shapes, dtypes and shardings.

    Raises:
      UserError: as `read_flat`, or the file is of another network.
    """
    wanted: dict[str, Any] = dict(traverse_util.flatten_dict(like, sep="/"))
    flat = read_flat(path)
    with checked.reading(path, "export it again"):
        if _shapes(flat) != _shapes(wanted):
            raise Damaged(f"it is not of the network in {files.CONFIG} beside it")
    leaves = {name: jax.device_put(flat[name], leaf.sharding) for name, leaf in wanted.items()}
    # A collection without leaves has no name in the file.
    return {key: {} for key in like} | traverse_util.unflatten_dict(leaves, sep="/")


def _shapes(flat: dict[str, Any]) -> dict[str, tuple]:
    return {name: (leaf.shape, leaf.dtype) for name, leaf in flat.items()}
