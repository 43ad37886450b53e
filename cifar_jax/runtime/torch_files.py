"""Reads the tensors of a PyTorch file without PyTorch, and without running what the file says.

A `.pth` file of before PyTorch 1.6 is five pickles and then the raw numbers of each storage: see
`_legacy_save` in torch/serialization.py. A pickle may call any function of any module. This reader
admits the four names that a dict of tensors needs.
"""

import collections
import io
import math
import pickle
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from cifar_jax.forms import Damaged
from cifar_jax.runtime import checked

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP = b"PK\x03\x04"
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
# What pickle raises for damaged bytes, as it documents.
_NOT_PICKLE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    ImportError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


class _Storage(NamedTuple):
    """A flat run of numbers, which tensors are views of."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: epath.Path) -> dict[str, np.ndarray]:
    """Name -> array, for a file that holds a dict of float32 and int64 tensors.

    Raises:
      UserError: the file cannot be read, is damaged, or holds anything else.
    """
    with checked.reading(path, "download it again"):
        data = path.read_bytes()
        if data.startswith(_ZIP):
            raise Damaged("it is in PyTorch's newer zip format: save it as .safetensors")
        return _arrays(io.BytesIO(data))


def _arrays(file: io.BytesIO) -> dict[str, np.ndarray]:
    if (_load(file), _load(file)) != (_MAGIC, _PROTOCOL):
        raise Damaged("not a PyTorch file of tensors: it does not begin as one")
    _load(file)  # the byte order and the sizes of integers of the machine that wrote it
    tensors, order = _load(file), _load(file)
    if not isinstance(tensors, dict) or not isinstance(order, list):
        raise Damaged("it holds no dict")
    known: dict[str, _Storage] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise Damaged(f"{name!r} is not a tensor")
        if known.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise Damaged(f"the storage of {name!r} is described twice")
    content: dict[str, np.ndarray] = {}
    if sorted(map(str, order)) != sorted(known):
        raise Damaged("it lists other storages than its tensors have")
    for key in map(str, order):
        storage = known[key]
        size = int.from_bytes(_take(file, 8), "little", signed=True)
        if size != storage.size:
            raise Damaged(f"a storage holds {size} numbers, not {storage.size}")
        content[key] = np.frombuffer(_take(file, size * storage.dtype.itemsize), storage.dtype)
    return {name: _view(tensor, content[tensor.storage.key]) for name, tensor in tensors.items()}


def _take(file: io.BytesIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise Damaged(f"truncated: {len(data)} of {size} bytes are left of a storage")
    return data


def _view(tensor: _Tensor, content: np.ndarray) -> np.ndarray:
    if len(tensor.shape) != len(tensor.strides):
        raise Damaged("a tensor has other strides than axes")
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    least = min((tensor.offset, *tensor.shape, *tensor.strides))
    count = math.prod(tensor.shape)
    if least < 0 or count > len(content) or (count and tensor.offset + last >= len(content)):
        raise Damaged("a tensor reaches beyond its storage")
    strides = [content.itemsize * stride for stride in tensor.strides]
    begin = content[tensor.offset :]
    return np.lib.stride_tricks.as_strided(begin, tensor.shape, strides, writeable=False).copy()


def _load(file: io.BytesIO) -> Any:
    try:
        return _Unpickler(file).load()
    except _NOT_PICKLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Damaged(f"not a PyTorch file of tensors: {reason}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise Damaged(f"it would call {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage":
            raise Damaged("an unknown kind of storage")
        _, dtype, key, _, size, view = pid
        whole = isinstance(size, int) and size >= 0 and view is None
        if not isinstance(dtype, np.dtype) or not whole:
            raise Damaged("an unknown kind of storage")
        return _Storage(str(key), dtype, size)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    axes = isinstance(shape, tuple) and isinstance(strides, tuple)
    if not (axes and isinstance(storage, _Storage)) or not all(
        isinstance(n, int) for n in (offset, *shape, *strides)
    ):
        raise Damaged("a tensor of an unknown form")
    return _Tensor(storage, offset, shape, strides)
