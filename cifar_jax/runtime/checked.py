"""Files of a workdir, read back: what is not of its schema is refused in one line, or passed over.

A mode refuses what it needs. What only informs never ends a run: it is passed over, saying so.
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
# What zipfile, zlib and NumPy raise on what is no .npz: also of a method of compression or a
# password that they do not take (RuntimeError), and of a header that asks for more than there is.
_NO_NPZ = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, EOFError, KeyError, ValueError,
    OverflowError, RuntimeError, MemoryError, SyntaxError,
)  # fmt: skip


@contextlib.contextmanager
def reading(path: epath.Path, remedy: str) -> Iterator[None]:
    """Around what reads `path`; raises UserError where that cannot be, or it is damaged."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot read {path} ({reason}): {remedy}") from error
    except Damaged as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error


def read_json(path: epath.Path, schema: Schema) -> Any:
    """The content of a JSON file of the workdir.

    Raises:
      UserError: it cannot be read, or is not of `schema`.
    """
    with reading(path, schema.remedy):
        return schema.parse(path.read_bytes())


def read_if_sound(path: epath.Path, schema: Schema) -> Any | None:
    """The content of a JSON file that only informs: None where it is missing, or where `read_json`
    would refuse it, which a line tells."""
    try:
        return read_json(path, schema) if path.exists() else None
    except UserError as error:
        _log.warning("passed over: %s", error)
        return None


def read_or_set_aside(path: epath.Path, schema: Schema) -> Any | None:
    """As `read_if_sound`, and makes way for a new file where there is a damaged one."""
    content = read_if_sound(path, schema)
    if content is None and path.exists():
        set_aside(path)
    return content


def set_aside(path: epath.Path) -> None:
    """Renames what is in the way of a file, so that nothing is lost, and says so.

    Raises:
      UserError: it cannot be renamed.
    """
    places = (path.parent / f"{path.name}.damaged-{n}" for n in itertools.count(1))
    aside = next(place for place in places if not place.exists())
    try:
        path.rename(aside)
    except OSError as error:
        raise UserError(
            f"cannot rename {path}, which is damaged ({error.strerror or error}): move it away"
        ) from error
    _log.warning("%s is begun anew; what was there is in %s", path, aside)


def read_npz(path: epath.Path, schema: Schema) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file of the workdir.

    Raises:
      UserError: it cannot be read, or is not of `schema`.
    """
    assert isinstance(schema.form, Mapping)  # of an array each
    with reading(path, schema.remedy):
        arrays = _arrays(path.read_bytes(), schema.form)
        schema.check(arrays)
        return arrays


def _arrays(data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of these names; raises Damaged where `data` is no `.npz`, or holds objects."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            found = set(members.namelist())
            return {
                name: np.lib.format.read_array(io.BytesIO(members.read(f"{name}.npy")))
                for name in names
                if f"{name}.npy" in found
            }
    except _NO_NPZ as error:
        raise Damaged(f"no .npz: {' '.join(str(error).split())}") from error
