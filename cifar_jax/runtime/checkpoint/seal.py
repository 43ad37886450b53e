"""Seals checkpoints: a file with the CRC-32 of all files, written after a checkpoint is read back.

A checkpoint that does not match its seal is damaged, even if orbax could load it. A checkpoint
without a seal comes from an older version, or its process was killed before reading it back.
"""

import json
import zlib
from collections.abc import Iterator

from etils import epath

from cifar_jax.runtime import workdir as files

_NAME = "crc32.txt"  # first line: CRC-32 of the rest; the rest: a JSON object, path -> CRC-32


def write(directory: epath.Path) -> None:
    """Seals a checkpoint, and makes sure that it would survive a power cut."""
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
    """How a checkpoint differs from its seal; None if it does not, or has no seal."""
    try:
        for name, crc in _sums(directory).items():
            if zlib.crc32((directory / name).read_bytes()) != crc:
                return f"{name} is not what was written"
    except OSError as error:  # a missing file, a bad sector, or no permission
        return f"{error.filename}: {error.strerror}"
    return None


def _sums(directory: epath.Path) -> dict[str, int]:
    """Path -> CRC-32 from the seal; {} if the seal is missing or itself damaged."""
    path = directory / _NAME
    expected, _, listing = path.read_bytes().partition(b"\n") if path.exists() else (b"",) * 3
    return json.loads(listing) if expected == b"%08x" % zlib.crc32(listing) else {}


def _files(directory: epath.Path) -> Iterator[epath.Path]:
    for folder, _, names in directory.walk():
        yield from (folder / name for name in names if name != _NAME)
