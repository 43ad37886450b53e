"""Turns matplotlib figures into inline SVG with the colors and fonts of the page."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Placeholder colors for matplotlib; `draw` replaces them with the page's CSS variables.
TEXT, _GRID = "#010101", "#020202"
SERIES = tuple(f"#0301{i:02}" for i in range(7))
_VARIABLES = {TEXT: "currentColor", _GRID: "var(--line)"} | {
    color: f"var(--series-{i})" for i, color in enumerate(SERIES)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may contain dollar signs
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlesize": 11,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": _GRID,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def logarithmic(axis: Axis, label: Callable[[float], str] = "{:g}".format) -> None:
    """Gives the ticks of an axis with a log scale plain labels, not formulas, which stay text."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_minor_formatter(NullFormatter())


def draw(figure: Figure, description: str) -> Markup:
    """Renders a figure without a fixed size; `description` becomes its text alternative."""
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    # The salt makes element ids reproducible and different in each figure.
    with matplotlib.rc_context({"svg.hashsalt": description}), _any_glyph():
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<[^>]*>", _styled, text)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    assert box
    title = escape(description)
    return Markup(f'<svg role="img" aria-label="{title}" {box[0]}><title>{title}</title>{body}')


def png(figure: Figure) -> bytes:
    """Renders a figure as pixels, on white."""
    buffer = io.BytesIO()
    with _any_glyph():
        figure.savefig(buffer, format="png", bbox_inches="tight", dpi=100)
    return buffer.getvalue()


@contextlib.contextmanager
def _any_glyph() -> Iterator[None]:
    """Without warnings of glyphs that matplotlib lacks: browsers draw them, pixels show boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _styled(tag: re.Match) -> str:
    """Puts the page's colors into one SVG tag. Text between tags may look alike, and stays."""
    text = re.sub(r' id="[^"]*_\d+"', "", tag[0])  # ids of groups, which nothing refers to
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text
