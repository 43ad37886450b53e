"""The table of a search: what it found, beside networks that nobody searched for."""

import csv
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from etils import epath

from cifar_jax import search
from cifar_jax.forms import Check, Schema
from cifar_jax.runtime import checked
from tools import flops, published, run_tables

_DIGITS = Check("1 to 18 digits", lambda v: re.fullmatch(r"\d{1,18}", v or "") is not None)
_SHARE = Check(
    "a number from 0 to 1",
    lambda v: re.fullmatch(r"\d(\.\d+)?(e-\d+)?", v or "") is not None and float(v) <= 1,
)
_TRAINED = Schema(
    {"trial": _DIGITS, "accuracy": _SHARE, "multiply_adds": _DIGITS, "parameters": _DIGITS},
    "restore it, or write it again with the command of its search",
)


class Network(NamedTuple):
    """A network, trained as the trials of a search are."""

    title: str  # in Markdown
    accuracy: float  # on the validation images, of the best epoch
    multiply_adds: int
    parameters: int


def table(results: pathlib.Path, name: str, baseline: str = "") -> str:
    """A row for each network known before the search of this name, then for what it found.

    Args:
      baseline: the config of a known network; then what was found for fewer multiply-adds is shown.
    """
    known = {
        network: Network(
            run_tables.link(network),
            run.best_row["validation_accuracy"],
            flops.multiply_adds(run),
            run.result["parameters"],
        )
        for network, (run, *_) in run_tables.configs(results / name)
        if run.result
    }
    shown = list(known.values())
    found = trials(results / name / published.FOUND / search.TABLE)
    ranked: list[tuple[str, list[Network], Callable[[Network], float]]] = [
        ("the best", found, lambda one: one.accuracy)
    ]
    if baseline in known:
        base = known[baseline]
        quarter = [one for one in found if one.multiply_adds <= base.multiply_adds / 4]
        as_good = [one for one in found if one.accuracy >= base.accuracy]
        ranked += [
            ("the best of a quarter of the multiply-adds", quarter, lambda one: one.accuracy),
            ("the cheapest that is as good", as_good, lambda one: -one.multiply_adds),
        ]
    for what, some, rank in ranked:
        if some:
            best = max(some, key=rank)
            shown.append(best._replace(title=f"{what}: {best.title}"))
    titles = ("network", "validation accuracy %", "multiply-adds, millions", "parameters")
    rows = (
        [
            one.title,
            f"{100 * one.accuracy:.2f}",
            f"{one.multiply_adds / 1e6:.1f}",
            f"{one.parameters:,}",
        ]
        for one in shown
    )
    return run_tables.markdown(titles, rows)


def trials(path: pathlib.Path) -> list[Network]:
    """The trained trials in the table of a search; [] without it.

    Raises:
      UserError: a figure in the table is damaged.
    """
    if not path.exists():
        return []
    found = []
    with (
        checked.reading(epath.Path(path), _TRAINED.remedy),
        path.open(newline="", errors="replace") as file,
    ):
        for row in csv.DictReader(file):
            if row.get("state") == "complete" and row.get("accuracy"):
                _TRAINED.check(row)
                figures = float(row["accuracy"]), int(row["multiply_adds"]), int(row["parameters"])
                found.append(Network(f"trial {row['trial']}", *figures))
    return found
