"""Decides whether an export may write to a path: never over a user's file without --force.

An export may replace an earlier export in the workdir that nobody has changed since, according to
SHA256SUMS there.
"""

import hashlib
import os

from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from cifar_jax.runtime import workdir as files

_SUMS = "SHA256SUMS"  # in the format of `sha256sum --check`


def check(path: epath.Path, workdir: epath.Path, force: bool) -> None:
    """Checks, before the work is done, that the file `path` may be written.

    Args:
      workdir: the workdir of the exported run.

    Raises:
      UserError: `path` is a directory, or a file that may be replaced only with `force`.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory: choose a file in it")
    if not (path.exists() or os.path.islink(path)) or force or _is_ours(path, workdir):
        return
    raise UserError(f"{path} exists: choose another --output, or pass --force to replace it")


def check_directory(path: epath.Path, names: set[str], force: bool) -> None:
    """Checks that the directory `path` may be written; it will hold exactly the files `names`.

    Raises:
      UserError: `path` is a file or a link, holds other files, or holds only some of `names` and
        `force` is not set.
    """
    if os.path.islink(path) or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} is not a directory: choose another --output")
    held = {file.name for file in path.iterdir()} if path.exists() else set()
    if held - names:
        raise UserError(f"{path} holds other files: choose another --output")
    if held and held != names and not force:
        raise UserError(f"{path} exists: choose another --output, or pass --force to replace it")


def write(network: Trained, path: epath.Path, data: bytes) -> None:
    """Writes a file that `check` has accepted, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, data, "--output")
    sums = network.workdir / files.EXPORT / _SUMS
    if path.parent == sums.parent:
        lines = sums.read_bytes().splitlines() if sums.exists() else []
        others = [line for line in lines if not line.endswith(f"  {path.name}".encode())]
        files.write_bytes(sums, b"\n".join([*others, _line(path.name, data), b""]), "--output")


def _is_ours(path: epath.Path, workdir: epath.Path) -> bool:
    sums = workdir / files.EXPORT / _SUMS
    if path.parent != sums.parent or os.path.islink(path) or not sums.is_file():
        return False
    return _line(path.name, path.read_bytes()) in sums.read_bytes().splitlines()


def _line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}".encode()
