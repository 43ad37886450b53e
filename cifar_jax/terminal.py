"""Safe output to a terminal: escape sequences and line breaks in names are shown, not executed."""

import logging
import re
import sys
from typing import Any

# Control characters (escape sequences start with one), line separators, characters that change the
# direction of text, and lone surrogates, which stand for bytes that are not UTF-8.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MAX_LABEL = 40  # characters


def say(text: object, file: Any = None) -> None:
    """Prints `text` line by line and flushes.

    Line breaks in `text` are kept: pass names that may contain some through `printable` first.

    Args:
      file: a text stream, or a stand-in for one; None means standard output.
    """
    lines = map(printable, str(text).split("\n"))
    print("\n".join(lines), file=file or sys.stdout, flush=True)


def printable(text: object) -> str:
    r"""`text` on one line, with unsafe characters escaped as in Python: "\x1b", "\n", "\u202e"."""
    return _UNSAFE.sub(_escaped, str(text))


def label(name: str) -> str:
    """A name from a data set, on one line and shortened, for display to people.

    Files that programs read must contain the name unchanged.
    """
    text = printable(name)
    text = text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…"
    return text if text.strip() else "(no name)"


def cell(name: str) -> str:
    """`label(name)` for a Markdown table, with Markdown's special characters escaped."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|$~" else c for c in label(name))


class Formatter(logging.Formatter):
    """Formats each log record as one safe line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def percent(probability: float) -> str:
    """ "46 %", without a precision that nobody has: "> 99 %", "< 1 %"."""
    text = f"{100 * probability:.0f} %"
    if text == "100 %" and probability < 1:
        text = "> 99 %"
    elif text == "0 %" and probability > 0:
        text = "< 1 %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")
