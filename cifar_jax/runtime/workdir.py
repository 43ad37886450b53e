"""Writes the files of a workdir, on a local disk or in an object store (through `etils.epath`)."""

import contextlib
import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import numpy as np
from etils import epath

from cifar_jax.errors import UserError

CHECKPOINTS = "checkpoints"
COMPARISON = "comparison.html"
CONFIG = "config.json"
DATA = "data.json"
ENVIRONMENT = "environment.json"
EXPORT = "export"
INIT = "init.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
REPORT = "report.html"
RESULT = "result.json"
ROBUSTNESS = "robustness.json"
SEEDS = "seeds.json"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
PROFILE = "profile"
WEIGHTS = "model.safetensors"  # in an export, instead of checkpoints


@contextlib.contextmanager
def writing(path: epath.PathLike, option: str = "--workdir") -> Iterator[None]:
    """Turns errors while writing `path` into a UserError.

    Args:
      option: the flag that decides the path, for the message.

    Raises:
      UserError: the disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): free some space and run again, or "
            f"choose another {option}"
        ) from error


def sha256(path: epath.Path) -> str:
    """The SHA-256 of the content of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sync(path: epath.Path) -> None:
    """Returns once the content of a file, or the names in a directory, would survive a power cut.

    Does nothing for an object store, whose writes are durable.
    """
    if "://" in str(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by this file system
            raise
    finally:
        os.close(descriptor)


def beside(path: epath.Path) -> epath.Path:
    """A unique temporary name in the same directory, for a file that will be renamed to `path`."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"


def write_bytes(path: epath.Path, data: bytes, option: str = "--workdir") -> None:
    """Writes a file atomically and durably, even if the process is killed or the power fails.

    The data go to a temporary file, which is renamed once it is on the disk. Several processes may
    write the same file at once.

    Raises:
      UserError: the disk is full or not writable.
    """
    temporary = beside(path)
    with writing(path, option):
        try:
            temporary.write_bytes(data)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            if path.is_dir():
                raise UserError(f"{path} is a directory, where a file belongs: move it") from None
            raise


def write_json(path: epath.Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically. Raises ValueError for NaN, which JSON lacks."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_npz(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as a compressed `.npz`, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def make_directory(path: epath.Path) -> None:
    """Creates a directory and its parents durably, so that they survive a power cut.

    Raises:
      UserError: the directory cannot be created.
    """
    with writing(path):
        missing = [path, *path.parents]
        missing = missing[: next(i for i, p in enumerate(missing) if p.exists())]
        path.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync(made.parent)


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
    """Locks `workdir` for training; the system releases the lock if this process is killed.

    An object store has no locks: there, the user must take care of it.

    Raises:
      UserError: `workdir` cannot be written, or another process trains in it.
    """
    if "://" in str(workdir):
        yield
        return
    lock = filelock.FileLock(str(workdir / LOCK), blocking=False)
    make_directory(workdir)
    with writing(workdir):
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise UserError(
                f"another process trains in {workdir}: wait until it ends, or choose another "
                "--workdir"
            ) from error
    try:
        yield
    finally:
        lock.release()
