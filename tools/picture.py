"""Draws docs/accuracy.svg: test accuracy against minutes of training on two CPU cores."""

import io
import pathlib
import statistics
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tools import run_tables

# Each reads well on a white page and on a dark one; the background is transparent.
TEXT = "#767f89"
COLORS = {"speedrun": "#c8640f", "final_long": "#1f8f4e", "": "#3b7de0"}  # by the name's beginning
TICKS = (2, 5, 10, 20, 50, 100, 200)  # minutes
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # the browser draws the text
    "svg.hashsalt": "accuracy",  # the same ids, and so the same file, each time
    "font.family": "sans-serif",
    "font.size": 11,
}


def points(results: pathlib.Path) -> list[tuple[str, float, float, list[tuple[float, float]]]]:
    """Of each config trained on two CPU cores: name, mean minutes, mean accuracy in percent, and
    the same two of each seed."""
    found = []
    for name, runs in run_tables.configs(results):
        seeds = [
            (seconds / 60, 100 * run.result["test_accuracy"])
            for run in runs
            if run.result
            and run.hardware.startswith("2-core ")
            and (seconds := run_tables.train_seconds(run))
        ]
        if seeds:
            minutes, accuracies = zip(*seeds, strict=True)
            found.append((name, statistics.mean(minutes), statistics.mean(accuracies), seeds))
    return found


def draw(results: pathlib.Path) -> str:
    """The picture as SVG; the same evidence gives the same text."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 4.2))
        axes = figure.subplots()
        shown = points(results)
        for name, minutes, accuracy, seeds in shown:
            color = next(COLORS[start] for start in COLORS if name.startswith(start))
            axes.scatter(*zip(*seeds, strict=True), s=14, color=color, alpha=0.5, linewidth=0)
            axes.scatter([minutes], [accuracy], s=46, color=color, zorder=3)
            axes.annotate(
                f"{name}  {accuracy:.1f} %", (minutes, accuracy), color=color,
                xytext=(8, 4), textcoords="offset points",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
        longest = max(minutes for _, minutes, _, _ in shown)
        axes.set_xlim(min(minutes for _, minutes, _, _ in shown) / 1.5, 3 * longest)  # for labels
        axes.margins(y=0.1)
        axes.minorticks_off()
        axes.set_xlabel("minutes of training on two CPU cores", color=TEXT)
        axes.set_ylabel("test accuracy %", color=TEXT)
        axes.grid(color=TEXT, alpha=0.3, linewidth=0.8)
        axes.tick_params(length=0, labelcolor=TEXT)
        axes.spines[:].set_visible(False)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", bbox_inches="tight", metadata=nothing)
    return file.getvalue()
