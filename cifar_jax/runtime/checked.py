"""Reads files of a workdir and checks them against their schema.

A mode that needs a file refuses a damaged one in one line. A file that is only informative never
stops a run: a damaged one is ignored with a warning.
"""

import contextlib
import io
import itertools
import logging
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.forms import Damaged, Schema

_log = logging.getLogger(__name__)
# zipfile, zlib and NumPy raise these if a file is not a valid .npz. RuntimeError: an unknown
# compression, or a password. MemoryError: a header that claims too large an array.
_NOT_NPZ = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, EOFError, KeyError, ValueError,
    OverflowError, RuntimeError, MemoryError, SyntaxError,
)  # fmt: skip


@contextlib.contextmanager
def reading(path: epath.Path, remedy: str) -> Iterator[None]:
    """Turns errors while reading `path` into a UserError that ends with `remedy`.

    Raises:
      UserError: the file cannot be read, or the code inside raised Damaged.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot read {path} ({reason}): {remedy}") from error
    except Damaged as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error


def read_json(path: epath.Path, schema: Schema) -> Any:
    """Reads a JSON file of the workdir.

    Raises:
      UserError: the file cannot be read or does not match `schema`.
    """
    with reading(path, schema.remedy):
        return schema.parse(path.read_bytes())


def read_if_sound(path: epath.Path, schema: Schema) -> Any | None:
    """Reads an informative JSON file; None if it is missing or, after a warning, damaged."""
    try:
        return read_json(path, schema) if path.exists() else None
    except UserError as error:
        _log.warning("ignored: %s", error)
        return None


def read_or_set_aside(path: epath.Path, schema: Schema) -> Any | None:
    """Like `read_if_sound`, and renames a damaged file so that a new one can be written."""
    content = read_if_sound(path, schema)
    if content is None and path.exists():
        set_aside(path)
    return content


def set_aside(path: epath.Path) -> None:
    """Renames a damaged file, so that a new one can be written and nothing is lost; warns.

    Raises:
      UserError: the file cannot be renamed.
    """
    names = (path.parent / f"{path.name}.damaged-{n}" for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(
            f"cannot rename {path}, which is damaged ({error.strerror or error}): move it away"
        ) from error
    _log.warning("%s was damaged and starts again; the old content is in %s", path, aside)


def read_npz(path: epath.Path, schema: Schema) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file of the workdir.

    Args:
      schema: its form maps array names to checks.

    Raises:
      UserError: the file cannot be read or does not match `schema`.
    """
    assert isinstance(schema.form, Mapping)
    with reading(path, schema.remedy):
        arrays = _arrays(path.read_bytes(), schema.form)
        schema.check(arrays)
        return arrays


def _arrays(data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays with these names; raises Damaged if `data` is not an `.npz` or holds objects."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            found = set(members.namelist())
            return {
                name: np.lib.format.read_array(io.BytesIO(members.read(f"{name}.npy")))
                for name in names
                if f"{name}.npy" in found
            }
    except _NOT_NPZ as error:
        raise Damaged(f"not an .npz: {' '.join(str(error).split())}") from error
