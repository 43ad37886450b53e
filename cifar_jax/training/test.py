"""The test at the end of a run: every image counts exactly once, for any batch size."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from cifar_jax import metrics
from cifar_jax.errors import UserError
from cifar_jax.models import summary
from cifar_jax.runtime import distributed, metrics_writer, settings
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_if_sound
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.runtime.workdir_schema import RESULT
from cifar_jax.terminal import label
from cifar_jax.training import best, claim, features, forward, run_data, steps
from cifar_jax.training.experiment import Experiment, build

# How many training images the test also scores, without augmentation and dropout: the first ones,
# since the data set is shuffled. Scoring all of them would take almost as long as an epoch.
TRAINING_IMAGES = 10_000


def _with_tta(exp: Experiment, variables: dict, plain: dict[str, np.ndarray]) -> dict[str, float]:
    """The accuracies with test-time augmentation; {} if the config has none.

    Args:
      plain: the logits of the splits without it.
    """
    figures, options = {}, exp.config.eval
    if options.tta != "none":
        eval_step = steps.make_eval_step(exp.model, exp.statistics, exp.mesh, options.tta)
        for name, logits in plain.items():
            images, labels = getattr(exp, name)
            unsure = metrics.least_confident(logits, options.tta_share)
            mixed = logits.copy()
            if len(unsure):
                chosen = exp.put(images[unsure])
                mixed[unsure] = forward.predict(eval_step, variables, chosen, options.batch_size)
            figures[f"{name}_accuracy_tta"] = metrics.accuracy(mixed, labels)
    return figures


def _calibrated(exp: Experiment, plain: dict[str, np.ndarray]) -> dict[str, float]:
    """The temperature that suits the validation images, and the test's calibration error with it;
    {} without validation images."""
    if "validation" not in plain:
        return {}
    temperature = metrics.temperature(plain["validation"], exp.validation[1])
    scaled = metrics.calibration(plain["test"] / temperature, exp.test[1])
    return {"temperature": temperature, "scaled_calibration_error": scaled.expected_error}


def final_test(
    experiment: Experiment, checkpoints: Reader, workdir: epath.Path, epochs: int
) -> dict[str, Any]:
    """Tests a finished run: writes `predictions.npz`, then `result.json`.

    It also scores training images in the same way: without augmentation and dropout, with the
    running statistics of batch norm. All inputs come from the workdir and the data, so that
    `--mode=evaluate` can make the same call.

    Args:
      epochs: number of epochs of the run.

    Returns:
      The content of `result.json`. `best_epoch` is the epoch that was tested; `lost_epoch`, if
      present, is a better one whose checkpoint cannot be read.

    Raises:
      UserError: a row of an epoch is missing, no checkpoint can be read, or logits are not finite.
    """
    config = experiment.config
    distributed.wait("all rows written")
    rows = {row["epoch"]: row for row in metrics_writer.read_rows(workdir)}
    if sorted(rows) != list(range(1, epochs + 1)):
        raise UserError(
            f"{workdir / files.METRICS} lacks rows of the run's {epochs} epochs: restore it; or "
            f"delete {files.RESULT}, if there is one, and train the epochs again with --mode=train"
        )
    like = experiment.abstract_state().variables()
    found = best.restore(checkpoints, like, workdir, config.early_stopping.restore_best)
    epoch, variables = found.epoch, found.variables
    experiment = features.replace(experiment, variables)
    eval_step = steps.make_eval_step(experiment.model, experiment.statistics, experiment.mesh)

    def predict(images: np.ndarray) -> np.ndarray:
        size = config.eval.batch_size
        return forward.predict(eval_step, variables, experiment.put(images), size)

    logits, train_logits = map(predict, (experiment.test[0], experiment.train[0][:TRAINING_IMAGES]))
    plain = {"test": logits}
    if len(experiment.validation[1]):
        plain["validation"] = predict(experiment.validation[0])
    if not np.isfinite(logits).all():
        raise UserError(f"logits in {workdir} are not finite: lower config.optimizer.learning_rate")
    labels, train_labels = experiment.test[1], experiment.train[1][:TRAINING_IMAGES]
    loss = metrics.cross_entropy(logits, labels)
    result = {
        "parameters": summary.count(variables),
        "epochs": epochs,
        "best_epoch": epoch,
        **({} if found.lost_epoch is None else {"lost_epoch": found.lost_epoch}),
        "stopped_early": epochs < config.epochs,
        "train_seconds": sum(row["seconds"] for row in rows.values()),
        "train_accuracy_clean": metrics.accuracy(train_logits, train_labels),
        "train_examples_clean": len(train_labels),
        "validation_accuracy": rows[epoch]["validation_accuracy"],
        "test_accuracy": metrics.accuracy(logits, labels),
        "test_loss": loss,
        "test_objective": loss + float(experiment.table.penalty(variables["params"])),
        "test_examples": len(labels),
        **_with_tta(experiment, variables, plain),
        **_calibrated(experiment, plain),
        **metrics.classification_figures(logits, labels, experiment.dataset.class_names),
        "class_counts": experiment.class_counts(),
    }
    if distributed.is_writer():
        files.write_npz(workdir / files.PREDICTIONS, {"logits": logits, "labels": labels})
        run_data.record(experiment, workdir)
        files.write_json(workdir / files.RESULT, result)
    return result


@settings.pinned()
def run(workdir: epath.Path, data_dir: str = "") -> dict[str, Any]:
    """`--mode=evaluate`: tests the finished run in `workdir` again, given only the workdir.

    Args:
      data_dir: where the data is on this machine; "": where the config says.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: there is no finished run, or its data cannot be found.
    """
    config = claim.load_config(workdir)
    config = dataclasses.replace(config, data=run_data.placed(config.data, data_dir))
    checkpoints = Reader(workdir / files.CHECKPOINTS)
    experiment = build(config, run_data.load(config.data, config.seed, workdir))
    epochs = (read_if_sound(workdir / files.RESULT, RESULT) or {}).get("epochs")
    if epochs is None:
        latest = checkpoints.entries_of_first(("callbacks",), reversed(checkpoints.steps))
        step, should_stop = (0, False) if latest is None else _progress(*latest)
        if not experiment.is_finished(step, should_stop):
            raise UserError(
                f"the run in {workdir} has not finished, and is tested only at its end: "
                "resume it with --mode=train first"
            )
        epochs = step // experiment.steps_per_epoch
    return final_test(experiment, checkpoints, workdir, epochs)


def _progress(step: int, entries: dict[str, Any]) -> tuple[int, bool]:
    return step, bool(entries["callbacks"]["should_stop"])


def describe(result: dict[str, Any]) -> str:
    """Describes a result in a few lines of text."""
    early = ", stopped early" if result["stopped_early"] else ""
    if "lost_epoch" in result:
        early += f" (epoch {result['lost_epoch']} was better, but its checkpoint cannot be read)"
    validation = ""
    if result["validation_accuracy"] is not None:
        validation = f", validation accuracy {result['validation_accuracy']:.4f}"
    more = [
        f"with test-time augmentation: {name.removesuffix('_accuracy_tta')} {result[name]:.4f}"
        for name in ("validation_accuracy_tta", "test_accuracy_tta")
        if name in result
    ]
    if "temperature" in result:
        more.append(
            f"calibration error {result['scaled_calibration_error']:.4f} of logits divided by "
            f"{result['temperature']:.2f}, which suits the validation images"
        )
    if "train_accuracy_clean" in result:  # older runs lack it
        more.append(
            f"without augmentation and dropout: accuracy {result['train_accuracy_clean']:.4f} on "
            f"{result['train_examples_clean']:,} training images"
        )
    return "\n".join(
        [
            class_table(result["classification_report"]),
            f"test accuracy {result['test_accuracy']:.4f}, loss {result['test_loss']:.4f}, "
            f"objective {result['test_objective']:.4f} on {result['test_examples']:,} images; "
            f"calibration error {result['expected_calibration_error']:.4f}",
            *more,
            f"epoch {result['best_epoch']} of {result['epochs']}{early}{validation}; "
            f"{result['parameters']:,} parameters, {result['train_seconds']:.0f} s of training",
        ]
    )


def class_table(report: dict[str, dict[str, float]]) -> str:
    """A classification report as text: a line for each class."""
    rows = [(label(name), row) for name, row in report.items()]
    width = max(len(name) for name, _ in rows)
    table = [f"{'':{width}}  precision  recall  f1-score  support"]
    for name, row in rows:
        figures = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1-score']:8.4f}"
        table.append(f"{name:{width}}  {figures}  {row['support']:7.0f}")
    return "\n".join(table)
