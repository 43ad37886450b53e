"""Where an export goes: a file of the user's is replaced only where --force says so.

What exports left in their workdir, and nobody has changed, they replace: SHA256SUMS there knows.
"""

import hashlib
import os

from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from cifar_jax.runtime import workdir as files

_SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it


def check(path: epath.Path, workdir: epath.Path, force: bool) -> None:
    """Looks whether a file may be written, before the work is done.

    Args:
      workdir: of the run that is exported.

    Raises:
      UserError: it is a directory, or it is there already, not ours, and not to be replaced.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory: name a file in it")
    if not (path.exists() or os.path.islink(path)) or force or _is_ours(path, workdir):
        return
    raise UserError(f"{path} exists: choose another --output, or pass --force to replace it")


def check_directory(path: epath.Path, names: set[str], force: bool) -> None:
    """The same of a directory that will hold files of these names, and no others.

    Raises:
      UserError: it is a file or a link, holds others, or not these and is not to be replaced.
    """
    if os.path.islink(path) or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} is no directory: choose another --output")
    held = {file.name for file in path.iterdir()} if path.exists() else set()
    if held - names:
        raise UserError(f"{path} holds other files: choose another --output")
    if held and held != names and not force:
        raise UserError(f"{path} exists: choose another --output, or pass --force to replace it")


def write(network: Trained, path: epath.Path, data: bytes) -> None:
    """Writes a file that `check` has let pass, whole or not at all."""
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
