"""Saving checkpoints: in the background, read back, and made again where they came out wrong."""

import concurrent.futures
import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from cifar_jax.errors import UserError
from cifar_jax.runtime import distributed
from cifar_jax.runtime.checkpoint import reading, seal
from cifar_jax.runtime.checkpoint.reading import Reader, Restored

_log = logging.getLogger(__name__)
# What a ValueError begins with where storage fails: tensorstore's statuses, and orbax' word for a
# directory that is gone.
_STORAGE = re.compile("[A-Z_]+: |Checkpoint directory does not exist")
_ATTEMPTS = 3


class _Save(NamedTuple):
    """What is kept of a save until it has been read back."""

    step: int
    arrays: Any  # a copy on the host
    like: Any
    metadata: dict[str, Any]
    metrics: dict[str, Any] | None  # None: not at the end of an epoch

    @property
    def rank(self) -> tuple[float, int]:
        """Of two checkpoints the one of the higher rank is the better: ties go to the earlier."""
        return _rank(self.metrics) if self.metrics else (-1.0, 0)


def _rank(metrics: dict[str, Any]) -> tuple[float, int]:
    return metrics["validation_accuracy"], -metrics["step"]


class Checkpoints(Reader):
    """The checkpoints of a workdir: the two latest and the best by validation accuracy.

    Saves are asynchronous and atomic: a step is listed when it is whole. Each is read back in the
    background, and made again where it is not what was saved. Two of the latest are kept so that a
    damaged one costs an epoch, not the run. The best one of this process stays in memory, too.

    Nothing is written before `forget_after` or `save`. Use as a context manager: leaving it waits
    for the save in flight.
    """

    def __init__(self, directory: epath.Path):
        super().__init__(directory)
        self._manager: ocp.training.Checkpointer | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: tuple[_Save, concurrent.futures.Future[str | None]] | None = None
        self._best: _Save | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        try:
            # Processes that fail do so one by one, and cannot agree on anything any more.
            if error is None or not distributed.several():
                self.wait()
        finally:
            self._thread.shutdown()
            with self._writing():
                if self._manager is not None:
                    self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what may meet the end of a save: this one's, or of that before."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not _STORAGE.match(str(error)):
                raise
            raise UserError(
                f"cannot save a checkpoint in {self.directory} "
                f"({' '.join(str(error).split())[:200]}): make room and run again, or choose "
                "another --workdir"
            ) from error

    @property
    def _checkpointer(self) -> ocp.training.Checkpointer:
        """Orbax' manager, which on its start deletes what a killed process has left."""
        if self._manager is None:
            if distributed.is_writer():
                self._set_aside_damaged()
            distributed.wait("checkpoints looked through")
            policies = ocp.training.preservation_policies
            best = policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
            self._manager = ocp.training.Checkpointer(
                self.directory,
                # Saving is the loop's decision, so every call saves.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
                cleanup_tmp_directories=True,
            )
        return self._manager

    def _set_aside_damaged(self) -> None:
        """Moves away what is damaged: orbax would not open the rest, or keep it as the best."""
        for path in (self.directory / str(step) for step in self.steps):
            fault = seal.broken(path)
            try:
                ocp.metadata(path)
                metrics = path / "metrics" / "metrics"  # where orbax puts them, as JSON
                if metrics.exists():
                    json.loads(metrics.read_text())
            except ValueError as error:
                fault = fault or type(error).__name__
            if fault:
                aside = self.directory.parent / f"{self.directory.name}-damaged" / path.name
                aside.parent.mkdir(exist_ok=True)
                if aside.exists():
                    aside.rmtree()
                path.rename(aside)
                _log.warning("%s is damaged (%s): moved to %s", path, fault, aside)

    def save(
        self,
        step: int,
        state: Any,
        epoch_seconds: float = 0.0,
        validation_accuracy: float | None = None,
    ) -> None:
        """Starts saving `state` as that of `step`, in the background; replaces an older save.

        Args:
          validation_accuracy: at the end of an epoch; without it a checkpoint cannot be the best.

        Raises:
          UserError: the disk is full or may not be written, or gives back other data.
        """
        self.wait()
        metrics = None
        if validation_accuracy is not None:
            metrics = {"validation_accuracy": validation_accuracy, "step": step}
        arrays = jax.tree.map(np.array, state)
        metadata = {"crc32": reading.checksum(arrays), "epoch_seconds": epoch_seconds}
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        save = _Save(step, arrays, like, metadata, metrics)
        if metrics and (self._best is None or save.rank > self._best.rank):
            self._best = save
        self._start(save, state)

    def _start(self, save: _Save, state: Any) -> None:
        with self._writing():
            saving = self._checkpointer.save_async(
                save.step,
                state,
                force=True,
                overwrite=save.step in self.steps,
                metrics=save.metrics,
                custom_metadata=save.metadata,
            )
        assert saving is not None
        self._pending = save, self._thread.submit(self._read_back, save, saving.result)

    def _read_back(self, save: _Save, finish: Callable[[], Any]) -> str | None:
        """In the background: what is wrong with the save once it is written; None: nothing."""
        finish()
        path = self.directory / str(save.step)
        try:
            reading.load(path, save.like)
        except reading.UNREADABLE as error:
            return type(error).__name__
        if distributed.is_writer():
            seal.write(path)
        return None

    def wait(self) -> None:
        """Waits until the save in flight is on the disk, and is what was saved.

        Raises:
          UserError: as `save`.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            if self._pending is None:
                return
            (save, reading_back), self._pending = self._pending, None
            with self._writing():
                fault = reading_back.result()
            if distributed.all_agree(fault is None):
                return
            again = "saved again" if attempt < _ATTEMPTS else "given up"
            reason = fault or "in another process"
            _log.warning(
                "checkpoint of step %d is not what was saved (%s): %s", save.step, reason, again
            )
            if attempt < _ATTEMPTS:
                self._start(save, reading.place(save.arrays, save.like))
        raise UserError(
            f"{self.directory} gives back other data than are written there: run again with "
            "another --workdir, and have the disk checked"
        )

    def restore_first(self, like: Any, wanted: Iterable[int]) -> Restored | None:
        wanted = list(wanted)
        restored, best = super().restore_first(like, wanted), self._best
        if best and wanted[0] == best.step and (not restored or restored.step != best.step):
            _log.warning("checkpoint of step %d is made again from memory", best.step)
            self._start(best, reading.place(best.arrays, best.like))
            restored = super().restore_first(like, wanted)
        return restored

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which a resumed run will make again."""
        checkpointer = self._checkpointer
        for later in [s for s in self.steps if s > step]:
            checkpointer.delete(later)
