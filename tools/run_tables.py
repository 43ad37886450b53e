"""Markdown tables about published runs, made from their evidence under results/.

The tables of docs/results.md link to files relative to docs/; that of README.md relative to the
top.
"""

import pathlib
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from cifar_jax.pages import reference
from cifar_jax.report import evidence
from cifar_jax.report.evidence import Run
from tools import flops, published

# What sets a config apart, for a reader who has not opened it.
WHAT = {
    "model1": "the report's first CNN: no cure, it overfits",
    "model2": "the same with flips and dropout",
    "model3": "larger, with L2",
    "final": "with batch norm and a learning-rate schedule",
    "final_long": "`final` for 150 epochs, with shifts, cutout and weight decay",
    "two_convolutions": "`final` with two convolutions a block, for fewer multiply-adds",
    "searched": "the network that a search found, trained as `final` is",
    "speedrun_cpu": "a fast recipe, small",
    "speedrun_searched": "what a search made of it for five minutes",
    "speedrun90": "the fast recipe, medium",
    "speedrun94": "the fast recipe, full width",
    "transfer_probe": "a linear classifier on features of EfficientNet-Lite0 from ImageNet",
    "transfer_finetune": "EfficientNet-Lite0 from ImageNet, fine-tuned",
    "transfer_growing": "the same on all 50,000 images, which grow from 96 to 160 pixels",
}


def configs(results: pathlib.Path) -> Iterator[tuple[str, list[Run]]]:
    """Yields each config's name and its finished runs by seed: those of `WHAT` first, in its order.

    With an argument to a config (`--config=FILE:ARGUMENT`), its runs belong to a study, so they are
    not among these: `results` / FILE has them.

    Raises:
      UserError: a run's predictions are kept and give other figures than its result has.
    """
    names = {path.parent.parent.name for path in results.glob("*/seed-*/result.json")}
    for name in sorted(names, key=lambda name: ([*WHAT, name].index(name), name)):
        paths = sorted((results / name).glob("seed-*/result.json"))
        runs = [evidence.load(epath.Path(path.parent)) for path in paths]
        for run in runs:
            published.check(run)
        yield name, runs


def spread(values: list[float | None]) -> str:
    """Mean and sample standard deviation in percent; of fewer than three values, all of them."""
    known = [100 * value for value in values if value is not None]
    if len(known) < 3:
        return ", ".join(f"{value:.2f}" for value in known) or "–"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


def figures(runs: list[Run], key: str) -> list[Any]:
    """One figure of each finished run."""
    return [run.result[key] for run in runs if run.result]


def train_seconds(run: Run) -> float | None:
    """Seconds of training alone, without start and test; of a probe, which begins with features,
    those of the whole command."""
    if run.config.probe:
        return run.seconds
    return run.result["train_seconds"] if run.result else None


def short_table(results: pathlib.Path) -> str:
    """README.md's table: a row for each config."""
    rows = []
    for name, runs in configs(results):
        reported = reference.REPORTED.get(name)
        rows.append(
            [
                link(name, ""),
                WHAT.get(name, ""),
                str(len(runs)),
                spread(figures(runs, "test_accuracy"))
                + _notes_mark(results, name, "docs/results.md"),
                f"{100 * reported.accuracy:.2f}" if reported else "",
                minutes(runs, train_seconds),
            ]
        )
    titles = ("config", "what it is", "seeds", "test accuracy %", "the report's", "training")
    return markdown(titles, rows)


def table(results: pathlib.Path) -> str:
    """The report's models and what else trains as they do: a row for each config."""
    titles = (
        "config", "seeds", "test accuracy %", "the report's", "test objective", "the report's",
        "train − validation accuracy", "the same, as Keras prints it: best / last epoch",
        "epochs (best)", "parameters", "training",
    )  # fmt: skip
    rows = []
    for name, runs in configs(results):
        if name.startswith("speedrun"):
            continue
        reported = reference.REPORTED.get(name)
        gaps = [
            spread([run.gap(run.best_row) for run in runs]),
            spread([run.gap(run.rows[-1]) for run in runs]),
        ]
        rows.append(
            [
                link(name),
                str(len(runs)),
                spread(figures(runs, "test_accuracy")) + _notes_mark(results, name),
                f"{100 * reported.accuracy:.2f}" if reported else "",
                f"{statistics.mean(figures(runs, 'test_objective')):.4f}",
                f"{reported.objective:.4f}" if reported else "",
                spread([run.clean_gap for run in runs]),
                " / ".join(gaps),
                ", ".join(f"{len(run.rows)} ({run.best_row['epoch']})" for run in runs),
                f"{figures(runs, 'parameters')[0]:,}",
                minutes(runs, train_seconds),
            ]
        )
    return markdown(titles, rows)


def speed_table(results: pathlib.Path) -> str:
    """The speedruns, and the final model to compare them with."""
    titles = (
        "config", "seeds", "test accuracy %", "with test-time augmentation", "whole command",
        "training", "images trained on", "PFLOP",
    )  # fmt: skip
    rows = []
    for name, runs in configs(results):
        if not name.startswith("speedrun") and name != "final":
            continue
        images = statistics.mean(run.rows[-1]["step"] * run.config.batch_size for run in runs)
        rows.append(
            [
                link(name),
                str(len(runs)),
                spread(figures(runs, "test_accuracy")) + _notes_mark(results, name),
                spread([run.result.get("test_accuracy_tta") for run in runs if run.result]),
                minutes(runs, lambda run: run.seconds),
                minutes(runs, train_seconds),
                f"{images:,.0f}",
                f"{images * flops.of_run(runs[0]) / 1e15:.3f}",
            ]
        )
    return markdown(titles, rows)


def runs_table(results: pathlib.Path) -> str:
    """A row for each run: its figures, and where and from which commit they come."""
    titles = (
        "config, seed", "test accuracy %", "training, min", "whole command, min", "machine", "date",
        "commit", "test logits",
    )  # fmt: skip
    rows = []
    studies = sorted({path.parents[2] for path in results.glob("*/*/seed-*/result.json")})
    for home in (results, *studies):
        for run in (run for _, runs in configs(home) for run in runs):
            start = run.environment["starts"][0]
            path = pathlib.Path(run.workdir).relative_to(results)
            name = ":".join(path.parent.parts)
            rows.append(
                [
                    f"[`{name}`, {run.config.seed}](../results/{path})",
                    spread(figures([run], "test_accuracy")),
                    f"{figures([run], 'train_seconds')[0] / 60:.1f}",
                    f"{run.seconds / 60:.1f}" if run.seconds else "–",
                    machine(run),
                    start["time"][:10],
                    start["git_commit"][:7],
                    "–" if run.predictions is None else "kept",
                ]
            )
    return markdown(titles, rows)


def notes(results: pathlib.Path) -> str:
    """What must be known of some configs' figures, under a heading for each."""
    lines = []
    for name, _ in configs(results):
        texts = published.notes(results / name, "")
        lines += ["", f"### Notes on {name}", "", *(f"- {text}" for text in texts)] * bool(texts)
    return "\n".join(lines[1:])


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (titles, *rows))
    return "\n".join([first, "|---" * len(titles) + "|", *rest])


def machine(run: Run) -> str:
    """ "2-core Intel Xeon"."""
    return run.hardware.replace("(R)", "").replace(" Processor", "")


def minutes(runs: list[Run], seconds: Callable[[Run], float | None]) -> str:
    """ "6.8 min on 2-core AMD EPYC": the mean of each machine's runs that noted their time."""
    times: dict[str, list[float]] = {}
    for run in runs:
        if time := seconds(run):
            times.setdefault(machine(run), []).append(time / 60)
    means = (f"{statistics.mean(each):.1f} min on {name}" for name, each in times.items())
    return ", ".join(means) or "–"


def link(name: str, top: str = "../") -> str:
    return f"[`{name}`]({top}configs/{name}.py)"


def _notes_mark(results: pathlib.Path, name: str, page: str = "") -> str:
    """A link behind a figure to the notes on its config, if there are any."""
    has = published.notes(results / name, "")
    return f" <sup>[notes]({page}#notes-on-{name})</sup>" if has else ""
