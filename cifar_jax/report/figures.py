"""The figures of a page, as inline SVG."""

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cifar_jax import terminal
from cifar_jax.evaluation import suites
from cifar_jax.metrics import CalibrationBins
from cifar_jax.pages import svg
from cifar_jax.report.evidence import Run

_DASHES = ("-", "--", "-.", ":")
_SHADE = (0, 114 / 255, 178 / 255)  # confusion matrix; opacity shows the value in both themes
_MANY_CLASSES = 20


def _axes(width: float, height: float, *grid: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*grid)


def _epochs(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y", linewidth=0.6)


@matplotlib.rc_context(svg.STYLE)
def curves(run: Run, quantity: str, label: str, legend: bool = True) -> Markup:
    """Training and validation by epoch; marks the best epoch, rate drops and an early stop.

    Args:
      quantity: a key of `metrics.jsonl` without its "train_" or "validation_".
      label: of the y axis.
      legend: the figures of a run share one.
    """
    figure, axes = _axes(5, 3.3)
    epochs = [row["epoch"] for row in run.rows]
    splits = ("train", "validation") if run.validates else ("train",)
    for i, split in enumerate(splits):
        values = [row[f"{split}_{quantity}"] for row in run.rows]
        name = "training" if split == "train" else split
        axes.plot(epochs, values, _DASHES[1 - i], marker=".", color=svg.SERIES[i], label=name)
    for i, epoch in enumerate(run.rate_drops):
        name = "learning rate drops" if i == 0 else None
        axes.axvline(epoch - 0.5, color=svg.TEXT, linewidth=0.8, linestyle=":", label=name)
    best, last = run.best_row, run.rows[-1]
    description = f"{label} by epoch: after epoch {last['epoch']}" + ",".join(
        f" {split} {last[f'{split}_{quantity}']:.3f}" for split in splits
    )
    if run.validates:
        height = best[f"validation_{quantity}"]
        name = f"best epoch, {best['epoch']}"
        axes.plot([best["epoch"]], [height], "o", ms=9, mfc="none", color=svg.SERIES[1], label=name)
        description += f"; at best, epoch {best['epoch']}, validation {height:.3f}"
    if run.result and run.result["stopped_early"]:
        name = f"early stop, {epochs[-1]}"
        axes.axvline(epochs[-1], color=svg.SERIES[2], linewidth=1.2, label=name)
    _epochs(axes, label)
    if legend:
        axes.legend(fontsize=9)
    return svg.draw(figure, description)


@matplotlib.rc_context(svg.STYLE)
def learning_rate(run: Run) -> Markup:
    """Learning rate by epoch, on a log scale unless it reaches 0."""
    figure, axes = _axes(5, 3.3)
    rates = [row["learning_rate"] for row in run.rows]
    axes.step([row["epoch"] for row in run.rows], rates, ".-", where="mid", color=svg.SERIES[0])
    if min(rates) > 0:
        axes.set_yscale("log")
        svg.logarithmic(axes.yaxis)
    _epochs(axes, "learning rate")
    return svg.draw(figure, f"Learning rate by epoch, from {rates[0]:.2g} to {rates[-1]:.2g}")


@matplotlib.rc_context(svg.STYLE)
def overlay(runs: Sequence[Run], quantity: str, label: str) -> Markup:
    """Validation curves of several runs, each with its own color and dash; training is fainter."""
    figure, axes = _axes(6.4, 4)
    styles = zip(itertools.cycle(svg.SERIES), itertools.cycle(_DASHES), strict=False)
    for run, (color, dash) in zip(runs, styles, strict=False):
        epochs = [row["epoch"] for row in run.rows]
        for split, alpha in (("train", 0.35), ("validation", 1.0)):
            if split == "validation" and not run.validates:
                continue
            values = [row[f"{split}_{quantity}"] for row in run.rows]
            # matplotlib leaves labels that start with an underscore out of the legend, so start
            # with an invisible character.
            visible = f"\N{WORD JOINER}{terminal.label(run.name)}"
            name = visible if split == "validation" or not run.validates else None
            axes.plot(epochs, values, dash, color=color, alpha=alpha, label=name)
    _epochs(axes, label)
    axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    names = ", ".join(terminal.label(run.name) for run in runs)
    return svg.draw(figure, f"{label} by epoch, for {names}: validation, with training fainter")


@matplotlib.rc_context(svg.STYLE)
def class_distribution(counts: dict[str, dict[str, int]]) -> Markup:
    """Number of images of each class; `counts` maps split -> class -> number of images."""
    names = [terminal.label(name) for name in next(iter(counts.values()))]
    counts = {split: row for split, row in counts.items() if any(row.values())} or counts
    many = len(names) > _MANY_CLASSES
    figure, grid = _axes(6.4, 0.12 * len(names) + 1 if many else 3, 1, len(counts))
    for i, (axes, (split, row)) in enumerate(zip(np.ravel(grid), counts.items(), strict=True)):
        axes.barh(range(len(names)), list(row.values()), color=svg.SERIES[i])
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_title(f"{split}, {sum(row.values()):,}")
        axes.tick_params(axis="y", labelsize=6 if many else 9, labelleft=i == 0)
        axes.xaxis.set_major_locator(MaxNLocator(2))
    sizes = (
        f"{split} from {min(row.values()):,} to {max(row.values()):,}"
        for split, row in counts.items()
    )
    return svg.draw(figure, f"Images per class: {', '.join(sizes)}")


@matplotlib.rc_context(svg.STYLE)
def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Confusion matrix `[K, K]`, rows: true class. Shading shows the share of the row."""
    correct, count = np.trace(matrix), np.sum(matrix)
    return svg.draw(
        _confusion(matrix, names),
        f"Confusion matrix: {correct:,} of {count:,} images on the diagonal; the table below lists "
        "the most frequent confusions",
    )


@matplotlib.rc_context(svg.STYLE)
def confusion_png(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """The same as a PNG."""
    return svg.png(_confusion(matrix, names))


def _confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    values = np.asarray(matrix)
    share = values / np.maximum(values.sum(1, keepdims=True), 1)
    names = [terminal.label(name) for name in names]
    many = len(names) > _MANY_CLASSES
    figure, axes = _axes(6, 5.6)
    shade = np.broadcast_to(_SHADE, (*share.shape, 3))
    axes.imshow(np.dstack([shade, 0.6 * share**0.5]), interpolation="none")
    size = 4 if many else 9
    axes.set_xticks(range(len(names)), names, rotation=90 if many else 45, fontsize=size)
    if not many:
        for tick in axes.get_xticklabels():
            tick.set_horizontalalignment("right")
            tick.set_rotation_mode("anchor")
        for (row, column), value in np.ndenumerate(values):
            if value:
                axes.text(column, row, str(value), ha="center", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


@matplotlib.rc_context(svg.STYLE)
def reliability(bins: CalibrationBins) -> Markup:
    """Reliability diagram: accuracy by confidence, above the share of images in each bin."""
    count = len(bins.number)
    edges = np.arange(count) / count
    filled = bins.number > 0
    figure, (upper, lower) = _axes(5, 4.2, 2, 1)
    upper.bar(
        edges[filled],
        bins.accuracy[filled],
        1 / count,
        align="edge",
        color=svg.SERIES[0],
        edgecolor=svg.TEXT,
        linewidth=0.4,
        label="accuracy",
    )
    upper.plot(
        bins.confidence[filled],
        bins.confidence[filled],
        "o-",
        ms=4,
        color=svg.SERIES[1],
        label="confidence: perfectly calibrated",
    )
    upper.set_ylabel("accuracy")
    upper.legend(fontsize=9, loc="upper left")
    lower.bar(edges, bins.number / bins.number.sum(), 1 / count, align="edge", color=svg.SERIES[2])
    lower.set_ylabel("share of images")
    lower.set_xlabel("confidence")
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
    return svg.draw(
        figure,
        "Reliability diagram: accuracy by confidence; expected calibration error "
        f"{bins.expected_error:.4f}",
    )


@matplotlib.rc_context(svg.STYLE)
def robustness(entry: dict[str, Any]) -> Markup:
    """Accuracy on each row of a suite's entry in `robustness.json`, one marker per column."""
    rows = {suites.label(name): row for name, row in entry["accuracy"].items()}
    figure, axes = _axes(5, 1.4 + 0.25 * len(rows))
    columns = list(next(iter(rows.values())))
    for i, column in enumerate(columns):  # from faint to full: they are in order
        values = [100 * row[column] for row in rows.values()]
        alpha = (i + 2) / (len(columns) + 1)
        style: dict[str, Any] = {"ms": 6, "alpha": alpha, "label": column, "clip_on": False}
        axes.plot(values, list(rows), "o", color=svg.SERIES[0], markeredgewidth=0, **style)
    clean = 100 * entry["clean_accuracy"]
    axes.axvline(clean, color=svg.TEXT, linewidth=1, linestyle="--", label="clean")
    axes.invert_yaxis()
    axes.margins(y=0.5 / len(rows))
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"accuracy in %, by {entry['columns']}")
    axes.grid(linewidth=0.6)
    figure.legend(fontsize=9, loc="outside lower center", ncols=6, handletextpad=0.1)
    lowest, name = min((100 * min(row.values()), name) for name, row in rows.items())
    return svg.draw(
        figure,
        f"{entry['title']}: accuracy by {', '.join(rows)}; clean {clean:.1f} %, lowest "
        f"{lowest:.1f} % on {name}; all figures are in the table",
    )
