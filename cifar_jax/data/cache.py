"""Decoded data sets on disk, so that only the first start pays for decoding.

A cache is one uncompressed `.npz`, named by its content: reading it is reading a file. Zip's CRC-32
of every array is checked on the way, so a flipped byte or a cut file is noticed; whether it is the
content that was asked for is for the caller to check. Beside it a note says of a source, such as a
TFDS directory, which content it was found to have. Both are written beside their final place and
renamed, so a reader (or a second writer) only ever sees a whole file.
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifar_jax import places
from cifar_jax.errors import UserError

FIELDS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# What zipfile and numpy raise, between them, for a file with any one byte flipped or cut anywhere,
# or one that claims another compression or arrays larger than memory.
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
    SyntaxError,  # of numpy's header, which is a Python literal
    tokenize.TokenError,
)

_log = logging.getLogger(__name__)


def path_of(cache_dir: str, name: str, content: str) -> Path:
    """Where the data set `name` is cached.

    `content` is any text that identifies the content; its digest is a part of the file's name.
    `cache_dir` "" means `$XDG_CACHE_HOME/cifar_jax`, or `~/.cache/cifar_jax`.

    Raises:
      UserError: that is no path of this machine.
    """
    directory = places.user_cache()
    if cache_dir:
        directory = places.local(cache_dir, "config.data.cache_dir")
    key = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    return directory / f"{name.replace('/', '-').replace(':', '-')}-{key}.npz"


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The cached `FIELDS`, or None where there is no usable cache.

    images `[N, H, W, C]` uint8, labels `[N]` int32, class_names `[K]` str. A damaged cache is
    reported in one warning and never used.
    """
    try:
        if not path.is_file():  # a pipe would wait
            return None
        # Opened here since np.load would leave a file open that it finds damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {field: npz[field] for field in FIELDS}
    except _DAMAGE as error:
        fault: object = error
    else:
        fault = _fault(arrays)
        if not fault:
            return arrays
    _log.warning("ignoring the damaged cache %s (%s); it will be rebuilt", path, fault)
    return None


def _fault(arrays: Mapping[str, np.ndarray]) -> str | None:
    """In what the arrays have not the form that `write` gave them."""
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int32:
            return f"unexpected form of the {split} arrays"
        if labels.shape != images.shape[:1]:
            return f"{len(images)} {split} images, {len(labels)} labels"
    names = arrays["class_names"]
    if names.dtype.kind != "U" or names.ndim != 1:
        return "unexpected form of the class names"
    return None


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `FIELDS` to `path` in one atomic step, or leaves no trace.

    A directory that cannot be written is worth a warning only: the run goes on uncached.

    Raises:
      UserError: the disk is full.
    """
    megabytes = sum(array.nbytes for array in arrays.values()) / 1e6
    _write(path, lambda file: np.savez(file, allow_pickle=False, **arrays), megabytes)


def state_of(directory: Path) -> str | None:
    """A text that is another one as soon as a file at any depth is; None: no such directory.

    It names each file with its target, size and times. Nobody can set the time of a file's last
    change back, so one that is edited in place is seen, too.
    """
    if not directory.is_dir():
        return None
    files: list[str] = []
    entered: set[str] = set()
    for place, directories, names in os.walk(directory, followlinks=True):
        target = os.path.realpath(place)
        if target in entered:  # links may go in circles
            directories.clear()
            continue
        entered.add(target)
        for name in names:
            path = os.path.realpath(os.path.join(place, name))
            try:
                stat = os.stat(path)
            except FileNotFoundError:  # a link to nowhere
                files.append(path)
                continue
            files.append(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    text = "\n".join([os.path.realpath(directory), *sorted(files)])
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def recall(cache_dir: str, name: str, source: str) -> Any:
    """The content that `note` noted of the source; None where it noted none of this one."""
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
    """Notes what a source was found to hold, JSON-ready; otherwise as `write`."""
    path = path_of(cache_dir, name, source).with_suffix(".json")
    text = json.dumps({"source": source, "content": content}, indent=1)
    _write(path, lambda file: file.write(text.encode()), len(text) / 1e6)


def _write(path: Path, fill: Callable[[BinaryIO], Any], megabytes: float) -> None:
    # Unique to this call, so that two processes (or hosts on one file system) cannot meet in it.
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
                " or set config.data.cache_dir to a directory on another disk"
            ) from error
        _log.warning("cannot write the data cache %s (%s); going on without it", path, error)
