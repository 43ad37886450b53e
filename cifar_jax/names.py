"""A name that comes with the data, as a part of a line for people."""

from cifar_jax.terminal import printable

_MOST = 40  # characters


def label(name: str) -> str:
    """`name` for a place that wants something short: in one line, and cut where it is long.

    In files that programs read a name stands as it is.
    """
    text = printable(name)
    text = text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
    return text if text.strip() else "(no name)"


def cell(name: str) -> str:
    """`label(name)` for a table in Markdown, where some characters mean something."""
    return "".join(f"\\{c}" if c in r"\`*_[]<>|$~" else c for c in label(name))
