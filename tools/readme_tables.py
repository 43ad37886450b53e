"""The tables of README.md about published runs, from their evidence under results/."""

import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

from etils import epath

from cifar_jax import models
from cifar_jax.models import summary
from cifar_jax.report import evidence, reference
from cifar_jax.report.evidence import Run
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.workdir_schema import INT8
from tools import published

LONGER = (10, 20, 30, 40, 60, 80, 100, 120, 150)  # epochs


def configs(results: pathlib.Path) -> Iterator[tuple[str, list[Run]]]:
    """Config name and its finished runs by seed: the report's order first, then what else is.

    Raises:
      UserError: a run's predictions are kept and give other figures than its result has.
    """
    names = {path.parent.parent.name for path in results.glob("*/seed-*/result.json")}
    for name in sorted(names, key=lambda name: ([*reference.REPORTED, name].index(name), name)):
        paths = sorted((results / name).glob("seed-*/result.json"))
        runs = [evidence.load(epath.Path(path.parent)) for path in paths]
        for run in runs:
            published.check(run)
        yield name, runs


def spread(values: list[float | None]) -> str:
    """Mean and sample standard deviation in percent; of fewer than three values, the values."""
    known = [100 * value for value in values if value is not None]
    if len(known) < 3:
        return ", ".join(f"{value:.2f}" for value in known) or "–"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


class _Footnotes:
    """The notes on the configs of one table, numbered in the order of its rows."""

    def __init__(self, results: pathlib.Path):
        self._results = results
        self._texts: list[str] = []

    def mark(self, name: str) -> str:
        """What goes behind a figure of this config."""
        texts = published.notes(self._results / name)
        first = len(self._texts) + 1
        self._texts += texts
        numbers = ", ".join(str(first + i) for i in range(len(texts)))
        return f" <sup>{numbers}</sup>" if texts else ""

    def lines(self) -> list[str]:
        numbered = enumerate(self._texts, 1)
        return [line for i, text in numbered for line in ("", f"<sup>{i}</sup> {text}")]


def figures(runs: list[Run], key: str) -> list[Any]:
    """Of the results of finished runs."""
    return [run.result[key] for run in runs if run.result]


def table(results: pathlib.Path) -> str:
    """A Markdown table with a row for each config that has a finished run in `results`."""
    lines = [
        "| config | seeds | test accuracy % | the report's | test objective | the report's "
        "| train − validation accuracy, neither with augmentation and dropout "
        "| with them in training, best / last epoch | epochs (best) | parameters | training |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    footnotes, shown = _Footnotes(results), {}
    for name, runs in configs(results):
        if name.startswith("speedrun"):
            continue
        reported = reference.REPORTED.get(name)
        shown[name] = runs
        gaps = [
            spread([run.gap(run.best_row) for run in runs]),
            spread([run.gap(run.rows[-1]) for run in runs]),
        ]
        minutes = statistics.mean(figures(runs, "train_seconds")) / 60
        cells = [
            f"[`{name}`](configs/{name}.py)",
            str(len(runs)),
            spread(figures(runs, "test_accuracy")) + footnotes.mark(name),
            f"{100 * reported.accuracy:.2f}" if reported else "",
            f"{statistics.mean(figures(runs, 'test_objective')):.4f}",
            f"{reported.objective:.4f}" if reported else "",
            spread([run.clean_gap for run in runs]),
            " / ".join(gaps),
            ", ".join(f"{len(run.rows)} ({run.best_row['epoch']})" for run in runs),
            f"{figures(runs, 'parameters')[0]:,}",
            f"{minutes:.0f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *footnotes.lines(), *_provenance(shown)])


def speed_table(results: pathlib.Path) -> str:
    """A Markdown table of the speedruns, and of the final model to compare them with."""
    lines = [
        "| config | seeds | test accuracy % | with test-time augmentation | whole command "
        "| training | images trained on | PFLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    footnotes, shown = _Footnotes(results), {}
    for name, runs in configs(results):
        if not name.startswith("speedrun") and name != "final":
            continue
        images = [run.rows[-1]["step"] * run.config.batch_size for run in runs]
        shown[name] = runs
        seconds = [run.seconds for run in runs if run.seconds]
        some = f" ({len(seconds)} of {len(runs)} seeds)" if len(seconds) < len(runs) else ""
        cells = [
            f"[`{name}`](configs/{name}.py)",
            str(len(runs)),
            # Those on the final model stand under the table that it is from.
            spread(figures(runs, "test_accuracy"))
            + ("" if name == "final" else footnotes.mark(name)),
            spread([run.result.get("test_accuracy_tta") for run in runs if run.result]),
            f"{statistics.mean(seconds) / 60:.1f} min{some}" if seconds else "–",
            f"{statistics.mean(figures(runs, 'train_seconds')) / 60:.1f} min",
            f"{statistics.mean(images):,.0f}",
            f"{statistics.mean(images) * _train_flops(runs[0]) / 1e15:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *footnotes.lines(), *_provenance(shown)])


def longer_table(results: pathlib.Path) -> str:
    """A Markdown table of the best validation accuracy of some first epochs, of the final model and
    of the same network trained longer."""
    titles = [f"epoch {epoch}" for epoch in LONGER]
    lines = [f"| validation accuracy %, best until | {' | '.join(titles)} | test, notes above |"]
    lines += ["|---" * (len(LONGER) + 2) + "|"]
    for name, runs in configs(results):
        if name in ("final", "final_long"):
            cells = []
            for epoch in LONGER:
                reached = [run.rows[:epoch] for run in runs if len(run.rows) >= epoch]
                cells.append(
                    spread([max(r["validation_accuracy"] for r in rows) for rows in reached])
                )
            cells.append(spread(figures(runs, "test_accuracy")))
            lines.append(f"| [`{name}`](configs/{name}.py) | {' | '.join(cells)} |")
    return "\n".join(lines)


def harder_table(results: pathlib.Path) -> str:
    """A Markdown table with a row for each run that a suite of `robustness` has tested."""
    attacks = [(attack, eps) for attack in ("FGSM", "PGD") for eps in ("2/255", "8/255")]
    titles = ["clean", "corrupted, mean", "severity 1", "severity 5"]
    titles += [f"{attack} {eps}" for attack, eps in attacks]
    lines = [f"| accuracy % | {' | '.join(titles)} | int8 ONNX |", "|---" * (len(titles) + 2) + "|"]
    for name, runs in configs(results):
        for run in runs:
            means = run.robustness.get("corruptions", {}).get("mean_accuracy", {})
            attacked = run.robustness.get("adversarial", {}).get("accuracy", {})
            cells = [statistics.mean(means.values()) if means else None]
            cells += [means.get(severity) for severity in ("1", "5")]
            cells += [attacked.get(attack, {}).get(eps) for attack, eps in attacks]
            int8 = run.workdir / files.EXPORT / "model.int8.json"
            exported = read_json(int8, INT8) if int8.exists() else {}
            cells += [exported.get("test_accuracy")]
            if set(cells) != {None}:
                title = f"[`{name}`](configs/{name}.py), seed {run.config.seed}"
                cells = [*figures([run], "test_accuracy"), *cells]
                lines.append(f"| {title} | {' | '.join(spread([cell]) for cell in cells)} |")
    return "\n".join(lines)


def _provenance(shown: dict[str, list[Run]]) -> list[str]:
    """What each run of a table was made on, and of which the predictions are kept."""
    hardware: dict[str, dict[str, list[Run]]] = {}
    kept: dict[str, list[Run]] = {}
    for name, runs in shown.items():
        for run in runs:
            hardware.setdefault(run.hardware, {}).setdefault(name, []).append(run)
            if run.predictions is not None:
                kept.setdefault(name, []).append(run)
    lines = [
        line
        for machine, theirs in sorted(hardware.items())
        for line in ("", f"On {machine}: {_seeds(theirs)}.")
    ]
    if not kept:
        words = "The test logits of these runs, `predictions.npz`, were not kept."
    elif kept == shown:
        words = "The test logits of each run are kept, in `predictions.npz`."
    else:
        words = f"Test logits, `predictions.npz`, were kept of {_seeds(kept)}, not of the others."
    return [*lines, "", words]


def _seeds(named: dict[str, list[Run]]) -> str:
    """ "`model1` seeds 0, 2; `final` seed 1"."""
    words = []
    for name, runs in named.items():
        numbers = ", ".join(str(run.config.seed) for run in runs)
        words.append(f"`{name}` seed{'s' if len(runs) > 1 else ''} {numbers}")
    return "; ".join(words)


def _train_flops(run: Run) -> int:
    """Of an image: two a multiply-add of a kernel, forward and both gradients (of the first layer
    too, which has fewer)."""
    shape, classes = (32, 32, 3), len(run.result["confusion_matrix"]) if run.result else 10
    rows = summary.layers(models.build(run.config, shape, classes), shape)
    return 2 * 3 * sum(row.multiply_adds for row in rows)
