"""The figures of a search's page, as inline SVG."""

import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import optuna
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from cifar_jax.pages import reference, svg
from cifar_jax.search import results

_FAINT = 0.35  # opacity of what stands back
_AXES = 8  # parameters in one figure of parallel coordinates
_UNITS = ((2.0, "hours", 3600), (2.0, "minutes", 60), (0.0, "seconds", 1))  # from so many on


def _axes(width: float = 5, height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _percent(trial: FrozenTrial) -> float:
    return 100 * trial.user_attrs["accuracy"]


@matplotlib.rc_context(svg.STYLE)
def progress(trials: Sequence[FrozenTrial]) -> Markup:
    """Each trial's accuracy when it ended, and the best until then, against time."""
    figure, axes = _axes()
    began = min(t.datetime_start for t in trials if t.datetime_start)
    ended = [(t.datetime_complete, _percent(t)) for t in trials if t.datetime_complete]
    ended.sort()
    seconds = [(end - began).total_seconds() for end, _ in ended]
    unit, size = next((unit, size) for least, unit, size in _UNITS if seconds[-1] >= least * size)
    times = [second / size for second in seconds]
    values = [value for _, value in ended]
    axes.plot(times, values, ".", color=svg.SERIES[0], label="a trial")
    best = np.maximum.accumulate(values)
    axes.step(times, best, where="post", color=svg.SERIES[1], label="the best")
    axes.set_xlim(0)
    axes.set_xlabel(f"{unit} since the first trial began")
    axes.set_ylabel("validation accuracy %")
    axes.grid(axis="y", linewidth=0.6)
    axes.legend()
    return svg.draw(figure, f"Best validation accuracy, {best[-1]:.2f} %, against time")


@matplotlib.rc_context(svg.STYLE)
def front(trials: Sequence[FrozenTrial], cost: str, marks: bool) -> Markup:
    """Accuracy against a cost, with the trials that no other beats in both.

    Args:
      marks: also shows the report's models and our fast recipes, by their test accuracy.
    """
    figure, axes = _axes()
    title = cost.replace("_", "-")
    axes.plot([t.user_attrs[cost] for t in trials], [_percent(t) for t in trials], ".",
              color=svg.SERIES[0], alpha=_FAINT, label="a trial")  # fmt: skip
    best = results.front(trials, cost)
    axes.step([t.user_attrs[cost] for t in best], [_percent(t) for t in best], where="post",
              marker="o", color=svg.SERIES[1], label="no other is cheaper and better")  # fmt: skip
    if marks and cost == "multiply_adds":
        reported = {k: (v.accuracy, v.multiply_adds) for k, v in reference.REPORTED.items()}
        for i, (label, known) in enumerate(
            {"the report's models, test": reported, "speedruns, test": reference.SPEEDRUNS}.items()
        ):
            costs = [multiply_adds for _, multiply_adds in known.values()]
            shares = [100 * accuracy for accuracy, _ in known.values()]
            axes.plot(costs, shares, "x", color=svg.SERIES[2 + i], label=label)
            for name, x, y in zip(known, costs, shares, strict=True):
                axes.annotate(name, (x, y), xytext=(4, -10), textcoords="offset points",
                              color=svg.SERIES[2 + i], fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    svg.logarithmic(axes.xaxis, EngFormatter())
    axes.set_xlabel(title)
    axes.set_ylabel("accuracy %" if marks else "validation accuracy %")
    axes.grid(linewidth=0.6)
    axes.legend(fontsize=8)
    return svg.draw(figure, f"Validation accuracy against {title}, {len(best)} trials on the front")


@matplotlib.rc_context(svg.STYLE)
def curves(trials: Sequence[FrozenTrial], rows: dict[int, list[dict[str, Any]]]) -> Markup:
    """Validation accuracy by epoch, of all trials; the best one stands out.

    Args:
      rows: of each trial, by number, the rows of its `metrics.jsonl`.
    """
    figure, axes = _axes()
    leader = results.best(trials)
    for trial in trials:
        known = rows.get(trial.number, [])
        is_best = leader is not None and trial.number == leader.number
        axes.plot(
            [row["epoch"] for row in known],
            [100 * row["validation_accuracy"] for row in known],
            color=svg.SERIES[1 if is_best else 0],
            alpha=1 if is_best else _FAINT,
            linewidth=2 if is_best else 0.8,
            zorder=3 if is_best else 2,
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("validation accuracy %")
    axes.grid(axis="y", linewidth=0.6)
    return svg.draw(figure, f"Validation accuracy by epoch, of {len(trials)} trials")


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of each parameter in what makes trials differ; {} if they are too few to tell."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {t.user_attrs.get("accuracy") for t in ended}
    if len(ended) < 4 or len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that only some trials have
        return optuna.importance.get_param_importances(
            study, target=lambda trial: trial.user_attrs.get("accuracy", 0.0)
        )


@matplotlib.rc_context(svg.STYLE)
def bars(shares: dict[str, float]) -> Markup:
    """The importances as bars."""
    figure, axes = _axes(5, 0.8 + 0.28 * len(shares))
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], color=svg.SERIES[0])
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("share of the variance in accuracy")
    return svg.draw(figure, f"Importance of {len(shares)} parameters, most for {names[-1]}")


@matplotlib.rc_context(svg.STYLE)
def coordinates(trials: Sequence[FrozenTrial], names: Sequence[str]) -> Markup:
    """Parallel coordinates: a line for each trial; the better its accuracy, the stronger."""
    figure, axes = _axes(10, 3.6)
    names = [*names[:_AXES], "accuracy"]
    found = [[_of(trial, name) for trial in trials] for name in names]
    columns = list(map(_scaled, found))
    for i, (values, places) in enumerate(zip(found, columns, strict=True)):
        known = sorted(
            (p, v) for p, v in zip(places, map(_short, values), strict=True) if p is not None
        )
        for place, text in dict([known[0], known[-1]]).items():  # the ends of the axis
            axes.annotate(text, (i, place), xytext=(0, 10 if place else -10), fontsize=7,
                          textcoords="offset points", ha="center", va="center")  # fmt: skip
    ranks = np.argsort(np.argsort([_percent(t) for t in trials])) / max(1, len(trials) - 1)
    for row, rank in zip(zip(*columns, strict=True), ranks, strict=True):
        present = [(i, value) for i, value in enumerate(row) if value is not None]
        axes.plot(*zip(*present, strict=True), color=svg.SERIES[1 if rank > 0.9 else 0],
                  alpha=0.15 + 0.8 * rank**3, linewidth=1)  # fmt: skip
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n") for name in names], fontsize=7)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x", linewidth=0.6)
    shown = ", ".join(names)
    return svg.draw(figure, f"Parallel coordinates of {len(trials)} trials: {shown}")


def _of(trial: FrozenTrial, name: str) -> Any:
    return trial.user_attrs["accuracy"] if name == "accuracy" else trial.params.get(name)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _scaled(values: list[Any]) -> list[float | None]:
    """The values in [0, 1]: numbers by size, others by their order; None for none."""
    known = [value for value in values if value is not None]
    if not all(isinstance(value, int | float) for value in known):
        order = sorted({str(value) for value in known})
        values = [None if value is None else order.index(str(value)) for value in values]
        known = [value for value in values if value is not None]
    low, high = min(known, default=0), max(known, default=1)
    return [None if v is None else (v - low) / ((high - low) or 1) for v in values]
