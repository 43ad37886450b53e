"""The temporary directory for uploads and pictures, which is deleted however the demo ends."""

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

from cifar_jax.data import images
from cifar_jax.errors import UserError

MAX_TOTAL = 4 * images.MAX_BYTES  # of all files together; the oldest are deleted first
# Runs as a separate process. However this process ends, the keeper's standard input is closed, and
# it deletes the directory.
_KEEPER = """
import os, shutil, sys, tempfile
directory = os.path.realpath(tempfile.mkdtemp(prefix="cifar-jax-"))
os.write(1, os.fsencode(directory))
os.close(1)
sys.stdin.read()
shutil.rmtree(directory, ignore_errors=True)
"""


def _make() -> str:
    """Creates a directory that lasts as long as this process.

    Raises:
      UserError: no directory can be created.
    """
    keeper = subprocess.Popen(
        [sys.executable, "-ISc", _KEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that signals from the terminal do not reach the keeper
    )
    assert keeper.stdout
    directory = os.fsdecode(keeper.stdout.read())
    if not directory:
        raise UserError(
            "there is no place for uploads: set TMPDIR to a directory that you may write to"
        )
    atexit.register(shutil.rmtree, directory, ignore_errors=True)  # if the keeper was killed
    atexit.register(keeper.communicate)  # registered last, so runs first
    return directory


DIRECTORY = _make()
# Gradio puts each file into a directory named by the hash of its content.
_FILE = re.compile(re.escape(DIRECTORY) + r"/[0-9a-f]{64}/([^/\0]+)")


def holds(path: str) -> bool:
    """Whether `path` is a regular file in here, reached without a link. Never looks elsewhere."""
    found = _FILE.fullmatch(path)
    if not found or found[1] in (".", ".."):
        return False
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and os.path.realpath(path) == path
    except (OSError, UnicodeEncodeError):  # missing, or not a possible file name
        return False


def read(path: str) -> bytes:
    """The content of an uploaded file, up to one byte more than `images.MAX_BYTES`.

    Raises:
      UserError: there is no such file; the message is only the reason.
    """
    try:
        if holds(path):
            # The file may be replaced meanwhile, so never follow a link or wait for a pipe.
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                return file.read(images.MAX_BYTES + 1)
    except OSError:
        pass
    raise UserError("it was not uploaded or has been removed: pick it again")


def put(content: bytes) -> str:
    """Stores a PNG picture that the page shows; returns its path.

    Gradio would write a picture anew each time that it is shown, and a browser that was reading it
    got half of it. Here a file is replaced whole.
    """
    directory = os.path.join(DIRECTORY, hashlib.sha256(content).hexdigest())
    os.makedirs(directory, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=DIRECTORY, delete=False) as file:
        file.write(content)
    path = os.path.join(directory, "picture.png")
    os.replace(file.name, path)
    return path


def files() -> list[str]:
    """The paths of all files in the directory."""
    return [os.path.join(root, name) for root, _, names in os.walk(DIRECTORY) for name in names]


def make_room(kept: frozenset[str]) -> None:
    """Deletes the oldest files, except those in `kept`, until the rest fit the limit."""
    found = []
    for path in set(files()) - kept:
        with contextlib.suppress(FileNotFoundError):  # a temporary file that has its name by now
            found.append((os.stat(path), path))
    total = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda entry: entry[0].st_mtime):
        if total <= MAX_TOTAL:
            break
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        total -= status.st_size
