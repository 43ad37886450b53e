"""Keeps decoded data sets on disk, so that only the first start has to decode them.

A cache is one uncompressed `.npz` file, named after a hash of its content. Reading it checks the
CRC-32 that zip keeps of every array, so flipped bytes and truncated files are detected; the caller
must check that the content is the expected one. A JSON note next to it records which content a
source, such as a TFDS directory, held when it was read. Both files are written under a temporary
name and renamed, so readers and other writers never see a partial file.
"""

import errno
import hashlib
import json
import logging
import lzma
import os
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifar_jax import places
from cifar_jax.errors import UserError

FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# zipfile and numpy raise these for files with a flipped byte or truncated anywhere, with an unknown
# compression, or with arrays larger than memory.
_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    SyntaxError,  # numpy parses an array's header as a Python literal
    tokenize.TokenError,
)

_log = logging.getLogger(__name__)


def path_of(cache_dir: str, name: str, content: str) -> Path:
    """The path of the cache of the data set `name`.

    Args:
      cache_dir: "" means `$XDG_CACHE_HOME/cifar_jax`, or else `~/.cache/cifar_jax`.
      name: of the data set, as TFDS spells it.
      content: any string that identifies the content; its hash becomes part of the file name.

    Raises:
      UserError: `cache_dir` is not a local path.
    """
    directory = _directory(cache_dir)
    key = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    return directory / f"{name.replace('/', '-').replace(':', '-')}-{key}.npz"


def _directory(cache_dir: str) -> Path:
    return places.local(cache_dir, "config.data.cache_dir") if cache_dir else places.user_cache()


def read(path: Path) -> dict[str, np.ndarray] | None:
    """Reads the `FIELDS` from a cache; None, after a warning, if it is damaged.

    Returns:
      images `[N, H, W, C]` uint8, labels `[N]` int32, class_names `[K]` str; None if there is no
      usable cache.
    """
    return _read(path, FIELDS, _fault)


def _read(
    path: Path, names: Sequence[str], fault_of: Callable[[Mapping[str, np.ndarray]], str | None]
) -> dict[str, np.ndarray] | None:
    try:
        if not path.is_file():  # opening a pipe would block
            return None
        # Opened here because np.load does not close a file that it finds damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in names}
    except _DAMAGE as error:
        fault: object = error
    else:
        fault = fault_of(arrays)
        if not fault:
            return arrays
    _log.warning("ignoring the damaged cache %s (%s); it will be rebuilt", path, fault)
    return None


def _fault(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Says which array has a wrong shape or dtype; None if all are as `write` stores them."""
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int32:
            return f"unexpected shape or dtype of the {split} arrays"
        if labels.shape != images.shape[:1]:
            return f"{len(images)} {split} images, {len(labels)} labels"
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        return "unexpected shape or dtype of the class names"
    return None


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `FIELDS` to `path` atomically; a failed write leaves no file behind.

    Only warns if the directory cannot be written: the run then goes on without a cache.

    Raises:
      UserError: the disk is full.
    """
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    _write(path, lambda file: np.savez(file, allow_pickle=False, **arrays), megabytes)


def features_path(cache_dir: str, digest: str) -> Path:
    """The path of a chunk of features; `digest` is a hash of all that they depend on.

    Raises:
      UserError: `cache_dir` is not a local path.
    """
    return _directory(cache_dir) / "features" / f"{digest}.npz"


def read_features(path: Path, size: int) -> np.ndarray | None:
    """Reads what `write_features` wrote; None if it is missing or, after a warning, damaged."""

    def fault(arrays: Mapping[str, np.ndarray]) -> str | None:
        found = arrays["features"]
        fits = found.dtype == np.float32 and found.ndim == 2 and len(found) == size
        return None if fits else f"unexpected shape or dtype {found.dtype} {list(found.shape)}"

    arrays = _read(path, ("features",), fault)
    return None if arrays is None else arrays["features"]


def write_features(path: Path, features: np.ndarray) -> None:
    """Writes float32 features `[N, F]` as `write` writes a data set."""
    _write(path, lambda file: np.savez(file, features=features), features.nbytes / 1e6)


def state_of(directory: Path) -> str | None:
    """A hash that changes whenever a file at any depth changes; None if there is no directory.

    It covers each file's path (with links resolved), size, mtime and ctime. Programs cannot set the
    ctime, so even an edit that restores size and mtime is detected.
    """
    if not directory.is_dir():
        return None
    files: list[str] = []
    entered: set[str] = set()
    for place, directories, names in os.walk(directory, followlinks=True):
        target = os.path.realpath(place)
        if target in entered:  # links can form a loop
            directories.clear()
            continue
        entered.add(target)
        for name in names:
            path = os.path.realpath(os.path.join(place, name))
            try:
                stat = os.stat(path)
            except FileNotFoundError:  # a broken link
                files.append(path)
                continue
            files.append(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    text = "\n".join([os.path.realpath(directory), *sorted(files)])
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def recall(cache_dir: str, name: str, source: str) -> Any:
    """The content that `note` recorded for exactly this source, else None."""
    path = path_of(cache_dir, name, source).with_suffix(".json")
    try:
        note = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("ignoring the damaged %s (%s); it will be rebuilt", path, error)
        return None
    return note.get("content") if isinstance(note, dict) and note.get("source") == source else None


def note(cache_dir: str, name: str, source: str, content: Any) -> None:
    """Records the content (JSON-ready) of a source, for `recall`; fails and warns as `write`.

    Args:
      source: any string that identifies the source and its current state.
    """
    path = path_of(cache_dir, name, source).with_suffix(".json")
    text = json.dumps({"source": source, "content": content}, indent=1)
    _write(path, lambda file: file.write(text.encode()), len(text) / 1e6)


def _write(path: Path, fill: Callable[[BinaryIO], Any], megabytes: float) -> None:
    # Unique to this call, so that two processes (or hosts that share a file system) cannot collide.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "xb") as file:
                fill(file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(
                f"no space left for the data cache {path}: it takes {megabytes:.0f} MB; free some"
                " space or set config.data.cache_dir to a directory on another disk"
            ) from error
        _log.warning("cannot write the data cache %s (%s); going on without it", path, error)
