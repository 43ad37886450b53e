"""The evidence of published runs under results/: how it gets there, and that it agrees.

A run's evidence is a part of its workdir. `predictions.npz` lets anyone compute the figures again.
"""

import pathlib
import shutil
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics
from cifar_jax.errors import UserError
from cifar_jax.report import evidence, reference
from cifar_jax.report.evidence import Run
from cifar_jax.runtime import workdir as files

NOTES = "notes.md"  # of a config: what is to be known of its figures, a line each
REQUIRED = (
    files.CONFIG,
    files.DATA,
    files.ENVIRONMENT,
    files.METRICS,
    files.RESULT,
    files.PREDICTIONS,
)
OPTIONAL = (files.ROBUSTNESS, f"{files.EXPORT}/model.int8.json")
# Of figures recomputed in float64: sums in another order, by another version of numpy.
_ROUNDING = 1e-9


def check(run: Run) -> None:
    """Computes the test figures again from the predictions, where those are kept.

    Raises:
      UserError: they are not those of the result.
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
                f"{key}{shown}: --mode=evaluate makes both again in the workdir of the run"
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
      That directory.

    Raises:
      UserError: the run is not finished, comes from a tree with changes, lacks a file or disagrees
        with itself; or there is evidence of that seed already.
    """
    run = evidence.load(epath.Path(workdir))
    if run.result is None:
        raise UserError(f"the run in {workdir} has not finished: go on with --mode=train first")
    missing = [name for name in REQUIRED if not (workdir / name).exists()]
    if missing:
        raise UserError(f"{', '.join(missing)} is missing in {workdir}: --mode=evaluate writes it")
    starts = run.environment.get("starts", [])
    if not starts or any(
        start["git_commit"] is None or start["git_dirty"] is not False for start in starts
    ):
        raise UserError(
            f"the run in {workdir} comes from no commit, or from a tree with changes, so nobody "
            "can make it again: commit, and train in a new workdir"
        )
    name = reference.config_name(run.command)
    if name is None:
        raise UserError(f"{files.ENVIRONMENT} in {workdir} names no --config=NAME.py")
    check(run)
    home = results / name / f"seed-{run.config.seed}"
    if home.exists():
        raise UserError(
            f"{home} has evidence already: remove it first, and say in {home.parent / NOTES} that "
            "the test set was read before"
        )
    # Under another name first, so that there is never half of the evidence.
    partial = home.with_name(f".{home.name}")
    with files.writing(home):
        shutil.rmtree(partial, ignore_errors=True)
        for path in (*REQUIRED, *OPTIONAL):
            if (workdir / path).exists():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(workdir / path, partial / path)
        return partial.rename(home)


def notes(config_results: pathlib.Path) -> list[str]:
    """The notes on a config's figures; [] where there are none."""
    path = config_results / NOTES
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line and not line.startswith("#")]
