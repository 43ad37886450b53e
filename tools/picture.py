"""Draws the pictures of docs/: learning curves, and test accuracy against time and images."""

import io
import itertools
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from cifar_jax.pages import reference
from tools import run_tables, studies

# Each reads well on a white page and on a dark one; the background is transparent.
TEXT = "#767f89"
COLORS = {"speedrun": "#c8640f", "final_long": "#1f8f4e", "": "#3b7de0"}  # by the name's beginning
LINES = ("#1f8f4e", "#3b7de0", "#c8640f")
NUMBERS = (100, 1000, 10_000, 42_500)  # of images
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
        axes = _axes("minutes of training on two CPU cores", TICKS)
        shown = points(results)
        for name, minutes, accuracy, seeds in shown:
            color = _color(name)
            axes.scatter(*zip(*seeds, strict=True), s=14, color=color, alpha=0.5, linewidth=0)
            axes.scatter([minutes], [accuracy], s=46, color=color, zorder=3)
        longest = max(minutes for _, minutes, _, _ in shown)
        axes.set_xlim(min(minutes for _, minutes, _, _ in shown) / 1.5, 3 * longest)  # for labels
        axes.margins(y=0.1)
        taken: list[Bbox] = []
        for name, minutes, accuracy, _ in sorted(shown, key=lambda point: point[1]):
            text = f"{name}  {accuracy:.1f} %"
            taken.append(_label(axes, text, (minutes, accuracy), _color(name), taken))
        return _svg(axes)


def _color(name: str) -> str:
    return next(COLORS[start] for start in COLORS if name.startswith(start))


def _label(
    axes: Axes, text: str, point: tuple[float, float], color: str, taken: Sequence[Bbox]
) -> Bbox:
    """Writes a label above or below the right of a point, away from other labels if it can; returns
    its place."""
    label = axes.annotate(text, point, color=color, xytext=(8, 4), textcoords="offset points")
    for below in (4, -14, 16, -26):  # points
        label.set_position((8, below))
        if not any(label.get_window_extent().overlaps(other) for other in taken):
            break
    return label.get_window_extent()


def draw_resolution(results: pathlib.Path) -> str:
    """Test accuracy against minutes on two CPU cores, a line for each config; the resolutions stand
    beside its points."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes("minutes of the whole command on two CPU cores", TICKS)
        for color, found in _lines(axes, results, "resolution", lambda point: point.minutes):
            for point in found:
                axes.annotate(
                    f"{point.value} px", (point.minutes, point.accuracy), color=color,
                    xytext=(6, -12), textcoords="offset points",
                )  # fmt: skip
        return _svg(axes)


def draw_fewer_images(results: pathlib.Path) -> str:
    """Test accuracy against the number of training images, a line for each config."""
    with matplotlib.rc_context(_STYLE):
        axes = _axes("training images", NUMBERS)
        _lines(axes, results, "fewer_images", lambda point: point.value)
        return _svg(axes)


def draw_curves(results: pathlib.Path) -> str:
    """Accuracy by epoch of the report's models, a panel each and a line for each seed; the test
    accuracy of the report is dashed."""
    with matplotlib.rc_context(_STYLE):
        runs = dict(run_tables.configs(results))
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        panels = figure.subplots(1, len(reference.REPORTED), sharey=True)
        for axes, (name, reported) in zip(panels, reference.REPORTED.items(), strict=True):
            for color, key in zip(
                LINES[1:], ("validation_accuracy", "train_accuracy"), strict=True
            ):
                for run in runs.get(name, []):
                    accuracy = [100 * row[key] for row in run.rows]
                    axes.plot(range(1, len(accuracy) + 1), accuracy, color=color, linewidth=1.2)
            axes.axhline(100 * reported.accuracy, color=TEXT, linestyle="--", linewidth=1)
            axes.set_title(name, color=TEXT, fontsize=11)
            axes.set_xlabel("epoch", color=TEXT)
            axes.set_ylim(20, 100)  # a first epoch of batch norm may be below
            _plain(axes)
        panels[0].set_ylabel("accuracy %", color=TEXT)
        for y, color, text in ((0.14, LINES[2], "training"), (0.04, LINES[1], "validation")):
            panels[0].text(0.95, y, text, color=color, transform=panels[0].transAxes, ha="right")
        return _text(figure)


def _lines(
    axes: Axes, results: pathlib.Path, study: str, x: Callable[[studies.Point], float | None]
) -> list[tuple[str, list[studies.Point]]]:
    """Draws a line for each config of a study; returns its color and the points that have an x."""
    drawn = []
    for color, (name, points) in zip(
        itertools.cycle(LINES), studies.lines(results, study).items(), strict=False
    ):
        found = [(value, point) for point in points if (value := x(point)) is not None]
        accuracies = [point.accuracy for _, point in found]
        axes.plot([value for value, _ in found], accuracies, "o-", color=color, label=name)
        drawn.append((color, [point for _, point in found]))
    return drawn


def _axes(x_label: str, ticks: Sequence[int]) -> Axes:
    """Empty axes of test accuracy against a quantity on a logarithmic scale."""
    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(x_label, color=TEXT)
    axes.set_ylabel("test accuracy %", color=TEXT)
    _plain(axes)
    return axes


def _plain(axes: Axes) -> None:
    axes.grid(color=TEXT, alpha=0.3, linewidth=0.8)
    axes.tick_params(length=0, labelcolor=TEXT)
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)


def _svg(axes: Axes) -> str:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor="linecolor")
    assert isinstance(axes.figure, Figure)
    return _text(axes.figure)


def _text(figure: Figure) -> str:
    file = io.StringIO()
    figure.patch.set_visible(False)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", bbox_inches="tight", metadata=nothing)
    return file.getvalue()
