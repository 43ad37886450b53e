"""Paths as a person names them: of this machine, or of an object store where that will do."""

import os
import re
import tempfile
from pathlib import Path

from etils import epath

from cifar_jax.errors import UserError

STORES = ("gs://", "s3://", "az://")  # that etils can write to
# "gs:/bucket", too: what pathlib makes of "gs://bucket" is a local directory "gs:".
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def local(path: epath.PathLike, name: str = "") -> Path:
    """A path of this machine, with "~" replaced; left as it is where no such user is known.

    Args:
      name: as which it was given, for the message: "config.data.dir"; "": by itself.

    Raises:
      UserError: it is the address of something elsewhere.
    """
    text = os.fspath(path)
    if _SCHEME.match(text):
        said = f"{name}={text}" if name else text
        raise UserError(f"{said} is no path of this machine: copy it here, and name the copy")
    return Path(os.path.expanduser(text))  # pathlib's raises


def anywhere(path: epath.PathLike, name: str) -> epath.Path:
    """A path of this machine or of an object store, there or not.

    Raises:
      UserError: it is of another kind, or its object store cannot be reached.
    """
    text = os.fspath(path)
    if not text.startswith(STORES):
        if "://" in text or _SCHEME.match(text):
            raise UserError(
                f"{name}={text} is neither a path of this machine nor of an object store "
                f"({', '.join(STORES)}): name one"
            )
        text = os.path.expanduser(text)
    place = epath.Path(text)
    try:
        place.exists()
    except ImportError as error:  # of the client of the object store
        raise UserError(f"{name}={text} cannot be reached: {error}") from error
    return place


def user_cache() -> Path:
    """Where this project keeps what it can make again.

    A user who has no home, such as a number without a name in a container, gets a directory of
    their own among the temporary files.

    Raises:
      UserError: XDG_CACHE_HOME is no path of this machine, or that directory is another user's.
    """
    named = os.environ.get("XDG_CACHE_HOME")
    if named or os.path.expanduser("~") != "~":
        return local(named or "~/.cache", "XDG_CACHE_HOME") / "cifar_jax"
    directory = Path(tempfile.gettempdir(), f"cifar_jax-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():  # who could hand us programs to run
        raise UserError(f"{directory} is another user's: set XDG_CACHE_HOME to a place of your own")
    return directory
