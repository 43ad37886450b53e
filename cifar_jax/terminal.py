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
_MOST = 40  # characters of a label


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


def label(name: str) -> str:
    """A name that comes with the data, short and in one line, for people.

    In files that programs read a name stands as it is.
    """
    text = printable(name)
    text = text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
    return text if text.strip() else "(no name)"


def cell(name: str) -> str:
    """`label(name)` for a table in Markdown, where some characters mean something."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|$~" else c for c in label(name))


class Formatter(logging.Formatter):
    """Each note of the log in one line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
