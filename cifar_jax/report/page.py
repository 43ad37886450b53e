"""`--mode=report`: writes a page about one run, or a page that compares several."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics, pages
from cifar_jax.config import keys
from cifar_jax.data import augment
from cifar_jax.errors import UserError
from cifar_jax.evaluation import suites as robustness
from cifar_jax.models import summary
from cifar_jax.pages import reference
from cifar_jax.report import evidence, figures, pictures
from cifar_jax.report.evidence import Run
from cifar_jax.report.galleries import Gallery
from cifar_jax.runtime import workdir as files
from cifar_jax.training import experiment, run_data
from cifar_jax.training.experiment import Experiment

_log = logging.getLogger(__name__)
# Marks of a page that this program wrote and may replace; pages of before the first mark have
# the second.
_GENERATOR = b'<meta name="generator" content="cifar-jax">'
_TITLE = b"<title>Comparison of runs</title>"
_CONFUSIONS = 20  # rows in the table of the most frequent confusions

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def run(workdir: epath.Path, data_dir: str = "") -> epath.Path:
    """Writes `report.html` for the run in `workdir`, finished or not.

    Nothing is downloaded for a report. If the data set cannot be loaded, the page says so and
    leaves out the parts that need it.

    Args:
      data_dir: where this machine keeps the data; "": where the config says.

    Returns:
      The page's path.

    Raises:
      UserError: there is no run, it has not finished an epoch yet, a file is damaged, or the data
        found here are not the run's.
    """
    run = evidence.load(workdir)
    data = run_data.placed(dataclasses.replace(run.config.data, download=False), data_dir)
    exp, reason = None, ""
    try:
        dataset = run_data.load(data, run.config.seed, workdir)
        exp = experiment.build(run.config, dataset)
    except run_data.OtherData:
        raise
    except UserError as error:
        reason = str(error).splitlines()[0]
        _log.warning("the report leaves out layers and pictures: %s", reason)
    return _write(run, exp, reason)


def write(workdir: epath.Path, exp: Experiment) -> epath.Path:
    """Writes `report.html` and TensorBoard's pictures for a finished run.

    Args:
      exp: the experiment of the run in `workdir`.
    """
    run = evidence.load(workdir)
    pictures.add(run, exp)
    return _write(run, exp, "")


def _write(run: Run, exp: Experiment | None, reason: str) -> epath.Path:
    """Writes the page; where `exp` is None, without the parts that need the data set (`reason`)."""
    result = run.result or {}
    context: dict[str, Any] = {
        "title": run.name,
        "reason": reason,
        "reported": reference.REPORTED,
        "curves": _curves(run),
        "counts": exp.class_counts() if exp else result.get("class_counts"),
        "layers": None,
        "augmentations": augment.names(run.config.augment),
        "gallery": None,
        "bins": None,
        "confusions": [],
        "config": keys.flat(run.config),
    }
    context["suites"] = [
        (entry, robustness.tested(entry), robustness.percentages(entry), figures.robustness(entry))
        for entry in run.robustness.values()
    ]
    context["distribution"] = context["counts"] and figures.class_distribution(context["counts"])
    if exp:
        context["layers"] = summary.layers(exp.model, exp.dataset.train_images.shape[1:])
    if result:
        classes = _class_names(result)
        context["confusion"] = figures.confusion(result["confusion_matrix"], classes)
        context["confusions"] = _confusions(result["confusion_matrix"], classes)
    if result and run.predictions:
        context["reliability"] = figures.reliability(metrics.calibration(*run.predictions))
        (_, labels), classes = run.predictions, _class_names(result)
        if exp and exp.dataset.class_names == classes and np.array_equal(exp.test[1], labels):
            context["gallery"] = Gallery(exp.test[0], *run.predictions, classes)
    return pages.write(run.workdir / files.REPORT, _TEMPLATES / "run.html", run=run, **context)


def compare(workdirs: Sequence[epath.Path], directory: epath.Path) -> epath.Path:
    """Writes `comparison.html`, about several runs, into `directory`.

    Raises:
      UserError: a workdir has no run, or a run without a finished epoch; the runs have different
        classes; or `directory` has a `comparison.html` that this program did not write.
    """
    path = directory / files.COMPARISON
    if path.is_file() and not any(mark in path.read_bytes() for mark in (_GENERATOR, _TITLE)):
        raise UserError(f"{path} is not a page of this program: move it, or change --workdir")
    runs = [evidence.load(workdir) for workdir in workdirs]
    finished = [run for run in runs if run.result]
    classes = {_class_names(run.result): run.name for run in finished if run.result}
    if len(classes) > 1:
        raise UserError(
            f"{' and '.join(classes.values())} have different classes: compare runs on one data set"
        )
    return pages.write(
        path,
        _TEMPLATES / "comparison.html",
        title="Comparison of runs",
        runs=runs,
        finished=finished,
        class_names=next(iter(classes), ()),
        reported=reference.REPORTED,
        differences=keys.differing([run.config for run in runs], "–"),
        curves=[
            figures.overlay(runs, "accuracy", "accuracy"),
            figures.overlay(runs, "loss", "cross-entropy, nats"),
        ],
    )


def _curves(run: Run) -> list[Any]:
    drawn = [
        figures.curves(run, "accuracy", "accuracy"),
        figures.curves(run, "loss", "cross-entropy, nats", legend=False),
    ]
    if any(row["train_objective"] != row["train_loss"] for row in run.rows):
        drawn.append(figures.curves(run, "objective", "loss + L2 penalty", legend=False))
    return [*drawn, figures.learning_rate(run)]


def _class_names(result: dict[str, Any]) -> tuple[str, ...]:
    return tuple(result["class_counts"]["test"])


def _confusions(matrix: list[list[int]], classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """(true class, predicted class, number of images) of the errors, most frequent first."""
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(classes[int(i)], classes[int(j)], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]
