"""Evidence of published runs under results/: copies it there and checks that it is consistent.

The evidence is part of the run's workdir. From `predictions.npz` anyone can compute the figures.
"""

import pathlib
import re
import shutil
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics, search
from cifar_jax.errors import UserError
from cifar_jax.pages import reference
from cifar_jax.report import evidence
from cifar_jax.report.evidence import Run
from cifar_jax.runtime import checked, workdir_schema
from cifar_jax.runtime import workdir as files

NOTES = "notes.md"  # of a config: what a reader of its figures must know, a line each
REQUIRED = (
    files.CONFIG,
    files.DATA,
    files.ENVIRONMENT,
    files.METRICS,
    files.RESULT,
    files.PREDICTIONS,
)
FOUND = "found"  # the directory of a search's evidence, beside the runs of its config
SEARCHED = (search.BEST, search.TABLE, search.PARETO, search.WORKERS)
OPTIONAL = (files.INIT, files.ROBUSTNESS, f"{files.EXPORT}/model.int8.json")
_TEXT = (".json", ".py")
# Between figures in float64: another version of numpy may add in another order.
_ROUNDING = 1e-9


def check(run: Run) -> None:
    """Computes the test figures from the predictions again, if those were kept.

    Raises:
      UserError: they differ from those in the result.
    """
    if run.predictions is None or run.result is None:
        return
    logits, labels = run.predictions
    names = tuple(run.result["class_counts"]["test"])
    again: dict[str, Any] = {
        "test_examples": len(labels),
        "test_accuracy": metrics.accuracy(logits, labels),
        "test_loss": metrics.cross_entropy(logits, labels),
        **metrics.classification_figures(logits, labels, names),
    }
    if temperature := run.result.get("temperature"):
        scaled = metrics.calibration(logits / temperature, labels)
        again["scaled_calibration_error"] = scaled.expected_error
    for key, value in again.items():
        if not _same(value, run.result[key]):
            shown = "" if isinstance(value, (dict, list)) else f": {value} and {run.result[key]}"
            raise UserError(
                f"{files.PREDICTIONS} and {files.RESULT} of {run.workdir} disagree in "
                f"{key}{shown}: run --mode=evaluate in the run's workdir, which writes both again"
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(_same(one[key], other[key]) for key in one)
        )
    same_shape = np.shape(one) == np.shape(other)
    return same_shape and bool(np.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING))


def add(workdir: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Copies the evidence of a finished run to `results`/CONFIG/seed-N.

    Returns:
      That directory; of `--config=FILE:ARGUMENT`, `results`/FILE/ARGUMENT/seed-N.

    Raises:
      UserError: see `publishable`; or that seed has evidence already.
    """
    run, name = publishable(workdir)
    home = results.joinpath(*name.split(":"), f"seed-{run.config.seed}")
    if home.exists():
        raise UserError(
            f"{home} has evidence already: remove it, and note in {home.parent / NOTES} that the "
            "test set was read before"
        )
    return _copied(workdir, home, list(map(pathlib.Path, (*REQUIRED, *OPTIONAL))))


def publishable(workdir: pathlib.Path) -> tuple[Run, str]:
    """A finished run and the name of its config, as in `results`.

    Raises:
      UserError: the run is not finished, its tree had uncommitted changes, its command overrides
        its config, it lacks a file, or its files contradict each other.
    """
    run = evidence.load(epath.Path(workdir))
    if run.result is None:
        raise UserError(f"the run in {workdir} has not finished: resume it with --mode=train")
    missing = [name for name in REQUIRED if not (workdir / name).exists()]
    if missing:
        raise UserError(f"{', '.join(missing)} is missing in {workdir}: --mode=evaluate writes it")
    name = _origin(workdir, run.environment.get("starts", []))
    check(run)
    return run, name


def add_search(workdir: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """Copies the evidence of a search to `results`/CONFIG/found.

    Raises:
      UserError: as of a run; or that search has evidence already.
    """
    workers = checked.read_json(epath.Path(workdir) / search.WORKERS, workdir_schema.WORKERS)
    home = results / _origin(workdir, workers) / FOUND
    if home.exists():
        raise UserError(f"{home} has evidence already: remove it to replace it")
    found = [path.relative_to(workdir) for path in sorted((workdir / search.FRONT).glob("*.py"))]
    return _copied(workdir, home, [*map(pathlib.Path, SEARCHED), *found])


def _origin(workdir: pathlib.Path, starts: list[dict[str, Any]]) -> str:
    """The name of the config that made `workdir`, from what its processes noted when they started.

    Raises:
      UserError: the tree had uncommitted changes, or the command overrides the config.
    """
    if not starts or any(
        start["git_commit"] is None or start["git_dirty"] is not False for start in starts
    ):
        raise UserError(
            f"what is in {workdir} was not made from a clean commit, so nobody can repeat it: "
            "commit your changes and begin again in a new workdir"
        )
    command = starts[0]["command"]
    name = reference.config_name(command)
    if name is None:
        raise UserError(f"the command in {workdir} names no --config=NAME.py: {command}")
    changed = reference.departures(command)
    if changed:
        raise UserError(
            f"the command in {workdir} overrides config.{changed[0]}, so it is no run "
            f"of {name}: write a config with that value, and train in a new workdir"
        )
    return name


def _copied(workdir: pathlib.Path, home: pathlib.Path, paths: list[pathlib.Path]) -> pathlib.Path:
    """Copies those of `paths` that exist, under another name first: there is never half of it."""
    partial = home.with_name(f".{home.name}")
    with files.writing(home):
        shutil.rmtree(partial, ignore_errors=True)
        for path in paths:
            if (workdir / path).exists():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(workdir / path, partial / path)
                if path.suffix in _TEXT:
                    text = without_places((partial / path).read_text(), workdir)
                    (partial / path).write_text(text)
        return partial.rename(home)


def without_places(text: str, workdir: pathlib.Path) -> str:
    """`text` as if the run had been in runs/, and packages nowhere: paths of a machine say nothing
    to others."""
    text = text.replace(str(workdir.absolute()), f"runs/{workdir.name}")
    return re.sub(r"/[^\s\"]*/site-packages/", "", text)


def notes(config_results: pathlib.Path, docs: str) -> list[str]:
    """The notes on a config's figures; [] if there are none.

    Args:
      docs: where docs/ is, seen from the page that shows the notes: "", "docs/", "../docs/".
    """
    path = config_results / NOTES
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.replace("](../../docs/", f"]({docs}") for line in lines if line and line[0] != "#"]
