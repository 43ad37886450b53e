"""`--mode=evaluate --suite=SUITE`: how a finished run does on images that are not as trained on.

Every suite gets its place in the workdir's `robustness.json`, beside those that were there:

    {suite: {
        "title": what it is, "description": how it was made, both for a person,
        "epoch": whose parameters were tested,
        "images": {row: number of images tested},
        "clean_accuracy": on as many of the data set's own test images,
        "clean_images": their number,
        "columns": what they are,
        "accuracy": {row: {column: accuracy in [0, 1]}},
        "mean_accuracy": {column: mean over the rows}, of the suites of corruptions only,
    }}

| suite | rows | columns |
|---|---|---|
| corruptions, cifar10_corrupted | the corruption | severity, "1" to "5" |
| cifar10_1 | the version, "v4" and "v6" | data set, "CIFAR-10.1" |
| adversarial | the attack | eps, the largest change of a pixel: "2/255" and "8/255" |

Without test-time augmentation. Fewer images are the first ones of the test set, which is ordered
by its images' digests: as good as drawn.
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
from cifar_jax.training import run_data

_SEED = 0
_ADVERSARIAL_IMAGES = 1000  # by default: PGD costs many steps an image
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
      count: test the first so many images only; None: all, or 1,000 where `suite` is adversarial.
      data_dir: where this machine has the data, by `run_data.place`; "": where the config says.

    Returns:
      The suite's entry in `robustness.json`.

    Raises:
      UserError: there is no finished run, or the suite's images are missing or not for it.
    """
    files.load_config(workdir)  # says what else the workdir may be
    if not (workdir / files.RESULT).exists():
        raise UserError(f"the run in {workdir} has not finished: go on with --mode=train first")
    network = trained.load(workdir)
    run_data.place(network.config, data_dir)
    if suite == "adversarial" and count is None:
        count = _ADVERSARIAL_IMAGES
    about = SUITES[suite]
    dataset = run_data.load(network.config, workdir)
    task = _Task(network, (dataset.test_images[:count], dataset.test_labels[:count]), count)
    accuracy: dict[str, dict[str, float]] = {}
    images: dict[str, int] = {}
    bar = tqdm(about.cells(task), suite, total=about.number, disable=None, leave=False)
    for row, column, logits, labels in bar:
        accuracy.setdefault(row, {})[column] = metrics.accuracy(logits, labels)
        images[row] = len(labels)
    entry = {
        "title": about.title,
        "description": about.description,
        "epoch": network.epoch,
        "images": images,
        "clean_accuracy": metrics.accuracy(task.network.logits(task.clean[0]), task.clean[1]),
        "clean_images": len(task.clean[1]),
        "columns": about.columns,
        "accuracy": accuracy,
    }
    if tuple(accuracy) == corruptions.NAMES:
        severities = map(str, corruptions.SEVERITIES)
        entry["mean_accuracy"] = {
            s: float(np.mean([row[s] for row in accuracy.values()])) for s in severities
        }
    if distributed.is_writer():
        path = workdir / files.ROBUSTNESS
        known = read_or_set_aside(path, ROBUSTNESS)
        files.write_json(path, (known or {}) | {suite: entry})
    return entry


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a suite tests, and on what."""

    network: Trained
    clean: Examples  # of the data set's own test split, the first `count`
    count: int | None

    def published(self, name: str) -> Examples:
        """The first images of a test set of CIFAR-10's classes, from TFDS' directory."""
        from cifar_jax.data import tfds_source

        if self.network.class_names != archive.CLASS_NAMES:
            raise UserError(
                f"{name} has the classes of CIFAR-10, and the run in {self.network.workdir} knows "
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
        "Computed anew from the published parameters, with a fixed seed and a synthetic texture "
        "for frost: to compare networks by, not with figures on the published files.",
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
        "New photographs, gathered as CIFAR-10's were (Recht et al. 2018), through TFDS.",
        "data set",
        _cifar10_1,
        2,
    ),
    "adversarial": _Suite(
        "Adversarial images",
        "No pixel is changed by more than eps, of 1; the network is known. FGSM (Goodfellow et al. "
        f"2015) takes one step of eps; PGD (Madry et al. 2018) {adversarial.PGD_STEPS} of eps / 4, "
        "from one random start.",
        "eps",
        _adversarial,
        4,
    ),
}


# ---------------------------------------------------------------------------- for a person
def percentages(entry: dict[str, Any]) -> list[list[str]]:
    """The table of an entry, its header first; with means of corruptions."""
    rows, means = dict(entry["accuracy"]), entry.get("mean_accuracy")
    columns = list(next(iter(rows.values())))
    if means:
        rows["mean"] = means
    table = [[entry["columns"], *columns, *(["mean"] if means else [])]]
    for name, row in rows.items():
        values = [row[column] for column in columns]
        values += [float(np.mean(values))] if means else []
        table.append([name, *(f"{100 * value:.2f}" for value in values)])
    return table


def tested(entry: dict[str, Any]) -> str:
    """ "10,000 images; clean 86.80 %": on what an entry was measured."""
    few, many = min(entry["images"].values()), max(entry["images"].values())
    number = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    clean = f"clean {100 * entry['clean_accuracy']:.2f} %"
    if few != entry["clean_images"] or few != many:
        clean += f" on {entry['clean_images']:,}"
    return f"{number} images; {clean}"


def describe(entry: dict[str, Any]) -> str:
    """An entry in a short table, for a person."""
    table = percentages(entry)
    width = max(len(row[0]) for row in table)
    lines = [f"{name:{width}}" + "".join(f"{v:>11}" for v in values) for name, *values in table]
    return "\n".join(
        [entry["title"], entry["description"], f"accuracy % on {tested(entry)}", *lines]
    )
