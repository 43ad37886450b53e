"""The README's results table, from the evidence under `results/`: `make results`."""

import json
import pathlib
import statistics
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
BEGIN, END = "<!-- results: begin, by `make results` -->", "<!-- results: end -->"

# Test accuracy and test loss (with the L2 penalty, as Keras prints it) that the report states.
REPORT = {
    "model1": (0.6877, 1.1005),
    "model2": (0.7556, 0.8183),
    "model3": (0.8169, 0.8241),
    "final": (0.8637, 0.7141),
}


def _runs(config: pathlib.Path) -> list[dict[str, Any]]:
    """The finished runs of a config: `result.json`, with environment and last row beside it."""
    runs = []
    for path in sorted(config.glob("seed-*/result.json")):
        run = json.loads(path.read_text())
        run["environment"] = json.loads((path.parent / "environment.json").read_text())
        rows = (path.parent / "metrics.jsonl").read_text().splitlines()
        run["rows"] = [json.loads(row) for row in rows]
        runs.append(run)
    return runs


def _spread(values: list[float]) -> str:
    """Mean, with the sample standard deviation where there is one, in percent."""
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def table(results: pathlib.Path) -> str:
    """A Markdown table with a row for each config that has a finished run in `results`."""
    lines = [
        "| config | seeds | test accuracy % | the report's | test objective | the report's "
        "| train − validation accuracy, best / last epoch | epochs (best) | parameters "
        "| training |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    hardware = set()
    # The report's order first, then whatever else there is.
    names = [*REPORT, *sorted(p.name for p in results.iterdir() if p.name not in REPORT)]
    for name in names:
        runs = _runs(results / name)
        if not runs:
            continue
        accuracy, objective = REPORT.get(name, (None, None))
        best, last = ([], [])
        for run in runs:
            for gaps, row in ((best, run["rows"][run["best_epoch"] - 1]), (last, run["rows"][-1])):
                gaps.append(row["train_accuracy"] - row["validation_accuracy"])
            environment = run["environment"]
            hardware.add(
                f"{environment['cpu_count']}-core {environment['processor']}"
                if environment["backend"] == "cpu"
                else f"{environment['device_count']} x {environment['device_kind']}"
            )
        epochs = ", ".join(f"{run['epochs']} ({run['best_epoch']})" for run in runs)
        minutes = statistics.mean(run["train_seconds"] for run in runs) / 60
        cells = [
            f"`configs/{name}.py`",
            str(len(runs)),
            _spread([run["test_accuracy"] for run in runs]),
            f"{100 * accuracy:.2f}" if accuracy else "",
            f"{statistics.mean(run['test_objective'] for run in runs):.4f}",
            f"{objective:.4f}" if objective else "",
            f"{_spread(best)} / {_spread(last)}",
            epochs,
            f"{runs[0]['parameters']:,}",
            f"{minutes:.0f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Hardware: {'; '.join(sorted(hardware))}."]
    return "\n".join(lines)


def updated(readme: str, results: pathlib.Path) -> str:
    """`readme` with the table between its two markers made anew."""
    return between(readme, BEGIN, END, table(results))


def between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` for what stands between two markers."""
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{content}\n{end}{tail}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(), ROOT / "results"))
