"""Reads the arrays of a checkpoint, all or some, and checks that they are what was saved."""

import contextlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

# What orbax and tensorstore raise for a checkpoint that is damaged, missing or of other structure.
UNREADABLE = (OSError, ValueError, KeyError, EOFError)


class OtherLayout(ValueError):
    """A checkpoint of another tree than is asked for; the message is where they first differ."""


def checksum(state: Any) -> int:
    """CRC-32 of the bytes of all leaves, in the order of the tree."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).reshape(-1).view(np.uint8).data, crc)
    return crc


def checksums(state: Any) -> dict[str, int]:
    """The same for each entry of the tree's first level, by its name.

    The leaves are taken in the order of their paths: what was saved as a dataclass comes back as a
    dict, whose keys JAX sorts.
    """
    entries: dict[str, dict[tuple[str, ...], Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        first, *rest = map(_name, path)
        entries.setdefault(first, {})[tuple(rest)] = leaf
    return {
        name: checksum([leaves[path] for path in sorted(leaves)])
        for name, leaves in entries.items()
    }


def layout(tree: Any) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Path -> shape and dtype of each leaf; of a state, or of what orbax knows of a saved one."""
    return {
        tuple(map(_name, path)): (tuple(leaf.shape), np.dtype(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _name(key: Any) -> str:
    """A key of a tree's path as orbax saves it: fields of a dataclass and keys of a dict alike."""
    return str(next(getattr(key, a) for a in ("name", "key", "idx") if hasattr(key, a)))


@contextlib.contextmanager
def _alone(partial: bool = False) -> Iterator[None]:
    """Each process of a run reads on its own, and as often as the others: orbax counts.

    Args:
      partial: a part of what was saved will do.
    """
    me = jax.process_index()
    alone = ocp.Context()
    alone.multiprocessing.primary_host, alone.multiprocessing.active_processes = me, {me}
    alone.pytree.loading.partial_load = partial
    with alone:
        yield


def load(path: epath.Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The arrays of a checkpoint on the host, and what was noted beside them.

    Raises:
      OtherLayout: it is whole, as far as its description tells, but of another tree.
      ValueError: it is not what was saved.
      OSError, KeyError, EOFError: it cannot be read.
    """
    with _alone():
        description = ocp.metadata(path)
        saved, metadata = layout(description.metadata), description.custom_metadata
        differing = sorted(saved.items() ^ layout(like).items(), key=str)
        if differing:
            raise OtherLayout("/".join(differing[0][0]))
        arrays = ocp.load(path, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like))
    found, expected = checksum(arrays), metadata["crc32"]
    if found != expected:
        raise ValueError(f"checksum {found:08x}, expected {expected:08x}")
    return arrays, metadata


def load_entries(path: epath.Path, names: Iterable[str]) -> dict[str, Any]:
    """Some entries of the saved tree's first level on the host, as they were saved.

    Raises:
      ValueError: they are not what was saved.
      OSError, KeyError, EOFError: it cannot be read, or lacks one.
    """
    with _alone(partial=True):
        description = ocp.metadata(path)
        saved = {name: description.metadata[name] for name in names}
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), saved)
        found = ocp.load(path, like)
    # Checkpoints from before there were sums by entry are checked by their seal alone.
    expected = description.custom_metadata.get("crc32_by_entry", {})
    for name, crc in checksums(found).items():
        if expected.get(name, crc) != crc:
            raise ValueError(f"checksum of {name} {crc:08x}, expected {expected[name]:08x}")
    return {name: found[name] for name in saved}


def place(arrays: Any, like: Any) -> Any:
    """Puts host arrays onto the devices, sharded like `like`."""
    return jax.tree.map(
        lambda array, leaf: jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: array[index]
        ),
        arrays,
        like,
    )
