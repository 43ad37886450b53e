"""Evidence of published runs under results/: copies it there and checks that it is consistent.

The evidence is part of the run's workdir. From `predictions.npz` anyone can compute the figures.
"""

import pathlib
import shlex
import shutil
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics
from cifar_jax.config import files as config_files
from cifar_jax.config import keys
from cifar_jax.errors import UserError
from cifar_jax.pages import reference
from cifar_jax.report import evidence
from cifar_jax.report.evidence import Run
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
OPTIONAL = (files.INIT, files.ROBUSTNESS, f"{files.EXPORT}/model.int8.json")
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
      UserError: the run is not finished, its tree had uncommitted changes, its command overrides
        its config, it lacks a file, its files contradict each other, or that seed has evidence
        already.
    """
    run = evidence.load(epath.Path(workdir))
    if run.result is None:
        raise UserError(f"the run in {workdir} has not finished: resume it with --mode=train")
    missing = [name for name in REQUIRED if not (workdir / name).exists()]
    if missing:
        raise UserError(f"{', '.join(missing)} is missing in {workdir}: --mode=evaluate writes it")
    starts = run.environment.get("starts", [])
    if not starts or any(
        start["git_commit"] is None or start["git_dirty"] is not False for start in starts
    ):
        raise UserError(
            f"the run in {workdir} was not started from a clean commit, so nobody can repeat it: "
            "commit your changes and train in a new workdir"
        )
    name = reference.config_name(run.command)
    if name is None:
        raise UserError(f"{files.ENVIRONMENT} in {workdir} names no --config=NAME.py")
    # Its seed has a directory of its own, and what depends on the machine changes no result.
    free = {leaf.name for leaf in keys.leaves(run.config) if leaf.key.machine} | {"seed", "seeds"}
    changed = set(config_files.overridden(shlex.split(run.command))) - free
    if changed:
        raise UserError(
            f"the command of the run in {workdir} overrides config.{min(changed)}, so it is no run "
            f"of {name}: write a config with that value, and train in a new workdir"
        )
    check(run)
    home = results.joinpath(*name.split(":"), f"seed-{run.config.seed}")
    if home.exists():
        raise UserError(
            f"{home} has evidence already: remove it, and note in {home.parent / NOTES} that the "
            "test set was read before"
        )
    # Copied under another name, then renamed: there is never half of the evidence.
    partial = home.with_name(f".{home.name}")
    with files.writing(home):
        shutil.rmtree(partial, ignore_errors=True)
        for path in (*REQUIRED, *OPTIONAL):
            if (workdir / path).exists():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(workdir / path, partial / path)
        return partial.rename(home)


def notes(config_results: pathlib.Path, docs: str) -> list[str]:
    """The notes on a config's figures; [] if there are none.

    Args:
      docs: where docs/ is, seen from the page that shows the notes: "", "docs/", "../docs/".
    """
    path = config_results / NOTES
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.replace("](../../docs/", f"]({docs}") for line in lines if line and line[0] != "#"]
