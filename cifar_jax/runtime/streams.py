"""Makes the standard streams of `main.py` safe if they are closed, full, or lack an encoding.

If standard output fails, a command still finishes its work, because the results are in files. The
failure then decides the exit status, as in `make` and the other GNU tools. A command whose only
result is its output, such as `--mode=predict`, stops at once.
"""

import contextlib
import io
import os
import sys
from typing import Any, TextIO, cast

from cifar_jax.errors import CUT_OFF
from cifar_jax.terminal import say


class CutOff(Exception):
    """Standard output failed: the reader closed the pipe, the disk is full, or it was closed."""


class _Raw(io.FileIO):
    """An output stream that remembers its first error and discards everything after it."""

    fault: OSError | None = None
    needed = False  # whether to raise CutOff at the error

    def write(self, data: Any) -> int | None:  # bytes-like; Python 3.12 has Buffer for it
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
                if self.needed:
                    raise CutOff from error
        return len(data)


def prepare() -> None:
    """Makes the three standard streams safe to use. Call before anything is opened or printed.

    Closed descriptors are opened, since the next file to be opened would get their number and with
    it everything that is printed. Characters that the encoding lacks are escaped, such as \\xe9.
    """
    # Standard output is opened for reading, so that writing fails as if it were full. Input and
    # errors go to /dev/null without harm.
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # gets the lowest free number
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def require_output() -> None:
    """From now on, the first error of standard output raises `CutOff`."""
    _output().needed = True


def close(status: int) -> int:
    """Flushes standard output, and prints an error if some of it could not be written.

    Args:
      status: the exit status so far.

    Returns:
      The exit status to use: `status`, or `errors.CUT_OFF` instead of 0 if some output is lost.
    """
    with contextlib.suppress(CutOff):
        sys.stdout.flush()
    fault = _output().fault
    if fault is None:
        return status
    # A reader that closed the pipe, such as `head`, has all that it wants.
    if not (_output().needed and isinstance(fault, BrokenPipeError)):
        say(f"error: cannot write standard output ({fault.strerror})", sys.stderr)
    return status or CUT_OFF


def _output() -> _Raw:
    return cast(_Raw, cast(io.BufferedWriter, sys.stdout.buffer).raw)


def _text(number: int, original: TextIO | None) -> TextIO:
    """Replaces a text stream; keeps its encoding, and flushes each line on a terminal or stderr."""
    raw = _Raw(number, "wb", closefd=False)
    by_line = number == 2 or raw.isatty() or os.environ.get("PYTHONUNBUFFERED")
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        original.encoding if original else "utf-8",
        errors="backslashreplace",
        line_buffering=bool(by_line),
    )
