"""Reads what a workdir says about its run, for the report page and the README's tables."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from cifar_jax.config.schema import Config
from cifar_jax.errors import UserError
from cifar_jax.pages import reference
from cifar_jax.runtime import checked, metrics_writer, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.training import claim


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, finished or not."""

    workdir: epath.Path
    config: Config
    environment: dict[str, Any]  # environment.json; {} if it is missing or damaged
    rows: list[dict[str, Any]]  # metrics.jsonl, at least one epoch
    result: dict[str, Any] | None  # result.json; None: not finished
    predictions: tuple[np.ndarray, np.ndarray] | None  # test logits [N, K] float32, labels [N]
    # robustness.json: suite -> its entry
    robustness: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "final"; with several seeds, each in its own directory, "final/seed-0"."""
        parts = self.workdir.parts[-2:]
        return "/".join(parts) if parts[-1].startswith("seed-") else parts[-1]

    @property
    def command(self) -> str:
        """The command that first started the run; "" if none was recorded."""
        starts = self.environment.get("starts", [])
        return starts[0]["command"] if starts else ""

    @property
    def reported(self) -> str | None:
        """The model of the student's report that this run reproduces; None if it is another one."""
        name = reference.config_name(self.command)
        return name if name in reference.REPORTED and not self.departures else None

    @property
    def departures(self) -> list[str]:
        """The keys in which the run's command departs from its config."""
        return reference.departures(self.command)

    @property
    def best_row(self) -> dict[str, Any]:
        """The row of the epoch whose parameters were tested; without a test, the best so far."""
        if self.result:
            best = self.result["best_epoch"]
            return next(row for row in self.rows if row["epoch"] == best)
        if not self.validates:
            return self.rows[-1]
        return max(self.rows, key=lambda row: row["validation_accuracy"])

    @property
    def validates(self) -> bool:
        """Whether some training images are held out; if not, the last epoch counts as the best."""
        return self.rows[0]["validation_accuracy"] is not None

    def gap(self, row: dict[str, Any]) -> float | None:
        """Training minus validation accuracy in one epoch, in [-1, 1]; None without validation.

        Training accuracy is measured during the epoch's steps, with augmentation and dropout, and
        validation accuracy without them, so this hides overfitting. `clean_gap` does not.
        """
        if not self.validates:
            return None
        return row["train_accuracy"] - row["validation_accuracy"]

    @property
    def clean_gap(self) -> float | None:
        """Training minus validation accuracy of the tested parameters, in [-1, 1].

        Both are measured without augmentation and dropout. None if either was not measured.
        """
        train = (self.result or {}).get("train_accuracy_clean")
        validation = self.best_row["validation_accuracy"]
        return None if train is None or validation is None else train - validation

    @property
    def rate_drops(self) -> list[int]:
        """Epochs that start with a lower learning rate; [] if the schedule is smooth."""
        if not self.config.plateau.enabled and self.config.schedule.name != "piecewise":
            return []
        pairs = zip(self.rows, self.rows[1:], strict=False)
        return [b["epoch"] for a, b in pairs if b["learning_rate"] < a["learning_rate"]]

    @property
    def seconds(self) -> float | None:
        """Wall time of the command, summed over all its starts; None if any start lacks it."""
        starts = self.environment.get("starts", [])
        recorded = [start["seconds"] for start in starts if "seconds" in start]
        return sum(recorded) if recorded and len(recorded) == len(starts) else None

    @property
    def hardware(self) -> str:
        """ "16-core AMD EPYC", "8 x TPU v4", or "not recorded"."""
        environment = self.environment
        if not environment:
            return "not recorded"
        if environment["backend"] == "cpu":
            return f"{environment['cpu_count']}-core {environment['processor']}"
        return f"{environment['device_count']} x {environment['device_kind']}"


def load(workdir: epath.Path) -> Run:
    """Reads the run in `workdir`.

    Raises:
      UserError: there is no run, it has not finished an epoch yet, or a file is damaged.
    """
    config = claim.load_config(workdir)
    rows = metrics_writer.read_rows(workdir)
    if not rows:
        raise UserError(
            f"the run in {workdir} has not finished an epoch yet: run --mode=train first"
        )
    result = predictions = None
    if (workdir / files.RESULT).exists():
        result = checked.read_json(workdir / files.RESULT, workdir_schema.RESULT)
        if result["best_epoch"] not in {row["epoch"] for row in rows}:
            raise UserError(
                f"{workdir / files.METRICS} has no row for epoch {result['best_epoch']}, the best "
                f"epoch according to {files.RESULT}: {workdir_schema.ROW.remedy}"
            )
    if (workdir / files.PREDICTIONS).exists():
        predictions = _predictions(workdir / files.PREDICTIONS, result)
    environment = checked.read_if_sound(workdir / files.ENVIRONMENT, workdir_schema.ENVIRONMENT)
    robustness = checked.read_if_sound(workdir / files.ROBUSTNESS, workdir_schema.ROBUSTNESS)
    return Run(workdir, config, environment or {}, rows, result, predictions, robustness or {})


def _predictions(path: epath.Path, result: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    arrays = checked.read_npz(path, workdir_schema.PREDICTIONS)
    logits, labels = arrays["logits"], arrays["labels"]
    if result and logits.shape[1] != len(result["class_counts"]["test"]):
        raise UserError(
            f"{path} has {logits.shape[1]} classes, unlike {files.RESULT} in the same directory: "
            f"{workdir_schema.PREDICTIONS.remedy}"
        )
    return logits, labels
