"""Makes the pictures and the tables of README, docs, results/README and the card in the box.

python -m tools.results [--add=WORKDIR]

With `--add` the evidence of a finished run or search is first copied to results/. Where a run's
predictions are kept, its figures are computed from them again and must agree with its
`result.json`.
"""

import argparse
import functools
import pathlib
import statistics
import sys
from collections.abc import Callable, Sequence

from cifar_jax import places, search, terminal
from cifar_jax.errors import BAD_INPUT, UserError
from cifar_jax.pages import reference
from cifar_jax.terminal import printable, say
from tools import box, picture, published, run_tables, searches, studies, trust_tables

ROOT = pathlib.Path(__file__).parent.parent

# Page -> name of a block in it -> what makes the block from results/.
PAGES: dict[str, dict[str, Callable[[pathlib.Path], str]]] = {
    "README.md": {"short": run_tables.short_table},
    "docs/results.md": {
        "results": run_tables.table,
        "longer": studies.longer_table,
        "speedruns": run_tables.speed_table,
        "calibration": trust_tables.calibration_table,
        "harder": trust_tables.harder_table,
        "resolution": studies.resolution_table,
        "fewer": studies.images_table,
        "search": functools.partial(searches.table, name="search", baseline="final"),
        "search_longer": functools.partial(searches.table, name="search_longer", baseline="final"),
        "search_speedrun": functools.partial(searches.table, name="search_speedrun"),
        "notes": run_tables.notes,
        "runs": run_tables.runs_table,
    },
    f"{places.BOX}/{box.CARD}": {"figures": lambda _: box.table()},
}
PICTURES = {
    "docs/accuracy.svg": picture.draw,
    "docs/curves.svg": picture.draw_curves,
    "docs/resolution.svg": picture.draw_resolution,
    "docs/fewer_images.svg": picture.draw_fewer_images,
}


def classification_reports(results: pathlib.Path) -> str:
    """`results/README.md`: precision, recall and F1 by class, mean over the seeds of a config."""
    lines = [
        "# Classification reports",
        "",
        "On the 10,000 test images, mean over a config's seeds. `make results` writes this page.",
        "",
        "| in a run's directory | what |",
        "|---|---|",
        "| `config.json`, `environment.json` | what ran, where, by which command |",
        "| `metrics.jsonl`, `result.json` | the figures |",
        "| `predictions.npz` | test logits and labels: the test figures can be computed from them "
        "again; runs before 26 November 2026 lack it |",
        "",
        "`python main.py --mode=report --workdir=results/final/seed-0` makes a page of a run. "
        "`python -m tools.results --add=WORKDIR` adds a run.",
    ]
    for name, runs in run_tables.configs(results):
        reports = run_tables.figures(runs, "classification_report")
        reported = reference.FINAL_CLASSES if name == "final" else ()
        titles = ["class", "precision", "recall", "f1-score", "support"]
        titles += ["the report's precision", "recall", "f1-score"] * bool(reported)
        accuracy = run_tables.spread(run_tables.figures(runs, "test_accuracy"))
        seeds = ", ".join(str(run.config.seed) for run in runs)
        lines += ["", f"## {name}", "", f"Accuracy {accuracy} %; seeds: {seeds}.", ""]
        for note in published.notes(results / name, "../docs/"):
            lines += [note, ""]
        rows = []
        for i, label in enumerate(reports[0]):
            means = (
                statistics.mean(report[label][key] for report in reports)
                for key in ("precision", "recall", "f1-score")
            )
            cells = [terminal.cell(label), *(f"{mean:.4f}" for mean in means)]
            cells.append(f"{reports[0][label]['support']:,.0f}")
            if reported:
                cells += [f"{v:.2f}" for v in reported[i]] if i < len(reported) else [""] * 3
            rows.append(cells)
        lines.append(run_tables.markdown(titles, rows))
    return "\n".join(lines) + "\n"


def updated(text: str, page: str, results: pathlib.Path) -> str:
    """The text of `page`, a key of `PAGES`, with its tables made anew."""
    for name, make in PAGES[page].items():
        text = between(text, name, make(results))
    return text


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` in place of what stands between the markers of this name."""
    begin, end = f"<!-- {name}: begin, by `make results` -->", f"<!-- {name}: end -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{content}\n{end}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument(
        "--add", metavar="WORKDIR", type=pathlib.Path, help="a finished run or search"
    )
    options, results = parser.parse_args(arguments), ROOT / "results"
    try:
        if options.add:
            is_search = (options.add / search.WORKERS).exists()
            add = published.add_search if is_search else published.add
            say(printable(add(options.add, results)))
        texts = {
            "results/README.md": classification_reports(results),
            **{page: draw(results) for page, draw in PICTURES.items()},
        }
        for page in PAGES:
            texts[page] = updated((ROOT / page).read_text(), page, results)
    except UserError as error:
        say(f"error: {printable(error)}", sys.stderr)
        return BAD_INPUT
    for page, text in texts.items():
        (ROOT / page).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
