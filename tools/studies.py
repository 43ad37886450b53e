"""Studies: the same configs at several values of one setting; their tables.

A study is a config file that takes an argument, CONFIG,VALUE. Its runs lie in
results/STUDY/CONFIG,VALUE/. The config's own runs belong to it, too, with the value that they have.
"""

import pathlib
import statistics
from collections.abc import Callable
from typing import NamedTuple

from cifar_jax.report.evidence import Run
from tools import run_tables

LONGER = (10, 20, 30, 40, 60, 80, 100, 120, 150)  # epochs


class Point(NamedTuple):
    """The runs of one config at one value, by seed."""

    value: int
    runs: list[Run]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy in percent."""
        return 100 * statistics.mean(run_tables.figures(self.runs, "test_accuracy"))

    @property
    def minutes(self) -> float | None:
        """Mean minutes of the whole command on two cores; None if no run noted them."""
        known = [
            r.seconds / 60 for r in self.runs if r.seconds and r.hardware.startswith("2-core ")
        ]
        return statistics.mean(known) if known else None


def side(run: Run) -> int:
    """Height and width of the images that the network sees, in pixels."""
    return run.config.data.resize


def trained_on(run: Run) -> int:
    """The number of training images."""
    return sum(run.result["class_counts"]["train"].values()) if run.result else 0


STUDIES: dict[str, Callable[[Run], int]] = {"resolution": side, "fewer_images": trained_on}


def lines(results: pathlib.Path, study: str) -> dict[str, list[Point]]:
    """The points of each config of a study, by value."""
    found: dict[str, list[Point]] = {}
    for argument, runs in run_tables.configs(results / study):
        name = argument.partition(",")[0]
        found.setdefault(name, []).append(Point(STUDIES[study](runs[0]), runs))
    for name, runs in run_tables.configs(results):
        if name in found:
            found[name].append(Point(STUDIES[study](runs[0]), runs))
    return {name: sorted(points, key=lambda p: p.value) for name, points in found.items()}


def resolution_table(results: pathlib.Path) -> str:
    """A row for each config and resolution."""
    titles = ("config", "pixels", "validation accuracy %", "test accuracy %", "whole command")
    rows = []
    for name, points in lines(results, "resolution").items():
        for value, runs in points:
            rows.append(
                [
                    run_tables.link(name),
                    f"{value} x {value}",
                    run_tables.spread([run.best_row["validation_accuracy"] for run in runs]),
                    run_tables.spread(run_tables.figures(runs, "test_accuracy")),
                    run_tables.minutes(runs, lambda run: run.seconds),
                ]
            )
    return run_tables.markdown(titles, rows)


def images_table(results: pathlib.Path) -> str:
    """A row for each config, a column for each number of training images."""
    found = lines(results, "fewer_images")
    values = sorted({value for points in found.values() for value, _ in points})
    rows = []
    for name, points in found.items():
        cells = {
            value: run_tables.spread(run_tables.figures(runs, "test_accuracy"))
            for value, runs in points
        }
        rows.append([run_tables.link(name), *(cells.get(value, "–") for value in values)])
    titles = ("test accuracy % with so many training images", *(f"{v:,}" for v in values))
    return run_tables.markdown(titles, rows)


def longer_table(results: pathlib.Path) -> str:
    """The best validation accuracy up to some epochs, of `final` and of the same trained longer."""
    rows = []
    for name, runs in run_tables.configs(results):
        if name in ("final", "final_long"):
            cells = [run_tables.link(name)]
            for epoch in LONGER:
                reached = [run.rows[:epoch] for run in runs if len(run.rows) >= epoch]
                cells.append(
                    run_tables.spread(
                        [max(r["validation_accuracy"] for r in rows) for rows in reached]
                    )
                )
            rows.append([*cells, run_tables.spread(run_tables.figures(runs, "test_accuracy"))])
    epochs = (f"epoch {epoch}" for epoch in LONGER)
    return run_tables.markdown(("best validation accuracy % up to", *epochs, "test"), rows)
