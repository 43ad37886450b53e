"""Saves checkpoints in the background, reads them back, and saves them again if they are wrong."""

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
from cifar_jax.runtime.checkpoint import arrays as arrays_of
from cifar_jax.runtime.checkpoint import seal
from cifar_jax.runtime.checkpoint.reading import Reader

_log = logging.getLogger(__name__)
# How the message of a ValueError starts if storage failed: with a status of tensorstore, or with
# orbax's words for a directory that is missing, or that went while it was written.
_STORAGE = re.compile("[A-Z_]+: |Checkpoint directory does not exist|No ArrayMetadata found")
_ATTEMPTS = 3


class _Save(NamedTuple):
    """What is kept in memory about a save until it has been read back."""

    step: int
    arrays: Any  # a host copy of the state
    like: Any
    metadata: dict[str, Any]
    metrics: dict[str, Any] | None  # None: not at the end of an epoch

    @property
    def rank(self) -> tuple[float, int]:
        """The checkpoint with the highest rank is the best: ties go to the earlier one."""
        return _rank(self.metrics) if self.metrics else (-1.0, 0)


def _rank(metrics: dict[str, Any]) -> tuple[float, int]:
    return metrics["validation_accuracy"], -metrics["step"]


class Checkpoints(Reader):
    """Keeps the two latest checkpoints of a workdir and the best one by validation accuracy.

    Saves are asynchronous and atomic: a step is listed only once it is complete. Each checkpoint is
    read back in the background, and saved again if it differs from what was saved. The two latest
    are kept so that a damaged one costs an epoch and not the run. The best one of this process also
    stays in memory.

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
            # Failing processes fail one by one, so they can no longer agree on anything.
            if error is None or not distributed.several():
                self.wait()
        finally:
            self._thread.shutdown()
            with self._writing():
                if self._manager is not None:
                    self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns storage errors into a UserError: those of this save, or of the one before it."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not _STORAGE.match(str(error)):
                raise
            raise UserError(
                f"cannot save a checkpoint in {self.directory} "
                f"({' '.join(str(error).split())[:200]}): free some space and run again, or choose "
                "another --workdir"
            ) from error

    @property
    def _checkpointer(self) -> ocp.training.Checkpointer:
        """Orbax's checkpointer; when it starts, it deletes what a killed process left behind."""
        if self._manager is None:
            if distributed.is_writer():
                self._set_aside_damaged()
            distributed.wait("checkpoints looked through")
            policies = ocp.training.preservation_policies
            best = policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False)
            self._manager = ocp.training.Checkpointer(
                self.directory,
                # The training loop decides when to save, so every call saves.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
                cleanup_tmp_directories=True,
            )
        return self._manager

    def _set_aside_damaged(self) -> None:
        """Moves damaged checkpoints away: orbax might refuse to start, or keep one as the best."""
        for path in (self.directory / str(step) for step in self.steps):
            fault = seal.broken(path)
            try:
                ocp.metadata(path)
                metrics = path / "metrics" / "metrics"  # orbax's JSON file
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
        """Starts saving `state` in the background; replaces an older checkpoint of this step.

        Args:
          epoch_seconds: spent on the current epoch so far.
          validation_accuracy: in [0, 1], at the end of an epoch; a checkpoint without it cannot be
            the best.

        Raises:
          UserError: the disk is full or not writable, or returns other data than were written.
        """
        self.wait()
        metrics = None
        if validation_accuracy is not None:
            metrics = {"validation_accuracy": validation_accuracy, "step": step}
        arrays = jax.tree.map(np.array, state)
        metadata = {
            "crc32": arrays_of.checksum(arrays),
            "crc32_by_entry": arrays_of.checksums(arrays),
            "epoch_seconds": epoch_seconds,
        }
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
        """Runs in the background: waits for the save, reads it back, returns what is wrong."""
        finish()
        path = self.directory / str(save.step)
        try:
            arrays_of.load(path, save.like)
        except arrays_of.UNREADABLE as error:
            return type(error).__name__
        if distributed.is_writer():
            seal.write(path)
        return None

    def wait(self) -> None:
        """Waits until the save in flight is on the disk and was read back correctly.

        Raises:
          UserError: see `save`.
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
                "checkpoint of step %d is not what was saved (%s): %s",
                save.step,
                reason,
                again,
            )
            if attempt < _ATTEMPTS:
                self._start(save, arrays_of.place(save.arrays, save.like))
        raise UserError(
            f"{self.directory} returns other data than were written: run again with another "
            "--workdir, and have the disk checked"
        )

    def entries_of_first(
        self, names: tuple[str, ...], wanted: Iterable[int]
    ) -> tuple[int, dict[str, Any]] | None:
        wanted = list(wanted)
        found, best = super().entries_of_first(names, wanted), self._best
        if best and wanted[:1] == [best.step] and (not found or found[0] != best.step):
            _log.warning("checkpoint of step %d is made again from memory", best.step)
            self._start(best, arrays_of.place(best.arrays, best.like))
            found = super().entries_of_first(names, wanted)
        return found

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints after `step`, which a resumed run will save again."""
        checkpointer = self._checkpointer
        for later in [s for s in self.steps if s > step]:
            checkpointer.delete(later)
