"""The files of a workdir. Paths may be local or `gs://`: every write goes through `etils.epath`."""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cifar_jax import config_tree
from cifar_jax.errors import UserError
from configs import base

CHECKPOINTS = "checkpoints"
COMPARISON = "comparison.html"
CONFIG = "config.json"
DATA = "data.json"
ENVIRONMENT = "environment.json"
LOCK = ".lock"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
REPORT = "report.html"
RESULT = "result.json"
ROBUSTNESS = "robustness.json"
SEEDS = "seeds.json"
TENSORBOARD = "tensorboard"
PROFILE = "profile"


def write_bytes(path: epath.Path, data: bytes) -> None:
    """Writes a file whole or not at all: to a temporary name beside it, then renamed."""
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: epath.Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically. NaN is refused: it is no JSON."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: epath.Path) -> Any:
    """Reads a JSON file of the workdir.

    Raises:
      UserError: the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or delete it") from error


def write_npz(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as a compressed `.npz`, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def load_config(workdir: epath.Path) -> ConfigDict:
    """The resolved config of the run in `workdir`.

    Raises:
      UserError: there is none, or there are several.
    """
    config = _saved_config(workdir)
    if config.seeds > 1:
        raise UserError(
            f"{workdir} holds runs of {config.seeds} seeds, each in a directory of its own: use "
            f"{workdir / f'seed-{config.seed}'}"
        )
    return config


def _saved_config(workdir: epath.Path) -> ConfigDict:
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(f"no run in {workdir} ({CONFIG} is missing): train one there first")
    # Keys that are newer than the run have defaults that leave everything as it was.
    defaults = config_tree.plain(base.get_config())
    return config_tree.from_plain(config_tree.complete(read_json(path), defaults))


def check_config(workdir: epath.Path, config: ConfigDict) -> None:
    """Checks that `workdir` is empty or holds a run of `config`.

    Raises:
      UserError: it holds a run of another config.
    """
    if (workdir / CONFIG).exists():
        changed = config_tree.differences(_saved_config(workdir), config)
        if changed:
            raise UserError(
                f"{workdir} holds a run of another config: choose another --workdir, or take back "
                + "; ".join(changed)
            )


def claim(workdir: epath.Path, config: ConfigDict) -> None:
    """Makes `workdir` the home of a run of `config`.

    Raises:
      UserError: it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / CONFIG, config_tree.plain(config))
    except OSError as error:
        raise _unwritable(workdir, error) from error


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
    """Keeps other processes from training in `workdir`; the system frees it if this one is killed.

    An object store has no locks: there, it is for the user to see to it.

    Raises:
      UserError: it cannot be written, or another process trains there.
    """
    if "://" in str(workdir):
        yield
        return
    lock = filelock.FileLock(str(workdir / LOCK), blocking=False)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"another process trains in {workdir}: wait for its end, or choose another --workdir"
        ) from error
    except OSError as error:
        raise _unwritable(workdir, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable(workdir: epath.Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot write to --workdir={workdir} ({reason}): choose another")
