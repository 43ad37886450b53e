"""What a workdir knows of its run, as a page needs it."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cifar_jax.errors import UserError
from cifar_jax.report import reference
from cifar_jax.runtime import checked, metrics_writer, workdir_schema
from cifar_jax.runtime import workdir as files


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, finished or not."""

    workdir: epath.Path
    config: ConfigDict
    environment: dict[str, Any]  # {} where the file is missing
    rows: list[dict[str, Any]]  # of metrics.jsonl, at least one
    result: dict[str, Any] | None  # None: not finished
    predictions: tuple[np.ndarray, np.ndarray] | None  # test logits [N, K] float32, labels [N]
    robustness: dict[str, Any] = dataclasses.field(default_factory=dict)  # suite -> its entry

    @property
    def name(self) -> str:
        """ "final", or "final/seed-0" where a run of a seed has its own directory."""
        parts = self.workdir.parts[-2:]
        return "/".join(parts) if parts[-1].startswith("seed-") else parts[-1]

    @property
    def command(self) -> str:
        """That started it; empty where nobody noted it."""
        starts = self.environment.get("starts", [])
        return starts[0]["command"] if starts else ""

    @property
    def reported(self) -> str | None:
        """The name of the report's model that this run reproduces, if any."""
        name = reference.config_name(self.command)
        return name if name in reference.REPORTED else None

    @property
    def best_row(self) -> dict[str, Any]:
        """Of the epoch that the test used, or of the best one so far."""
        if self.result:
            best = self.result["best_epoch"]
            return next(row for row in self.rows if row["epoch"] == best)
        if not self.validates:
            return self.rows[-1]
        return max(self.rows, key=lambda row: row["validation_accuracy"])

    @property
    def validates(self) -> bool:
        """False: it trains on all images, and the last epoch is the best."""
        return self.rows[0]["validation_accuracy"] is not None

    def gap(self, row: dict[str, Any]) -> float | None:
        """Training minus validation accuracy of a row, in [-1, 1].

        The training accuracy is that of the epoch's steps, with augmentation and dropout, which
        validation goes without: so this hides overfitting. `clean_gap` does not.
        """
        if not self.validates:
            return None
        return row["train_accuracy"] - row["validation_accuracy"]

    @property
    def clean_gap(self) -> float | None:
        """Training minus validation accuracy of the tested parameters, in [-1, 1], both without
        augmentation and dropout; None where one of them was not measured."""
        train = (self.result or {}).get("train_accuracy_clean")
        validation = self.best_row["validation_accuracy"]
        return None if train is None or validation is None else train - validation

    @property
    def rate_drops(self) -> list[int]:
        """Epochs from which on the learning rate is lower, of schedules that change in steps."""
        if not self.config.plateau.enabled and self.config.schedule.name != "piecewise":
            return []
        pairs = zip(self.rows, self.rows[1:], strict=False)
        return [b["epoch"] for a, b in pairs if b["learning_rate"] < a["learning_rate"]]

    @property
    def seconds(self) -> float | None:
        """Of the whole command, of all its starts together; None where nobody noted it."""
        starts = self.environment.get("starts", [])
        noted = [start["seconds"] for start in starts if "seconds" in start]
        return sum(noted) if noted and len(noted) == len(starts) else None

    @property
    def hardware(self) -> str:
        environment = self.environment
        if not environment:
            return "not noted"
        if environment["backend"] == "cpu":
            return f"{environment['cpu_count']}-core {environment['processor']}"
        return f"{environment['device_count']} x {environment['device_kind']}"


def load(workdir: epath.Path) -> Run:
    """The run in `workdir`.

    Raises:
      UserError: there is none, it has not ended an epoch yet, or a file is damaged.
    """
    config = files.load_config(workdir)
    rows = metrics_writer.read_rows(workdir)
    if not rows:
        raise UserError(
            f"the run in {workdir} has no epoch in {files.METRICS} yet: go on with --mode=train "
            "first"
        )
    result = predictions = None
    if (workdir / files.RESULT).exists():
        result = checked.read_json(workdir / files.RESULT, workdir_schema.RESULT)
        if result["best_epoch"] not in {row["epoch"] for row in rows}:
            raise UserError(
                f"{workdir / files.METRICS} has no row of epoch {result['best_epoch']}, which "
                f"{files.RESULT} names the best: {workdir_schema.ROW.remedy}"
            )
    if (workdir / files.PREDICTIONS).exists():
        predictions = _predictions(workdir / files.PREDICTIONS, result)
    environment = checked.read_if_sound(workdir / files.ENVIRONMENT, workdir_schema.ENVIRONMENT)
    harder = checked.read_if_sound(workdir / files.ROBUSTNESS, workdir_schema.ROBUSTNESS)
    return Run(workdir, config, environment or {}, rows, result, predictions, harder or {})


def _predictions(path: epath.Path, result: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    arrays = checked.read_npz(path, workdir_schema.PREDICTIONS)
    logits, labels = arrays["logits"], arrays["labels"]
    if result and logits.shape[1] != len(result["class_counts"]["test"]):
        raise UserError(
            f"{path} is of {logits.shape[1]} classes, and {files.RESULT} beside it is not: "
            f"{workdir_schema.PREDICTIONS.remedy}"
        )
    return logits, labels
