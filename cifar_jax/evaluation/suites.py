"""`--mode=evaluate --suite=SUITE`: tests a finished run on images unlike those of its training.

Each suite writes its own entry into the workdir's `robustness.json` and keeps the others:

    {suite: {
        "title": name of the suite, "description": how its images were made, both for display,
        "epoch": the epoch whose parameters were tested,
        "images": {row: number of images tested},
        "clean_accuracy": accuracy in [0, 1] on the same number of the data set's own test images,
        "clean_images": their number,
        "columns": what the columns stand for,
        "accuracy": {row: {column: accuracy in [0, 1]}},
        "mean_accuracy": {column: mean over the rows}, for the corruption suites only,
    }}

| suite | rows | columns |
|---|---|---|
| corruptions, cifar10_corrupted | corruption | severity, "1" to "5" |
| cifar10_1 | version, "v4" and "v6" | data set, "CIFAR-10.1" |
| adversarial | attack | eps, the largest change of a pixel: "2/255" and "8/255" |

There is no test-time augmentation. A test on fewer images takes the first ones of the test set: it
is sorted by image digest, so they are as good as a random sample.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from cifar_jax import metrics
from cifar_jax.data import archive, batches, corruptions
from cifar_jax.errors import UserError
from cifar_jax.evaluation import adversarial, trained
from cifar_jax.evaluation.trained import Trained
from cifar_jax.runtime import compilation, distributed, settings, sharding
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_or_set_aside
from cifar_jax.runtime.workdir_schema import ROBUSTNESS
from cifar_jax.training import claim, run_data

_SEED = 0
_ADVERSARIAL_IMAGES = 1000  # by default, because PGD takes many steps per image
_EPS = {"2/255": 2 / 255, "8/255": 8 / 255}
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}

# Images [N, H, W, C] uint8 and labels [N] int32.
Examples = tuple[np.ndarray, np.ndarray]
# Row, column, logits [N, K], labels [N].
Cells = Iterator[tuple[str, str, np.ndarray, np.ndarray]]


@settings.pinned()
def run(
    workdir: epath.Path, suite: str, count: int | None = None, data_dir: str = ""
) -> dict[str, Any]:
    """Tests the finished run in `workdir` on one suite.

    Args:
      suite: one of `SUITES`.
      count: test only this many images; None: all, or 1,000 for the adversarial suite.
      data_dir: where this machine keeps the data; "": where the config says.

    Returns:
      The suite's entry in `robustness.json`.

    Raises:
      UserError: there is no finished run, or the suite's images are missing or of other classes.
    """
    claim.load_config(workdir)  # raises the right error if this is not the workdir of a run
    if not (workdir / files.RESULT).exists():
        raise UserError(f"the run in {workdir} has not finished: run --mode=train first")
    network = trained.load(workdir, data_dir)
    if suite == "adversarial" and count is None:
        count = _ADVERSARIAL_IMAGES
    chosen = SUITES[suite]
    dataset = network.dataset()
    task = _Task(network, (dataset.test_images[:count], dataset.test_labels[:count]), count)
    accuracy: dict[str, dict[str, float]] = {}
    images: dict[str, int] = {}
    bar = tqdm(chosen.cells(task), suite, total=chosen.number, disable=None, leave=False)
    for row, column, logits, labels in bar:
        accuracy.setdefault(row, {})[column] = metrics.accuracy(logits, labels)
        images[row] = len(labels)
    entry = {
        "title": chosen.title,
        "description": chosen.description,
        "epoch": network.epoch,
        "images": images,
        "clean_accuracy": metrics.accuracy(task.network.logits(task.clean[0]), task.clean[1]),
        "clean_images": len(task.clean[1]),
        "columns": chosen.columns,
        "accuracy": accuracy,
    }
    if tuple(accuracy) == corruptions.NAMES:
        severities = map(str, corruptions.SEVERITIES)
        entry["mean_accuracy"] = {
            s: float(np.mean([row[s] for row in accuracy.values()])) for s in severities
        }
    if distributed.is_writer():
        path = workdir / files.ROBUSTNESS
        others = read_or_set_aside(path, ROBUSTNESS) or {}
        files.write_json(path, others | {suite: entry})
    return entry


@dataclasses.dataclass(frozen=True)
class _Task:
    """The network to test, and its own test images."""

    network: Trained
    clean: Examples  # the first `count` of the data set's test split
    count: int | None

    def published(self, name: str) -> Examples:
        """The first `count` images of the TFDS data set `name`, which has CIFAR-10's classes."""
        from cifar_jax.data import tfds_source

        if self.network.class_names != archive.CLASS_NAMES:
            raise UserError(
                f"{name} has the classes of CIFAR-10, but the run in {self.network.workdir} has "
                "others: use --suite=corruptions"
            )
        directory = run_data.tfds_directory(self.network.config.data, name)
        images, labels = tfds_source.read_test(name, directory)
        return images[: self.count], labels[: self.count]


# ---------------------------------------------------------------------------- the suites
def _corruptions(task: _Task) -> Cells:
    images, labels = task.clean
    for name, severity in itertools.product(corruptions.NAMES, corruptions.SEVERITIES):
        corrupted = corruptions.corrupt(images, name, severity, _SEED)
        yield name, str(severity), task.network.logits(corrupted), labels


def _cifar10_corrupted(task: _Task) -> Cells:
    for name, severity in itertools.product(corruptions.NAMES, corruptions.SEVERITIES):
        published = f"cifar10_corrupted/{_TFDS_NAMES.get(name, name)}_{severity}"
        images, labels = task.published(published)
        yield name, str(severity), task.network.logits(images), labels


def _cifar10_1(task: _Task) -> Cells:
    for version in ("v4", "v6"):
        images, labels = task.published(f"cifar10_1/{version}")
        yield version, "CIFAR-10.1", task.network.logits(images), labels


def _adversarial(task: _Task) -> Cells:
    network, (images, labels) = task.network, task.clean
    mesh = sharding.make_mesh()
    spread = functools.partial(jax.device_put, device=sharding.batch_sharding(mesh))
    logits_of = compilation.jit(network.apply_pixels, out_shardings=sharding.replicated(mesh))
    step = adversarial.make_step(network.apply_pixels, network.variables)
    plan = batches.padded_batches(len(labels), sharding.even(network.config.eval.batch_size, mesh))
    pgd = functools.partial(adversarial.pgd, key=jax.random.key(_SEED))
    attacks = {"FGSM": adversarial.fgsm, "PGD": pgd}
    for (name, attack), (eps_name, eps) in itertools.product(attacks.items(), _EPS.items()):
        parts = []
        for batch in plan:
            pixels, targets = spread((images[batch].astype(np.float32) / 255, labels[batch]))
            attacked = attack(step, pixels, targets, eps)
            parts.append(np.asarray(logits_of(network.variables, attacked)))
        yield name, eps_name, np.concatenate(parts)[: len(labels)], labels


class _Suite(NamedTuple):
    title: str
    description: str
    columns: str
    cells: Callable[[_Task], Cells]
    number: int  # of cells


SUITES = {
    "corruptions": _Suite(
        "CIFAR-10-C style corruptions",
        "Recomputed from the published parameters, with a fixed seed and a synthetic frost "
        "texture: good for comparing networks, but not with figures on the published files.",
        "severity",
        _corruptions,
        75,
    ),
    "cifar10_corrupted": _Suite(
        "CIFAR-10-C",
        "The published files (Hendrycks and Dietterich 2019), through TFDS.",
        "severity",
        _cifar10_corrupted,
        75,
    ),
    "cifar10_1": _Suite(
        "CIFAR-10.1",
        "New photographs, collected as CIFAR-10's were (Recht et al. 2018), through TFDS.",
        "data set",
        _cifar10_1,
        2,
    ),
    "adversarial": _Suite(
        "Adversarial images",
        "White-box attacks that change no pixel, in [0, 1], by more than eps. FGSM (Goodfellow et "
        f"al. 2015) takes one step of eps; PGD (Madry et al. 2018) {adversarial.PGD_STEPS} steps "
        "of eps / 4 from one random start.",
        "eps",
        _adversarial,
        4,
    ),
}


# ---------------------------------------------------------------------------- display
def label(row: str) -> str:
    """The name of a row for readers: "JPEG compression" for jpeg_compression."""
    words = row.replace("_", " ").replace("jpeg", "JPEG")
    return words[:1].upper() + words[1:] if row in corruptions.NAMES else words


def percentages(entry: dict[str, Any]) -> list[list[str]]:
    """The entry as table rows, header first; the corruption suites also get means."""
    rows, means = dict(entry["accuracy"]), entry.get("mean_accuracy")
    columns = list(next(iter(rows.values())))
    if means:
        rows["mean"] = means
    table = [[entry["columns"], *columns, *(["mean"] if means else [])]]
    for name, row in rows.items():
        values = [row[column] for column in columns]
        values += [float(np.mean(values))] if means else []
        table.append([label(name), *(f"{100 * value:.2f}" for value in values)])
    return table


def tested(entry: dict[str, Any]) -> str:
    """What an entry was measured on, as in "10,000 images; clean 86.80 %"."""
    least, most = min(entry["images"].values()), max(entry["images"].values())
    number = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    clean = f"clean {100 * entry['clean_accuracy']:.2f} %"
    if not least == most == entry["clean_images"]:
        clean += f" on {entry['clean_images']:,}"
    return f"{number} images; {clean}"


def describe(entry: dict[str, Any]) -> str:
    """The entry as a text table."""
    table = percentages(entry)
    width = max(len(row[0]) for row in table)
    lines = [f"{name:{width}}" + "".join(f"{v:>11}" for v in values) for name, *values in table]
    return "\n".join(
        [entry["title"], entry["description"], f"accuracy % on {tested(entry)}", *lines]
    )
