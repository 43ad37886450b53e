"""The training loop: epochs of dispatches of steps, with what happens between them."""

import collections
import functools
import time
from typing import Any

import jax
import numpy as np
from etils import epath

from cifar_jax import metrics
from cifar_jax.config import validation as config_lib
from cifar_jax.errors import UserError
from cifar_jax.optim import callbacks
from cifar_jax.optim import chain as optim
from cifar_jax.runtime import compilation, sharding
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.interrupt import Interrupted, StopRequest
from cifar_jax.runtime.metrics_writer import MetricsWriter, Progress
from cifar_jax.training import steps
from cifar_jax.training import test as evaluate
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.state import TrainState

# Dispatches that may be under way before the loop reads the figures of the oldest: enough that the
# device never waits for the host, few enough that a signal or a NaN is answered within steps.
_AHEAD = 2
_PROFILED = range(3, 8)  # dispatches of this process: after compilation


class Loop:
    """Epochs of dispatches of steps, with what happens between them."""

    def __init__(
        self, exp: Experiment, checkpoints: Checkpoints, stop: StopRequest, workdir: epath.Path
    ):
        config = exp.config
        self.exp, self.config = exp, config
        self.checkpoints, self.stop, self.workdir = checkpoints, stop, workdir
        self.train_steps = steps.make_train_step(
            config, exp.model, exp.optimizer, exp.l2, exp.statistics, exp.mesh
        )
        self.eval_step = steps.make_eval_step(exp.model, exp.statistics, exp.mesh)
        self.update_callbacks = compilation.jit(
            lambda *args: callbacks.update(config, *args),
            out_shardings=sharding.replicated(exp.mesh),
        )
        self.validation_images = exp.put(exp.validation[0])
        self.dispatches = 0
        by_default = 1 if jax.default_backend() == "cpu" else 50
        self.per_dispatch = config.steps_per_dispatch or by_default

    @functools.cached_property
    def arrays(self) -> steps.Arrays:
        return self.exp.put(self.exp.train)

    def run(self, state: TrainState, epoch_seconds: float) -> TrainState:
        """Trains to the end. `epoch_seconds`: spent before on the epoch that `state` is in.

        Returns:
          The state after the last epoch.

        Raises:
          UserError: the loss is not finite.
          Interrupted: a signal came; the state is saved.
        """
        per_epoch = self.exp.steps_per_epoch
        step = int(state.step)
        progress = Progress(self.config.epochs, per_epoch, step)
        try:
            with MetricsWriter(self.workdir, step, per_epoch) as writer:
                while not evaluate.is_finished(self.exp, state):
                    began = time.monotonic() - epoch_seconds
                    state, speed = self._train_epoch(state, began, progress)
                    row, state = self.close_epoch(state, began, speed, writer)
                    progress.close_epoch(row)
                    epoch_seconds = 0.0
                    if self.stop.requested and not evaluate.is_finished(self.exp, state):
                        self._leave(row["step"])
            return state
        finally:
            progress.close()

    def _train_epoch(
        self, state: TrainState, began: float, progress: Progress
    ) -> tuple[TrainState, float]:
        """The rest of the epoch that `state` is in; returns its images per second, too."""
        per_epoch, batch_size = self.exp.steps_per_epoch, self.config.batch_size
        every = self.config.checkpoint.every_steps
        first = step = int(state.step)
        end = (step // per_epoch + 1) * per_epoch
        order = self.exp.epoch_order(step // per_epoch)
        under_way: collections.deque = collections.deque()
        start = time.monotonic() - 1e-6  # never now, whatever the clock's grain
        while step < end:
            # Dispatches begin at multiples of their size, so that a resumed run makes the same.
            position = step % per_epoch
            size = min(self.per_dispatch - position % self.per_dispatch, end - step)
            self._profile()
            self.stop.poll()
            state, sums = self.train_steps(state, self.arrays, order, size)
            if self.dispatches == 1:
                jax.block_until_ready(sums)
                progress.say("first step done")
            passed = every and step // every != (step + size) // every
            step += size
            under_way.append((step, sums))
            if len(under_way) > _AHEAD:
                done, sums = under_way.popleft()
                speed = (done - first) * batch_size / (time.monotonic() - start)
                self._read(done, sums, speed, progress)
            if step < end and (passed or self.stop.requested):
                self._check_finite(state)
                self.checkpoints.save(step, state, time.monotonic() - began)
                if self.stop.requested:
                    self._leave(step)
        jax.block_until_ready(state.sums)
        return state, (end - first) * batch_size / (time.monotonic() - start)

    def close_epoch(
        self, state: TrainState, began: float, images_per_second: float, writer: MetricsWriter
    ) -> tuple[dict[str, Any], TrainState]:
        """Validates, steps the callbacks, saves; returns the epoch's row and the state after it.

        Raises:
          UserError: the loss is not finite.
        """
        self._check_finite(state)
        config, step = self.config, int(state.step)
        epoch = step // self.exp.steps_per_epoch
        sums = jax.device_get(state.sums)
        learning_rate = self.exp.schedule(step - 1) * state.callbacks.learning_rate_scale
        variables, labels = state.variables(), self.exp.validation[1]
        loss = accuracy = objective = None
        # Without validation images the newest epoch counts as the best.
        updated = state.callbacks.replace(best_epoch=self.exp.put(np.int32(epoch)))
        if len(labels):
            logits = evaluate.predict(
                self.eval_step, variables, self.validation_images, config.eval.batch_size
            )
            loss = metrics.cross_entropy(logits, labels)
            accuracy = metrics.accuracy(logits, labels)
            if not np.isfinite(loss):
                self._diverged(step)
            objective = loss + float(optim.l2_penalty(variables["params"], self.exp.l2))
            updated = self.update_callbacks(
                state.callbacks, np.int32(epoch), np.float32(loss), np.float32(accuracy)
            )
        seconds = time.monotonic() - began
        row = {
            "epoch": epoch,
            "step": step,
            "train_loss": float(sums.loss / sums.steps),
            "train_accuracy": int(sums.correct) / int(sums.steps * config.batch_size),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "train_objective": float(sums.objective / sums.steps),
            "validation_objective": objective,
            "learning_rate": float(learning_rate),
            "images_per_second": images_per_second,
            "seconds": seconds,
        }
        state = state.replace(callbacks=updated)
        # The row first: a kill between the two costs a row that is cut and redone on resume; the
        # other way round, the row would be lost.
        files.check_there(self.workdir)  # before its place is made anew, without its past
        writer.append(row)
        self.checkpoints.save(step, state, validation_accuracy=accuracy)
        return row, state

    def _read(self, step: int, sums, images_per_second: float, progress: Progress) -> None:
        """Reads the figures of a dispatch that has most likely ended."""
        sums = jax.device_get(sums)
        if sums.nonfinite_step >= 0:
            self._diverged(int(sums.nonfinite_step))
        loss = float(sums.loss / sums.steps)
        accuracy = int(sums.correct) / (int(sums.steps) * self.config.batch_size)
        progress.update(step, loss, accuracy, images_per_second)

    def _check_finite(self, state: TrainState) -> None:
        """Waits for the state: none with a NaN in it is ever saved."""
        nonfinite_step = int(state.sums.nonfinite_step)
        if nonfinite_step >= 0:
            self._diverged(nonfinite_step)

    def _diverged(self, step: int) -> None:
        good = [s for s in self.checkpoints.steps if s < step]
        last = f"the last good checkpoint is that of step {good[-1]}" if good else "no checkpoint"
        raise UserError(
            f"loss or gradient is not finite at step {step}; {last} in "
            f"{self.workdir / files.CHECKPOINTS}: {config_lib.blame(self.config, step)}, in a new "
            "workdir"
        )

    def _leave(self, step: int) -> None:
        raise Interrupted(f"interrupted: saved step {step} in {self.workdir}; run again to resume")

    def _profile(self) -> None:
        """Called before each dispatch: traces a few of them."""
        self.dispatches += 1
        if self.config.profile and self.dispatches == _PROFILED.start:
            jax.profiler.start_trace(str(self.workdir / files.PROFILE))
        elif self.config.profile and self.dispatches == _PROFILED.stop:
            jax.profiler.stop_trace()
