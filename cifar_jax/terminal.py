"""What people read on a terminal: names from outside cannot steer it, nor pretend to be a line."""

import logging
import re
import sys
from typing import Any

# Control characters (escape sequences begin with one), ends of lines, what turns the direction of
# text around, and bytes that are no UTF-8.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def say(text: object, file: Any = None) -> None:
    """Prints lines, at once. A name in them that could hold a line's end goes through `printable`.

    Args:
      file: a text stream, or what stands in for one; None: standard output.
    """
    lines = map(printable, str(text).split("\n"))
    print("\n".join(lines), file=file or sys.stdout, flush=True)


def printable(text: object) -> str:
    r"""`text` in one line, unsafe characters as Python writes them: "\x1b", "\n", "\u202e"."""
    return _UNSAFE.sub(_escaped, str(text))


class Formatter(logging.Formatter):
    """Each note of the log in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
