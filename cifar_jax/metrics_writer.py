"""Where the figures of a run go: `metrics.jsonl`, TensorBoard, and one live line."""

import itertools
import json
import logging
import sys
import time
from typing import Any

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2
from tqdm import tqdm

from cifar_jax import distributed
from cifar_jax import workdir as files

_log = logging.getLogger(__name__)


def read_rows(workdir: epath.Path) -> list[dict[str, Any]]:
    """The whole rows of `metrics.jsonl`, in order; a last line cut short is left out."""
    path = workdir / files.METRICS
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            _log.warning("%s: a damaged line left out", path)
    return rows


def whole_epochs(workdir: epath.Path) -> int:
    """How many epochs from the first on have their row."""
    epochs = {row["epoch"] for row in read_rows(workdir)}
    return next(n for n in itertools.count() if n + 1 not in epochs)


class MetricsWriter:
    """Writes a row an epoch to `metrics.jsonl` and TensorBoard, in the one process that writes.

    Use as a context manager.

    The file is rewritten whole under a temporary name and renamed: a row is there or not, never
    half, on local disks and on object stores alike.
    """

    def __init__(self, workdir: epath.Path, step: int):
        """Goes on after `step`: rows and scalars of later steps, which will be redone, are cut."""
        if not distributed.is_writer():
            return
        self._path = workdir / files.METRICS
        self.rows = [row for row in read_rows(workdir) if row["step"] <= step]
        if self._path.exists():
            self._write()
        self._directory = workdir / files.TENSORBOARD
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        with files.writing(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            # Not SummaryWriter: its flush leaves in a queue what a killed process then loses. The
            # suffix, because the name has the time in whole seconds, and an older file would go.
            self._tensorboard = EventsWriter(str(self._directory / "events"), f".{step}")
            self._tensorboard.write_event(
                event_pb2.Event(wall_time=time.time(), step=step + 1, session_log=start)
            )

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        if distributed.is_writer():
            with files.writing(self._directory):
                self._tensorboard.close()

    def append(self, row: dict[str, Any]) -> None:
        """Adds the row of an epoch; its scalars go to TensorBoard at `row["step"]`."""
        if not distributed.is_writer():
            return
        self.rows.append(row)
        self._write()
        values = [
            summary_pb2.Summary.Value(tag=key, simple_value=value)
            for key, value in row.items()
            if key not in ("epoch", "step") and value is not None
        ]
        with files.writing(self._directory):
            self._tensorboard.write_event(
                event_pb2.Event(
                    wall_time=time.time(),
                    step=row["step"],
                    summary=summary_pb2.Summary(value=values),
                )
            )
            self._tensorboard.flush()

    def _write(self) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        files.write_bytes(self._path, text.encode())


class Progress:
    """One live line on a terminal; elsewhere a plain line every `interval` seconds."""

    def __init__(self, epochs: int, steps_per_epoch: int, step: int, interval: float = 30.0):
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._start = self._step = step
        self._interval = interval
        self._began = self._spoke = time.monotonic()
        self._bar = tqdm(
            total=epochs * steps_per_epoch,
            initial=step,
            file=sys.stderr,
            disable=not (distributed.is_writer() and sys.stderr.isatty()),
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left",
        )

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Shows the state after `step`: loss and accuracy are means over the epoch so far."""
        self._step = step
        epoch = (step - 1) // self._steps_per_epoch + 1
        figures = f"loss {loss:.4f}, accuracy {accuracy:.4f}, {images_per_second:,.0f} images/s"
        if not self._bar.disable:
            self._bar.set_description_str(f"epoch {epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(figures, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._spoke >= self._interval:
            self._spoke = time.monotonic()
            at = f"step {step}/{self._epochs * self._steps_per_epoch}"
            self.say(f"epoch {epoch}/{self._epochs}, {at}: {figures}, {self.eta()} left")

    def close_epoch(self, row: dict[str, Any]) -> None:
        """Shows an epoch's row of `metrics.jsonl`, in a line that stays."""
        self.update(row["step"], row["train_loss"], row["train_accuracy"], row["images_per_second"])
        figures = f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}"
        if row["validation_loss"] is not None:
            figures += f", validation loss {row['validation_loss']:.4f} accuracy "
            figures += f"{row['validation_accuracy']:.4f}"
        self.say(
            f"epoch {row['epoch']}/{self._epochs}: {figures}, learning rate "
            f"{row['learning_rate']:.2g}, {row['images_per_second']:,.0f} images/s, "
            f"{row['seconds']:.1f} s, {self.eta()} left"
        )

    def eta(self) -> str:
        """Time until the last step of the run at the pace so far, as h:mm:ss."""
        done = self._step - self._start
        left = self._epochs * self._steps_per_epoch - self._step
        elapsed = time.monotonic() - self._began
        return tqdm.format_interval(elapsed / done * left) if done else "?"

    def say(self, line: str) -> None:
        """Prints a line that stays, above the live one."""
        if distributed.is_writer():
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
