"""`--mode=evaluate --images=DIR`: tests a run on image files that are sorted by class."""

import pathlib
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics
from cifar_jax.data import folder
from cifar_jax.errors import UserError
from cifar_jax.evaluation import trained
from cifar_jax.training import test


def run(workdir: epath.Path, directory: pathlib.Path) -> dict[str, Any]:
    """Classifies the images in `directory`/CLASS, for some or all classes of the run.

    Returns:
      The number of images, accuracy, and what `metrics.classification_figures` returns, for the
      classes that have images.

    Raises:
      UserError: there is no trained network, a directory is no class of it, there is no image, or
        one cannot be decoded.
    """
    network = trained.load(workdir)
    names = folder.classes(directory)
    if strangers := set(names) - set(network.class_names):
        raise UserError(
            f"{directory / min(strangers)} is no class of the run: its classes are "
            f"{', '.join(network.class_names)}"
        )
    files = folder.files(directory, names)
    if not files:
        raise UserError(f"{directory} needs a directory of images for each class, such as cat/")
    size = network.config.eval.batch_size
    parts = [
        network.logits(
            folder.decode([path for path, _ in files[at : at + size]], network.image_shape)
        )
        for at in range(0, len(files), size)
    ]
    logits = np.concatenate(parts)
    labels = np.array([network.class_names.index(names[i]) for _, i in files], np.int32)
    figures = metrics.classification_figures(logits, labels, network.class_names)
    return {"images": len(files), "accuracy": metrics.accuracy(logits, labels), **figures}


def describe(figures: dict[str, Any]) -> str:
    """The figures of the classes that have images, as text."""
    report = figures["classification_report"]
    shown = {name: row for name, row in report.items() if row["support"]}
    if len(shown) < len(report):  # a mean over all classes would count those without images as 0
        shown = {name: row for name, row in shown.items() if not name.startswith("macro avg")}
    return (
        f"{test.class_table(shown)}\naccuracy {figures['accuracy']:.4f} on {figures['images']:,} "
        f"images; calibration error {figures['expected_calibration_error']:.4f}"
    )
