"""What matplotlib draws, as inline SVG in the colours and fonts of the page."""

import io
import re
import warnings
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# What matplotlib draws in these colours the page draws in its own.
TEXT, _GRID = "#010101", "#020202"
SERIES = tuple(f"#0301{i:02}" for i in range(7))
_VARIABLES = {TEXT: "currentColor", _GRID: "var(--line)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may have a dollar sign
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


def draw(figure: Figure, description: str) -> Markup:
    """The figure for a page: no size of its own, the description as its text alternative."""
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    buffer = io.StringIO()
    # Ids come of a hash with this salt: the same page again, and no two figures with one id.
    with matplotlib.rc_context({"svg.hashsalt": description}), warnings.catch_warnings():
        # The browser draws the text: it matters little which glyphs matplotlib has not.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<[^>]*>", _styled, text)
    head, _, body = text.partition(">")
    box = re.search(r'viewBox="[^"]+"', head)
    assert box
    title = escape(description)
    return Markup(f'<svg role="img" aria-label="{title}" {box[0]}><title>{title}</title>{body}')


def _styled(tag: re.Match) -> str:
    """An SVG tag with the page's colours; never the text between tags, which may look like one."""
    text = re.sub(r' id="[^"]*_\d+"', "", tag[0])  # names of groups: nothing refers to them
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text
