"""Writes the metrics of a run to `metrics.jsonl`, to TensorBoard and to the terminal."""

import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from etils import epath
from tqdm import tqdm

from cifar_jax.errors import first_of
from cifar_jax.forms import Damaged
from cifar_jax.runtime import checked, distributed, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.tensorboard import TensorBoard
from cifar_jax.terminal import printable

_log = logging.getLogger(__name__)


def read_rows(workdir: epath.Path, steps_per_epoch: int | None = None) -> list[dict[str, Any]]:
    """The trustworthy rows of `metrics.jsonl`, sorted by epoch; warns about those left out.

    Left out are damaged lines, such as a truncated last one; rows with validation metrics if most
    rows have none, and vice versa; and all rows of an epoch if they differ. Identical rows count
    once.

    Args:
      steps_per_epoch: also leaves out rows whose step is not the last of their epoch; None keeps
        them.

    Raises:
      UserError: the file cannot be read.
    """
    path = workdir / files.METRICS
    data = b""
    if path.exists():
        with checked.reading(path, workdir_schema.ROW.remedy):
            data = path.read_bytes()
    rows, faults = [], []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            rows.append(workdir_schema.ROW.parse(line))
        except Damaged as error:
            faults.append(f"a damaged line is left out (line {number}: {error})")
    validated = statistics.mode(map(_validated, rows)) if rows else None
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        known = by_epoch.setdefault(row["epoch"], [])
        foreign = steps_per_epoch not in (None, row["step"] / row["epoch"])
        if foreign or _validated(row) != validated:
            faults.append(f"a row of epoch {row['epoch']} belongs to another run and is left out")
        elif row in known:
            faults.append(f"a row of epoch {row['epoch']} is repeated and counts once")
        else:
            known.append(row)
    for epoch, known in by_epoch.items():
        if len(known) > 1:
            faults.append(f"{len(known)} rows of epoch {epoch} differ and are left out")
    if faults:
        _log.warning("%s: %s", path, first_of(faults))
    return [known[0] for _, known in sorted(by_epoch.items()) if len(known) == 1]


def _validated(row: dict[str, Any]) -> bool:
    return row["validation_accuracy"] is not None


def whole_epochs(workdir: epath.Path, steps_per_epoch: int) -> int:
    """The number of epochs, counted from the first one, before the first without a row."""
    epochs = {row["epoch"] for row in read_rows(workdir, steps_per_epoch)}
    return next(n for n in itertools.count() if n + 1 not in epochs)


class MetricsWriter:
    """Writes one row per epoch to `metrics.jsonl` and TensorBoard, in the one process that writes.

    Use as a context manager. Each time, the whole file is written under a temporary name and
    renamed, so that it never holds a partial row, on local disks as on object stores.
    """

    def __init__(self, workdir: epath.Path, step: int, steps_per_epoch: int | None = None):
        """Continues after `step`: drops rows and scalars of later steps, which will be repeated.

        Args:
          steps_per_epoch: see `read_rows`.
        """
        if not distributed.is_writer():
            return
        self._path = workdir / files.METRICS
        self.rows = [row for row in read_rows(workdir, steps_per_epoch) if row["step"] <= step]
        if self._path.exists():
            self._write()
        self._tensorboard = TensorBoard(workdir / files.TENSORBOARD, step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        if distributed.is_writer():
            self._tensorboard.close()

    def append(self, row: dict[str, Any]) -> None:
        """Adds the row of an epoch, and its scalars to TensorBoard at step `row["step"]`."""
        if not distributed.is_writer():
            return
        self.rows.append(row)
        self._write()
        self._tensorboard.append(row)

    def _write(self) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        files.write_bytes(self._path, text.encode())


class Progress:
    """Shows progress: one live line on a terminal, elsewhere a line every `interval` seconds."""

    def __init__(
        self, costs: Sequence[float], steps_per_epoch: int, step: int, interval: float = 30.0
    ):
        """Begins at `step`.

        Args:
          costs: how long a step takes in each epoch of the run, up to a common factor.
        """
        self._costs, self._epochs, self._steps_per_epoch = costs, len(costs), steps_per_epoch
        self._start = self._step = step
        self._interval = interval
        self._began = self._spoke = time.monotonic()
        self._bar = tqdm(
            total=self._epochs * steps_per_epoch,
            initial=step,
            file=sys.stderr,
            disable=not (distributed.is_writer() and sys.stderr.isatty()),
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def update(self, step: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Shows the state after `step`; loss and accuracy are means over the epoch so far."""
        self._step = step
        epoch = (step - 1) // self._steps_per_epoch + 1
        figures = f"loss {loss:.4f}, accuracy {accuracy:.4f}, {images_per_second:,.0f} images/s"
        if not self._bar.disable:
            self._bar.set_description_str(f"epoch {epoch}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(f"{figures}, {self.eta()} left", refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._spoke >= self._interval:
            self._spoke = time.monotonic()
            at = f"step {step}/{self._epochs * self._steps_per_epoch}"
            self.say(f"epoch {epoch}/{self._epochs}, {at}: {figures}, {self.eta()} left")

    def close_epoch(self, row: dict[str, Any]) -> None:
        """Prints the `metrics.jsonl` row of an epoch, on a line that stays."""
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
        """Estimated time until the last step of the run, as h:mm:ss."""
        done = self._cost(self._step) - self._cost(self._start)
        left = self._cost(self._epochs * self._steps_per_epoch) - self._cost(self._step)
        elapsed = time.monotonic() - self._began
        return tqdm.format_interval(elapsed / done * left) if done else "?"

    def _cost(self, step: int) -> float:
        """Of all steps of the run up to `step`, in those of whole epochs."""
        epoch, more = divmod(step, self._steps_per_epoch)
        part = self._costs[epoch] * more / self._steps_per_epoch if more else 0
        return sum(self._costs[:epoch]) + part

    def say(self, line: str) -> None:
        """Prints a line that stays, above the live line."""
        if distributed.is_writer():
            tqdm.write(printable(line), file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
