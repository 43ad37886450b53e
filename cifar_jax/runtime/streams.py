"""The standard streams of `main.py`, whatever they are: closed, full, or of a narrow encoding.

A command does its work to the end though nobody may hear of it: what it made is in files. Only then
a standard output that failed decides its exit status, as with `make` and the other GNU tools. Where
the output is all there is, as of `--mode=predict`, it stops at once.
"""

import contextlib
import io
import os
import sys
from typing import Any, TextIO, cast

from cifar_jax.errors import CUT_OFF
from cifar_jax.terminal import say


class CutOff(Exception):
    """Standard output takes no more: the reader left, the disk is full, it was closed."""


class _Raw(io.FileIO):
    """A stream of the process that remembers its first fault and from then on drops all."""

    fault: OSError | None = None
    needed = False  # raise the fault at once

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
    """Makes the three streams safe to use. Call before anything is opened or printed.

    A descriptor that is closed is taken, or the next file that is opened would get it, and with it
    all that is printed. What an encoding lacks is escaped, such as \\xe9.
    """
    # A closed output fails like a full one; nothing is lost with the other two.
    for number, missing in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, missing), True)  # the lowest that is free
    sys.stdin = sys.stdin or open(0, closefd=False)
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)


def require_output() -> None:
    """From now on a fault of standard output raises `CutOff`, once."""
    _output().needed = True


def close(status: int) -> int:
    """Writes out standard output; says so where it took not all.

    Args:
      status: what the program would leave with.

    Returns:
      What it is to leave with: `CUT_OFF` in place of 0.
    """
    with contextlib.suppress(CutOff):
        sys.stdout.flush()
    fault = _output().fault
    if fault is None:
        return status
    if not (_output().needed and isinstance(fault, BrokenPipeError)):  # `head` has seen enough
        say(f"error: cannot write standard output ({fault.strerror})", sys.stderr)
    return status or CUT_OFF


def _output() -> _Raw:
    return cast(_Raw, cast(io.BufferedWriter, sys.stdout.buffer).raw)


def _text(number: int, former: TextIO | None) -> TextIO:
    """A text stream in the former's encoding; flushed by lines where that was, or nearly so."""
    raw = _Raw(number, "wb", closefd=False)
    at_once = number == 2 or raw.isatty() or os.environ.get("PYTHONUNBUFFERED")
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        former.encoding if former else "utf-8",
        errors="backslashreplace",
        line_buffering=bool(at_once),
    )
