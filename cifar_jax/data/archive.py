"""Reads CIFAR-10 from a local copy of its official archive, in the binary or the Python flavor.

https://www.cs.toronto.edu/~kriz/cifar.html describes both. Each has six batches of 10,000
images. A binary batch, `data_batch_1.bin`, stores each image as one label byte and 3,072 pixel
bytes in channel, row, column order. A Python batch, `data_batch_1`, is a pickled dict with `data
[N, 3072] uint8` and `labels`.
"""

import gzip
import hashlib
import io
import pickle
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from cifar_jax.errors import UserError

Images = UInt8[np.ndarray, "n h w c"]
Labels = Int32[np.ndarray, " n"]
Splits = dict[str, tuple[Images, Labels]]  # "train" and "test"

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST = "test_batch"
_SUFFIXES = {"binary": ".bin", "python": ""}
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_PIXELS = 3 * 32 * 32
_MAX_BATCH_BYTES = 64 * 2**20  # an official batch is 30 MB
OFFICIAL_MD5 = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}


def is_archive(path: Path) -> bool:
    """Whether `path` is a file or an unpacked archive, as opposed to a TFDS directory."""
    return path.is_file() or bool(_batch_files(path))


def read(path: Path) -> Splits:
    """Reads the splits of the archive at `path`, a `.tar.gz` or a directory unpacked from one.

    Nothing is unpacked to disk. Only the file format is checked; the caller must check the content.

    Returns:
      Images `[N, 32, 32, 3]` uint8 and labels `[N]` int32, in the archive's order.

    Raises:
      UserError: the archive is unreadable or truncated or no archive at all, or a batch is missing
        or malformed.
    """
    try:
        if path.is_dir():
            batches = {file.name: file.read_bytes() for file in _batch_files(path)}
        else:
            batches = _from_tar(path)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(_damaged(path, error)) from error
    except OSError as error:  # including gzip.BadGzipFile, which has no errno
        if error.errno is None:
            raise UserError(_damaged(path, error)) from error
        raise UserError(f"cannot read config.data.archive={path}: {error.strerror}") from error
    flavor = max(_SUFFIXES, key=lambda name: sum(_names(name).count(batch) for batch in batches))
    missing = [name for name in _names(flavor) if name not in batches]
    if missing:
        raise UserError(
            f"config.data.archive={path} is not the official CIFAR-10 archive: expected"
            " data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the same names without"
            f" .bin; found no {', '.join(missing)}"
        )
    parse = {"binary": _parse_binary, "python": _parse_python}[flavor]
    parsed = []
    for name in _names(flavor):
        try:
            parsed.append(parse(batches[name]))
        except _Malformed as error:
            raise UserError(f"{name} in config.data.archive={path} is damaged: {error}") from error
    *train, test = parsed
    train_images = np.concatenate([images for images, _ in train])
    train_labels = np.concatenate([labels for _, labels in train])
    return {"train": (train_images, train_labels), "test": test}


def _names(flavor: str) -> tuple[str, ...]:
    """File names of the batches; the test batch comes last."""
    return tuple(name + _SUFFIXES[flavor] for name in (*_TRAIN, _TEST))


_ALL_NAMES = frozenset(name for flavor in _SUFFIXES for name in _names(flavor))


def _batch_files(path: Path) -> list[Path]:
    """The batches in the directory `path`, or in the folder that the archive unpacks to."""
    for folder in (path, *(path / name for name in _FOLDERS)):
        files = [file for file in map(folder.joinpath, _ALL_NAMES) if file.is_file()]
        if files:
            return files
    return []


def _from_tar(path: Path) -> dict[str, bytes]:
    batches = {}
    with gzip.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if not member.isfile() or name not in _ALL_NAMES:
                continue
            if member.size > _MAX_BATCH_BYTES:
                raise tarfile.ReadError(f"{name} claims {member.size:,} bytes")
            content = tar.extractfile(member)
            assert content is not None  # `isfile` holds
            batches[name] = content.read()
        while file.read(2**20):  # gzip checks its CRC-32 at the end, which tar may not reach
            pass
    return batches


def _damaged(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    expected = OFFICIAL_MD5.get(path.name) or " or ".join(OFFICIAL_MD5.values())
    return (
        f"config.data.archive={path} is truncated or damaged ({error}): expected MD5 {expected},"
        f" found {found} ({path.stat().st_size:,} bytes); copy or download it again"
    )


class _Malformed(Exception):
    """A batch does not have the official format."""


def _parse_binary(batch: bytes) -> tuple[Images, Labels]:
    """Raises _Malformed."""
    count, rest = divmod(len(batch), 1 + _PIXELS)
    if rest:
        raise _Malformed(f"expected a multiple of {1 + _PIXELS} bytes, found {len(batch):,}")
    records = np.frombuffer(batch, np.uint8).reshape(count, 1 + _PIXELS)
    return _to_images(records[:, 1:]), records[:, 0].astype(np.int32)


def _parse_python(batch: bytes) -> tuple[Images, Labels]:
    """Raises _Malformed."""
    try:
        content = _NumpyUnpickler(io.BytesIO(batch), encoding="latin1").load()
    except _UNPICKLING_ERRORS as error:
        raise _Malformed(str(error)) from error
    if not isinstance(content, dict):
        raise _Malformed(f"expected a dict, found {type(content).__name__}")
    # A batch that was pickled again by Python 3 may have bytes keys.
    data, labels = (content.get(key, content.get(key.encode())) for key in ("data", "labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        raise _Malformed(f"expected data [N, {_PIXELS}] uint8, found {_form(data)}")
    if isinstance(labels, list) and all(isinstance(label, int | float) for label in labels):
        labels = np.array(labels)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise _Malformed(f"expected integer labels, found {_form(labels)}")
    if labels.shape != data.shape[:1]:
        raise _Malformed(f"expected {len(data)} labels, found {_form(labels)}")
    return _to_images(data), labels.astype(np.int32)


def _form(value: Any) -> str:
    return f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else repr(type(value))


def _to_images(pixels: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _NumpyUnpickler(pickle.Unpickler):
    """Loads numeric arrays only; refuses everything else, since unpickling can run code."""

    _ALLOWED = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),  # how protocol 2 writes bytes
    }

    def find_class(self, module_name: str, global_name: str) -> Any:
        # The official batches were written by numpy 1, which called numpy._core numpy.core.
        module_name = module_name.replace("numpy.core.", "numpy._core.")
        if (module_name, global_name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"refusing to load {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


# `pickle` documents these for damaged input.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
