"""The answer of a network to a picture, as HTML."""

import html
from collections.abc import Mapping

from cifar_jax.terminal import percent

_BARS = 10
_DOUBT = 0.5  # a probability below this is no clear answer

CSS = """
.answer h3 { margin: 0; font-size: 1.5rem }
.answer .origin { margin: 0; opacity: .75 }
.answer .wrong, p[role=alert]:not(:empty) { border-left: 4px solid #c62828; padding: 4px 8px;
  background: rgb(198 40 40 / 12%) }
.answer .right { border-left: 4px solid #2e7d32; padding: 4px 8px;
  background: rgb(46 125 50 / 12%) }
.answer ol { list-style: none; margin: 8px 0; padding: 0; display: grid; gap: 4px 8px;
  grid-template-columns: max-content 1fr max-content }
.answer li { display: contents }
.answer meter { width: 100%; height: 20px }
.answer meter::-webkit-meter-bar { height: 18px; border: 0; border-radius: 3px;
  background: rgb(128 128 128 / 20%) }
.answer meter::-webkit-meter-optimum-value { border-radius: 3px; background: #3b7de0 }
.answer meter::-moz-meter-bar { background: #3b7de0 }
"""


def shown(probabilities: Mapping[str, float], origin: str, truth: str | None = None) -> str:
    """The most probable class, in large; whether that is right; and bars of the first ten classes.

    Args:
      probabilities: of all classes, by name.
      origin: which network answers.
      truth: the true class, if it is known.
    """
    order = sorted(probabilities, key=lambda name: -probabilities[name])
    best = order[0]
    hedge = "perhaps " if probabilities[best] < _DOUBT else ""
    lines = [
        f'<div class="answer" data-class="{html.escape(best)}">',
        f"<h3>{hedge}{html.escape(best)}, {html.escape(percent(probabilities[best]))}</h3>",
        f'<p class="origin">{html.escape(origin)}</p>',
    ]
    if truth is not None:
        kind, mark = ("right", "✓ Right") if truth == best else ("wrong", "✗ Wrong")
        said = f"{mark}: the test set says {html.escape(truth)}."
        lines.append(f'<p class="{kind}" role="status">{said}</p>')
    lines.append("<ol>")
    for name in order[:_BARS]:
        value, label = probabilities[name], html.escape(name)
        lines.append(
            f'<li><span>{label}</span><meter value="{value:.4f}" aria-label="{label}"></meter>'
            f"<span>{html.escape(percent(value))}</span></li>"
        )
    return "\n".join([*lines, "</ol>", "</div>"])
