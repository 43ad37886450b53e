"""Decoded data sets on disk, so that only the first start pays for decoding.

A cache is one uncompressed `.npz`: reading it is reading a file, and zip's CRC-32 of every
array is checked on the way, so a flipped byte or a cut file is noticed. It is written beside its
final place and renamed, so a reader (or a second writer) only ever sees a whole file.
"""

import errno
import hashlib
import logging
import os
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cifar_jax.errors import UserError

FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What zipfile and numpy raise, between them, for a file with any one byte flipped or cut anywhere.
_DAMAGE = (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)

_log = logging.getLogger(__name__)


def expanded(path: str) -> Path:
    """`path` with "~" replaced; left as it is where no such user is known."""
    return Path(os.path.expanduser(path))  # pathlib's raises


def path_of(cache_dir: str, name: str, content: str) -> Path:
    """Where the data set `name` is cached.

    `content` is any text that identifies the content (a fingerprint, the directory it comes
    from); a part of the file's name, so that one data set is never taken for another. `cache_dir`
    "" means `$XDG_CACHE_HOME/cifar_jax`, or `~/.cache/cifar_jax`.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    directory = expanded(cache_dir or os.path.join(user_cache, "cifar_jax"))
    key = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    return directory / f"{name.replace('/', '-').replace(':', '-')}-{key}.npz"


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The cached `FIELDS`, or None where there is no usable cache.

    images `[N, H, W, C]` uint8, labels `[N]` int32, class_names `[K]` str. A damaged cache is
    reported in one warning and never used.
    """
    try:
        # Opened here since np.load would leave a file open that it finds damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {field: npz[field] for field in FIELDS}
        _check(arrays)
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        _log.warning("ignoring the damaged cache %s (%s); it will be rebuilt", path, error)
        return None
    return arrays


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays have the form that `write` gave them."""
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int32:
            raise ValueError(f"unexpected form of the {split} arrays")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} {split} images, {len(labels)} labels")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `FIELDS` to `path` in one atomic step, or leaves no trace.

    A directory that cannot be written is worth a warning only: the run goes on uncached.

    Raises:
      UserError: the disk is full.
    """
    # Unique to this call, so that two processes (or hosts on one file system) cannot meet in it.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:
            megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
            raise UserError(
                f"no space left for the data cache {path}: it takes {megabytes:.0f} MB; free some"
                " or set config.data.cache_dir to a directory on another disk"
            ) from error
        _log.warning("cannot write the data cache %s (%s); going on without it", path, error)
