"""The seal of a checkpoint: the CRC-32 of each of its files, written once it has been read back.

A checkpoint that differs from its seal is damaged, whatever a library would make of it. One without
a seal is from before there were any, or its process was killed before it had read it back.
"""

import json
import zlib
from collections.abc import Iterator

from etils import epath

from cifar_jax.runtime import workdir as files

_NAME = "crc32.txt"  # the CRC-32 of the rest, and a JSON object: path -> CRC-32


def write(directory: epath.Path) -> None:
    """Seals a checkpoint, which is then on the disk whatever happens to the power."""
    sums = {}
    for path in _files(directory):
        sums[str(path.relative_to(directory))] = zlib.crc32(path.read_bytes())
        files.sync(path)
    for folder, _, _ in directory.walk(top_down=False):
        files.sync(folder)
    listing = json.dumps(sums).encode()
    files.write_bytes(directory / _NAME, b"%08x\n" % zlib.crc32(listing) + listing)
    files.sync(directory.parent)


def broken(directory: epath.Path) -> str | None:
    """What is wrong with a checkpoint, by its seal; None: nothing, or it has none."""
    try:
        for name, crc in _sums(directory).items():
            if zlib.crc32((directory / name).read_bytes()) != crc:
                return f"{name} is not what was written"
    except OSError as error:  # missing, of a bad sector, or without permission
        return f"{error.filename}: {error.strerror}"
    return None


def _sums(directory: epath.Path) -> dict[str, int]:
    """Path -> CRC-32, by the seal; {} where it is not there, or is itself what is damaged."""
    path = directory / _NAME
    expected, _, listing = path.read_bytes().partition(b"\n") if path.exists() else (b"",) * 3
    return json.loads(listing) if expected == b"%08x" % zlib.crc32(listing) else {}


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    for folder, _, names in directory.walk():
        yield from (folder / name for name in names if name != _NAME)
