"""The directory of what is uploaded and shown: what lies in it, and that nothing of it is left."""

import atexit
import os
import re
import shutil
import stat
import subprocess
import sys

from cifar_jax.data import images
from cifar_jax.errors import UserError

_MOST = 4 * images.MAX_BYTES  # of all files together; the oldest make room
# A process of its own, which sees this one end in whatever way: its standard input ends with it.
_KEEPER = """
import os, shutil, sys, tempfile
directory = os.path.realpath(tempfile.mkdtemp(prefix="cifar-jax-"))
os.write(1, os.fsencode(directory))
os.close(1)
sys.stdin.read()
shutil.rmtree(directory, ignore_errors=True)
"""


def _make() -> str:
    """A directory that lasts as long as this process."""
    keeper = subprocess.Popen(
        [sys.executable, "-ISc", _KEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's signals and its end are for this process
    )
    assert keeper.stdout
    directory = os.fsdecode(keeper.stdout.read())
    if not directory:
        raise UserError("uploads need a directory: set TMPDIR to one that can be written to")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)  # if the keeper was killed
    atexit.register(keeper.communicate)  # the last is the first
    return directory


DIRECTORY = _make()
# Where Gradio puts a file: in a directory that is named by a hash of its content.
_FILE = re.compile(re.escape(DIRECTORY) + r"/[0-9a-f]{64}/([^/\0]+)")


def holds(path: str) -> bool:
    """Whether the path names a file in here, and by no link; of other files nothing is asked."""
    found = _FILE.fullmatch(path)
    if not found or found[1] in (".", ".."):
        return False
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and os.path.realpath(path) == path
    except (OSError, UnicodeEncodeError):  # not there, or no file could have such a name
        return False


def read(path: str) -> bytes:
    """The content of a file in here.

    Raises:
      UserError: there is none; the message is the reason alone.
    """
    try:
        if holds(path):
            # Should it be replaced just now: neither follows a link nor waits for a pipe.
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                return file.read(images.MAX_BYTES + 1)
    except OSError:
        pass
    raise UserError("it has not been uploaded, or was removed since: pick it again")


def files() -> list[str]:
    return [os.path.join(place, name) for place, _, names in os.walk(DIRECTORY) for name in names]


def make_room(kept: frozenset[str]) -> None:
    """Deletes the oldest files but `kept` until the others are no more than allowed."""
    found = [(os.stat(path), path) for path in files() if path not in kept]
    total = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda entry: entry[0].st_mtime):
        if total <= _MOST:
            break
        os.unlink(path)
        total -= status.st_size
