"""Checkpoints of a run. The only file that imports orbax."""

import contextlib
import json
import logging
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging as absl_logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from cifar_jax import distributed
from cifar_jax.errors import UserError

_log = logging.getLogger(__name__)
# What orbax, tensorstore and the file system raise on a damaged checkpoint; anything else is a
# fault of ours and is not to be taken for damage.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError)
_FULL = (OSError, ValueError)  # a disk that takes no more, as Python and as tensorstore say it


class Restored(NamedTuple):
    state: Any
    step: int
    epoch_seconds: float  # spent on the epoch at hand before the checkpoint


def _checksum(state: Any) -> int:
    """CRC-32 over the bytes of every leaf, in the tree's order."""
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc


def _verify(state: Any, metadata: dict[str, Any]) -> None:
    """Raises ValueError where a state is not the one that was saved."""
    found, expected = _checksum(state), metadata["crc32"]
    if found != expected:
        raise ValueError(f"checksum {found:08x}, expected {expected:08x}")


def _prepared(directory: epath.Path) -> epath.Path:
    """The directory as orbax wants it named, and orbax quiet."""
    # It reports each file it touches, and as a traceback each error that it raises as well.
    absl_logging.set_verbosity(absl_logging.FATAL)
    # gs:// is absolute, and resolve() would spoil it.
    return directory if directory.is_absolute() else directory.resolve()


def read(directory: epath.Path, like: Any, step: int) -> Any:
    """The state of one step, leaving the directory as it is: a run may be at work there.

    Raises:
      UserError: there is no whole checkpoint of that step.
    """
    path = _prepared(directory) / str(step)
    try:
        state = ocp.load(path, like)
        _verify(state, ocp.metadata(path).custom_metadata)
    except _DAMAGE as error:
        raise UserError(
            f"the checkpoint {path} is missing or damaged, or from another version of this code "
            f"({type(error).__name__}): restore it, or train again in a new workdir"
        ) from error
    return state


def _set_aside_unreadable(directory: epath.Path) -> None:
    """Moves away checkpoints whose own description is damaged: orbax would not open the rest."""
    for path in directory.iterdir() if directory.exists() else ():
        if path.name.isdigit():
            try:
                ocp.metadata(path)
                metrics = path / "metrics" / "metrics"  # where orbax puts them, as JSON
                if metrics.exists():
                    json.loads(metrics.read_text())
            except ValueError as error:
                aside = directory.parent / f"{directory.name}-damaged" / path.name
                aside.parent.mkdir(exist_ok=True)
                if aside.exists():
                    aside.rmtree()
                path.rename(aside)
                _log.warning("%s is damaged (%s): moved to %s", path, type(error).__name__, aside)


class Checkpoints:
    """The checkpoints of a workdir: the two latest and the best by validation accuracy.

    Saves are asynchronous and atomic: a step is listed when it is whole. Two of the latest are
    kept so that a damaged one costs an epoch, not the run. Use as a context manager: leaving it
    waits for the save in flight.
    """

    def __init__(self, directory: epath.Path):
        directory = _prepared(directory)
        if distributed.is_writer():
            _set_aside_unreadable(directory)
        distributed.wait("checkpoints looked through")
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            directory,
            # Saving is the loop's decision, so every call saves.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(2),
                    policies.BestN(
                        # Of equals the first is the best: it is the one that best_epoch names.
                        get_metric_fn=lambda m: (m["validation_accuracy"], -m["step"]),
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,  # left by a killed process
        )
        self._saving = None  # orbax' promise of the save in flight

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        with self._writing():
            self._checkpointer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what may meet the end of a save: this one's, or of that before."""
        try:
            yield
        except _FULL as error:
            raise UserError(
                f"cannot save a checkpoint in {self._checkpointer.directory} "
                f"({' '.join(str(error).split())[:200]}): make room and run again, or choose "
                "another --workdir"
            ) from error

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, rising."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

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
          UserError: the disk is full or may not be written.
        """
        metrics = None
        if validation_accuracy is not None:
            metrics = {"validation_accuracy": validation_accuracy, "step": step}
        with self._writing():
            self._saving = self._checkpointer.save_async(
                step,
                state,
                force=True,
                overwrite=step in self.steps,
                metrics=metrics,
                custom_metadata={"crc32": _checksum(state), "epoch_seconds": epoch_seconds},
            )

    def restore_latest(self, like: Any, below: float = math.inf) -> Restored | None:
        """The newest whole checkpoint, None if there is none; says so when it passes one over.

        Args:
          below: which steps will do.
          like: a tree of `jax.ShapeDtypeStruct` with shardings: a checkpoint may come from
            another kind or number of devices.

        Raises:
          UserError: there are checkpoints, and each is damaged or too late.
        """
        for restored in self._restore(like, reversed([s for s in self.steps if s < below])):
            return restored
        if self.steps:
            late = "" if math.isinf(below) else f", or later than the rows before step {below:.0f}"
            raise UserError(
                f"every checkpoint in {self._checkpointer.directory} is damaged, or from another "
                f"version of this code{late}: restore one, or delete the workdir to start again"
            )
        return None

    def restore(self, like: Any, step: int) -> Restored | None:
        """The checkpoint of one step, None if it is missing or damaged."""
        return next(self._restore(like, [step] if step in self.steps else []), None)

    def _restore(self, like: Any, steps: Iterable[int]) -> Iterator[Restored]:
        if self._saving is not None:
            with self._writing():
                self._saving.result()
        for step in steps:
            restored = None
            try:
                state = self._checkpointer.load(step, like)
                metadata = self._checkpointer.metadata(step).custom_metadata
                _verify(state, metadata)
                restored = Restored(state, step, metadata["epoch_seconds"])
            except _DAMAGE as error:
                reason = type(error).__name__
                _log.warning("checkpoint of step %d is damaged (%s): passed over", step, reason)
            if distributed.all_agree(restored is not None):
                assert restored is not None
                yield restored

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps: damaged ones that a resumed run will redo."""
        for later in [s for s in self.steps if s > step]:
            self._checkpointer.delete(later)
