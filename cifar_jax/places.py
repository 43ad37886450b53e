"""Checks the paths that users give: local, or in an object store where that is possible."""

import contextlib
import importlib.metadata
import os
import re
import tempfile
from pathlib import Path

from etils import epath

from cifar_jax.errors import UserError

STORES = ("gs://", "s3://", "az://")  # those that etils can write to
BOX = "pretrained/speedrun90"  # the trained network that comes with the project
# Also matches "gs:/bucket": pathlib turns "gs://bucket" into that, a local directory named "gs:".
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def local(path: epath.PathLike, name: str = "") -> Path:
    """Returns a local path with "~" expanded, unless that names an unknown user.

    Args:
      name: the option that the path comes from, such as "config.data.dir", for the message; ""
        shows the path alone.

    Raises:
      UserError: the path is a remote address.
    """
    text = os.fspath(path)
    if _SCHEME.match(text):
        said = f"{name}={text}" if name else text
        raise UserError(f"{said} is not on this machine: copy it here and give that path")
    return Path(os.path.expanduser(text))  # Path.expanduser would raise for an unknown user


def existing(path: epath.PathLike, name: str) -> Path:
    """Like `local`; also raises UserError if there is no such file or directory."""
    found = local(path, name)
    if not found.exists():
        raise UserError(f"{name}={os.fspath(path)} does not exist: choose another")
    return found


def anywhere(path: epath.PathLike, name: str) -> epath.Path:
    """Returns a path, existing or not, on this machine or in an object store.

    Args:
      name: the option that the path comes from, such as "--workdir", for the message.

    Raises:
      UserError: the path is neither, or the client of its object store is not installed.
    """
    text = os.fspath(path)
    if not text.startswith(STORES):
        if "://" in text or _SCHEME.match(text):
            raise UserError(
                f"{name}={text} is neither on this machine nor in an object store "
                f"({', '.join(STORES)}): choose one of these"
            )
        text = os.path.expanduser(text)
    place = epath.Path(text)
    try:
        place.exists()
    except ImportError as error:  # the client of the object store
        raise UserError(f"{name}={text} cannot be reached: {error}") from error
    return place


def without_password(text: str) -> str:
    """`text` with "***" in place of the passwords in its URLs."""
    return re.sub(
        r"([a-z][a-z0-9+.-]*://[^:/@\s]*):[^@\s]*@", r"\1:***@", text, flags=re.IGNORECASE
    )


def user_cache() -> Path:
    """The directory for everything that can be computed again: `$XDG_CACHE_HOME/cifar_jax`.

    Without XDG_CACHE_HOME it is in `~/.cache`. A user without a home directory (such as a bare uid
    in a container) gets a private directory among the temporary files.

    Raises:
      UserError: XDG_CACHE_HOME is a remote address, or another user owns the private directory.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named or os.path.expanduser("~") != "~":
        return local(named or "~/.cache", "XDG_CACHE_HOME") / "cifar_jax"
    directory = Path(tempfile.gettempdir(), f"cifar_jax-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():  # its owner could make us run compiled programs
        raise UserError(
            f"{directory} belongs to another user: set XDG_CACHE_HOME to a directory of your own"
        )
    return directory


def in_the_box() -> Path:
    """The directory of the trained network that comes with the project.

    It lies beside the package in a checkout; an installed package knows it as one of its files.

    Raises:
      UserError: it is not there.
    """
    beside = Path(__file__).parent.parent / BOX
    if beside.is_dir():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("cifar-jax") or ():
            path = Path(os.fspath(file.locate()))
            if path.parent.as_posix().endswith(BOX) and path.exists():
                return path.parent
    raise UserError(
        f"the network that comes with the project, {BOX}, is not beside this package: install the "
        "package again, or give the workdir of a run"
    )
