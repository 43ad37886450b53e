"""A run in the loop: its state, and what happens at the end of an epoch."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np
from etils import epath

from cifar_jax.config import validation
from cifar_jax.errors import UserError
from cifar_jax.metrics import accuracy, cross_entropy
from cifar_jax.optim import callbacks
from cifar_jax.runtime import compilation, sharding
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.metrics_writer import MetricsWriter
from cifar_jax.training import claim, forward, steps
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.state import TrainState


@dataclasses.dataclass
class Member:
    """A run in the loop."""

    exp: Experiment
    workdir: epath.Path
    checkpoints: Checkpoints
    writer: MetricsWriter
    state: TrainState
    epoch_seconds: float  # spent on the current epoch before this process took over

    def __post_init__(self) -> None:
        exp, config = self.exp, self.exp.config
        self._validation_images = exp.put(exp.validation[0])
        self._eval_step = steps.make_eval_step(exp.model, exp.statistics, exp.mesh)
        self._update_callbacks = compilation.jit(
            lambda *args: callbacks.update(config.early_stopping, config.plateau, *args),
            out_shardings=sharding.replicated(exp.mesh),
        )

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended, at its last epoch or by early stopping."""
        return self.exp.is_finished(self.step, bool(self.state.callbacks.should_stop))

    def check_finite(self) -> None:
        """Waits for the state and checks it, so that no state with a NaN is ever saved.

        Raises:
          UserError: the loss or the gradient of a step was not finite.
        """
        nonfinite_step = int(self.state.sums.nonfinite_step)
        if nonfinite_step >= 0:
            self.diverged(nonfinite_step)

    def diverged(self, step: int) -> None:
        """Raises UserError, with a remedy: loss or gradient were not finite at `step`, from 1."""
        good = [s for s in self.checkpoints.steps if s < step]
        last = f"the last good checkpoint is of step {good[-1]}" if good else "no checkpoint"
        raise UserError(
            f"loss or gradient is not finite at step {step}; {last} in "
            f"{self.workdir / files.CHECKPOINTS}: {validation.blame(self.exp.config, step)}, in a "
            "new workdir"
        )

    def validate(self, epoch: int) -> tuple[dict[str, float | None], callbacks.Callbacks]:
        """Evaluates the validation images and updates early stopping and plateau.

        Without validation images, the newest epoch counts as the best.
        """
        exp, labels = self.exp, self.exp.validation[1]
        names = ("validation_loss", "validation_accuracy", "validation_objective")
        if not len(labels):
            newest = self.state.callbacks.replace(best_epoch=exp.put(np.int32(epoch)))
            return dict.fromkeys(names), newest
        variables, size = self.state.variables(), exp.config.eval.batch_size
        logits = forward.predict(self._eval_step, variables, self._validation_images, size)
        loss, share = cross_entropy(logits, labels), accuracy(logits, labels)
        if not np.isfinite(loss):
            self.diverged(self.step)
        updated = self._update_callbacks(
            self.state.callbacks, np.int32(epoch), np.float32(loss), np.float32(share)
        )
        objective = loss + float(exp.table.penalty(variables["params"]))
        return dict(zip(names, (loss, share, objective), strict=True)), updated

    def close_epoch(self, began: float, images_per_second: float) -> dict[str, Any]:
        """Validates, updates the callbacks, writes the row of the epoch and saves; returns the row.

        Raises:
          UserError: the loss is not finite.
        """
        self.check_finite()
        exp, step = self.exp, self.step
        epoch = step // exp.steps_per_epoch
        sums = jax.device_get(self.state.sums)
        scale = self.state.callbacks.learning_rate_scale
        validated, updated = self.validate(epoch)
        row = {
            "epoch": epoch,
            "step": step,
            "train_loss": float(sums.loss / sums.steps),
            "train_accuracy": int(sums.correct) / int(sums.steps * exp.config.batch_size),
            "validation_loss": validated["validation_loss"],
            "validation_accuracy": validated["validation_accuracy"],
            "train_objective": float(sums.objective / sums.steps),
            "validation_objective": validated["validation_objective"],
            "learning_rate": float(exp.schedule(step - 1) * scale),
            "images_per_second": images_per_second,
            "seconds": time.monotonic() - began,
        }
        self.state = self.state.replace(callbacks=updated)
        # The row comes first. If the process is killed in between, resuming cuts the row and trains
        # the epoch again; the other way round, the row would be lost.
        claim.check_there(self.workdir)  # or append would create a new, empty workdir
        self.writer.append(row)
        self.checkpoints.save(step, self.state, validation_accuracy=row["validation_accuracy"])
        return row
