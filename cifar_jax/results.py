"""The README's results table and results/README.md, from the evidence there: `make results`."""

import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

from etils import epath

from cifar_jax import models, reference
from cifar_jax import workdir as files
from cifar_jax.models import summary
from cifar_jax.report import evidence
from cifar_jax.report.evidence import Run

ROOT = pathlib.Path(__file__).parent.parent
LONGER = (10, 20, 30, 40, 60, 80, 100, 120, 150)  # epochs


def _configs(results: pathlib.Path) -> Iterator[tuple[str, list[Run]]]:
    """Config name and its finished runs by seed: the report's order first, then what else is."""
    names = {path.parent.parent.name for path in results.glob("*/seed-*/result.json")}
    for name in sorted(names, key=lambda name: ([*reference.REPORTED, name].index(name), name)):
        paths = sorted((results / name).glob("seed-*/result.json"))
        yield name, [evidence.load(epath.Path(path.parent)) for path in paths]


def _spread(values: list[float | None]) -> str:
    """Mean, with the sample standard deviation where there is one, in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.2f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.2f}"


def _figures(runs: list[Run], key: str) -> list[Any]:
    return [run.result[key] for run in runs if run.result]


def table(results: pathlib.Path) -> str:
    """A Markdown table with a row for each config that has a finished run in `results`."""
    lines = [
        "| config | seeds | test accuracy % | the report's | test objective | the report's "
        "| train − validation accuracy, best / last epoch | epochs (best) | parameters "
        "| training |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    hardware = set()
    for name, runs in _configs(results):
        if name.startswith("speedrun"):
            continue
        reported = reference.REPORTED.get(name)
        hardware |= {run.hardware for run in runs}
        gaps = [
            _spread([run.gap(run.best_row) for run in runs]),
            _spread([run.gap(run.rows[-1]) for run in runs]),
        ]
        minutes = statistics.mean(_figures(runs, "train_seconds")) / 60
        cells = [
            f"[`{name}`](configs/{name}.py)",
            str(len(runs)),
            _spread(_figures(runs, "test_accuracy")),
            f"{100 * reported.accuracy:.2f}" if reported else "",
            f"{statistics.mean(_figures(runs, 'test_objective')):.4f}",
            f"{reported.objective:.4f}" if reported else "",
            " / ".join(gaps),
            ", ".join(f"{len(run.rows)} ({run.best_row['epoch']})" for run in runs),
            f"{_figures(runs, 'parameters')[0]:,}",
            f"{minutes:.0f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_hardware_line(hardware)])


def speed_table(results: pathlib.Path) -> str:
    """A Markdown table of the speedruns, and of the final model to compare them with."""
    lines = [
        "| config | seeds | test accuracy % | with test-time augmentation | whole command "
        "| training | images trained on | PFLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    hardware: set[str] = set()
    for name, runs in _configs(results):
        if not name.startswith("speedrun") and name != "final":
            continue
        images = [run.rows[-1]["step"] * run.config.batch_size for run in runs]
        seconds = [run.seconds for run in runs if run.seconds]
        cells = [
            f"[`{name}`](configs/{name}.py)",
            str(len(runs)),
            _spread(_figures(runs, "test_accuracy")),
            _spread([run.result.get("test_accuracy_tta") for run in runs if run.result]),
            f"{statistics.mean(seconds) / 60:.1f} min" if seconds else "–",
            f"{statistics.mean(_figures(runs, 'train_seconds')) / 60:.1f} min",
            f"{statistics.mean(images):,.0f}",
            f"{statistics.mean(images) * _train_flops(runs[0]) / 1e15:.3f}",
        ]
        hardware |= {run.hardware for run in runs}
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_hardware_line(hardware)])


def longer_table(results: pathlib.Path) -> str:
    """A Markdown table of the best validation accuracy of some first epochs, of the final model and
    of the same network trained longer."""
    titles = [f"epoch {epoch}" for epoch in LONGER]
    lines = [f"| validation accuracy %, best until | {' | '.join(titles)} | test |"]
    lines += ["|---" * (len(LONGER) + 2) + "|"]
    for name, runs in _configs(results):
        if name in ("final", "final_long"):
            cells = []
            for epoch in LONGER:
                reached = [run.rows[:epoch] for run in runs if len(run.rows) >= epoch]
                cells.append(
                    _spread([max(r["validation_accuracy"] for r in rows) for rows in reached])
                )
            cells.append(_spread(_figures(runs, "test_accuracy")))
            lines.append(f"| [`{name}`](configs/{name}.py) | {' | '.join(cells)} |")
    return "\n".join(lines)


def harder_table(results: pathlib.Path) -> str:
    """A Markdown table with a row for each run that a suite of `robustness` has tested."""
    attacks = [(attack, eps) for attack in ("FGSM", "PGD") for eps in ("2/255", "8/255")]
    titles = ["clean", "corrupted, mean", "severity 1", "severity 5"]
    titles += [f"{attack} {eps}" for attack, eps in attacks]
    lines = [f"| accuracy % | {' | '.join(titles)} | int8 ONNX |", "|---" * (len(titles) + 2) + "|"]
    for name, runs in _configs(results):
        for run in runs:
            means = run.robustness.get("corruptions", {}).get("mean_accuracy", {})
            attacked = run.robustness.get("adversarial", {}).get("accuracy", {})
            cells = [statistics.mean(means.values()) if means else None]
            cells += [means.get(severity) for severity in ("1", "5")]
            cells += [attacked.get(attack, {}).get(eps) for attack, eps in attacks]
            int8 = run.workdir / files.EXPORT / "model.int8.json"
            cells += [files.read_json(int8)["test_accuracy"] if int8.exists() else None]
            if set(cells) != {None}:
                title = f"[`{name}`](configs/{name}.py), seed {run.config.seed}"
                cells = [*_figures([run], "test_accuracy"), *cells]
                figures = " | ".join(_spread([cell]) for cell in cells)
                lines.append(f"| {title} | {figures} |")
    return "\n".join(lines)


def _hardware_line(hardware: set[str]) -> list[str]:
    return ["", f"Hardware: {'; '.join(sorted(hardware))}."]


def _train_flops(run: Run) -> int:
    """Of an image: two a multiply-add of a kernel, forward and both gradients (of the first layer
    too, which has fewer)."""
    shape, classes = (32, 32, 3), len(run.result["confusion_matrix"]) if run.result else 10
    rows = summary.layers(models.build(run.config, shape, classes), shape)
    return 2 * 3 * sum(row.multiply_adds for row in rows)


def classification_reports(results: pathlib.Path) -> str:
    """`results/README.md`: precision, recall and F1 of each config, by class, mean of its seeds."""
    lines = [
        "# Classification reports",
        "",
        "Of the 10,000 test images, mean of a config's seeds. Made by `make results`.",
        "",
        "| in a run's directory | what |",
        "|---|---|",
        "| `config.json`, `environment.json` | what was run, on what, by which command |",
        "| `metrics.jsonl`, `result.json` | the figures |",
        "| `report.html` | the page: open it in a browser |",
    ]
    for name, runs in _configs(results):
        reports = [run.result["classification_report"] for run in runs if run.result]
        reported = reference.FINAL_CLASSES if name == "final" else ()
        more = " the report's precision | recall | f1-score |" if reported else ""
        accuracy = _spread(_figures(runs, "test_accuracy"))
        seeds = ", ".join(str(run.config.seed) for run in runs)
        lines += ["", f"## {name}", "", f"Accuracy {accuracy} %; seeds: {seeds}.", ""]
        lines += [f"| class | precision | recall | f1-score | support |{more}"]
        lines += ["|---" * (8 if reported else 5) + "|"]
        for i, label in enumerate(reports[0]):
            means = (
                statistics.mean(report[label][key] for report in reports)
                for key in ("precision", "recall", "f1-score")
            )
            cells = [label, *(f"{mean:.4f}" for mean in means)]
            cells.append(f"{reports[0][label]['support']:,.0f}")
            if reported:
                cells += [f"{v:.2f}" for v in reported[i]] if i < len(reported) else [""] * 3
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TABLES = {
    "results": table,
    "longer": longer_table,
    "speedruns": speed_table,
    "harder": harder_table,
}


def updated(readme: str, results: pathlib.Path) -> str:
    """`readme` with its tables made anew."""
    for name, make in TABLES.items():
        readme = between(readme, name, make(results))
    return readme


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` for what stands between the markers of this name."""
    begin, end = f"<!-- {name}: begin, by `make results` -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{content}\n{end}{tail}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(), ROOT / "results"))
    (ROOT / "results" / "README.md").write_text(classification_reports(ROOT / "results"))
