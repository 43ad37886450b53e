"""The README's results tables and results/README.md, from the evidence there: `make results`.

python -m tools.results [--add=WORKDIR]

With `--add` the evidence of a finished run goes into results/ first. Where a run's predictions are
kept, its figures are computed again from them, and must be those of its `result.json`.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Sequence

from cifar_jax import terminal
from cifar_jax.errors import BAD_INPUT, UserError
from cifar_jax.report import reference
from cifar_jax.terminal import printable, say
from tools import published, readme_tables

ROOT = pathlib.Path(__file__).parent.parent


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
        "| `predictions.npz` | test logits and labels, from which the test figures can be computed "
        "again; runs before 26 November 2026 lack it |",
        "",
        "`python main.py --mode=report --workdir=results/final/seed-0` makes the page of a run. "
        "`python -m tools.results --add=WORKDIR` adds a run.",
    ]
    for name, runs in readme_tables.configs(results):
        reports = [run.result["classification_report"] for run in runs if run.result]
        reported = reference.FINAL_CLASSES if name == "final" else ()
        more = " the report's precision | recall | f1-score |" if reported else ""
        accuracy = readme_tables.spread(readme_tables.figures(runs, "test_accuracy"))
        seeds = ", ".join(str(run.config.seed) for run in runs)
        lines += ["", f"## {name}", "", f"Accuracy {accuracy} %; seeds: {seeds}.", ""]
        for note in published.notes(results / name):
            lines += [note.replace("](docs/", "](../docs/"), ""]
        lines += [f"| class | precision | recall | f1-score | support |{more}"]
        lines += ["|---" * (8 if reported else 5) + "|"]
        for i, label in enumerate(reports[0]):
            means = (
                statistics.mean(report[label][key] for report in reports)
                for key in ("precision", "recall", "f1-score")
            )
            cells = [terminal.cell(label), *(f"{mean:.4f}" for mean in means)]
            cells.append(f"{reports[0][label]['support']:,.0f}")
            if reported:
                cells += [f"{v:.2f}" for v in reported[i]] if i < len(reported) else [""] * 3
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


TABLES = {
    "results": readme_tables.table,
    "longer": readme_tables.longer_table,
    "speedruns": readme_tables.speed_table,
    "harder": readme_tables.harder_table,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument("--add", metavar="WORKDIR", type=pathlib.Path, help="a finished run")
    options, results, readme = parser.parse_args(arguments), ROOT / "results", ROOT / "README.md"
    try:
        if options.add:
            say(printable(published.add(options.add, results)))
        text, reports = updated(readme.read_text(), results), classification_reports(results)
    except UserError as error:
        say(f"error: {printable(error)}", sys.stderr)
        return BAD_INPUT
    readme.write_text(text)
    (results / "README.md").write_text(reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
