"""Reads checkpoints without changing anything, since a run may be writing there."""

import glob
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from absl import logging as absl_logging
from etils import epath
from etils.epath import gpath

from cifar_jax.errors import UserError
from cifar_jax.runtime import distributed
from cifar_jax.runtime.checkpoint import arrays, seal

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    state: Any
    step: int
    epoch_seconds: float  # spent on the current epoch before the checkpoint


class _Literal(gpath.PosixGPath):
    """A path whose own name is not a pattern: etils' `glob` treats "[0]" in it as one."""

    def glob(self, pattern: str) -> Iterator["_Literal"]:
        for found in epath.Path(glob.escape(os.fspath(self))).glob(pattern):
            yield type(self)(found)


def check_path(directory: epath.Path) -> None:
    """Checks that checkpoints can be saved in `directory`.

    Raises:
      UserError: tensorstore does not support the path.
    """
    name = os.fspath(_absolute(directory))
    reason = None
    if "\\" in name and "://" not in name:
        reason = "a backslash in its path"  # tensorstore treats it as a slash
    elif any("\ud800" <= character <= "\udfff" for character in name):
        reason = "a path that is not UTF-8"
    if reason:
        raise UserError(
            f"--workdir={name} has {reason}, where checkpoints cannot be saved: choose another, or "
            "start from another directory"
        )


def _absolute(directory: epath.Path) -> epath.Path:
    # A gs:// path is absolute, and resolve() would break it.
    return directory if directory.is_absolute() else directory.resolve()


def _is_wanted(record: logging.LogRecord) -> bool:
    """Keeps only the warnings of orbax: it also logs each file, and a traceback for each error."""
    from_orbax = "orbax" in record.pathname
    return record.levelno == logging.WARNING if from_orbax else record.levelno > logging.WARNING


class Reader:
    """Reads the checkpoints in a directory, which may be missing. Never writes."""

    def __init__(self, directory: epath.Path):
        check_path(directory)
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_logger().addFilter(_is_wanted)
        directory = _absolute(directory)
        self.directory = directory if "://" in str(directory) else _Literal(directory)
        if directory.exists() and not directory.is_dir():
            raise UserError(f"{directory} is a file but should be a directory: restore it")

    def wait(self) -> None:
        """Waits for a save in flight; a reader has none."""

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in ascending order."""
        self.wait()
        if not self.directory.exists():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def restore_latest(self, like: Any, below: float = math.inf) -> Restored | None:
        """The latest undamaged checkpoint, None if there are none; warns about those skipped.

        Args:
          like: a tree of `jax.ShapeDtypeStruct` with shardings: the checkpoint may come from
            another kind or number of devices.
          below: only checkpoints of earlier steps than this are considered.

        Raises:
          UserError: there are checkpoints, but all are damaged or too late.
        """
        steps = self.steps
        for restored in self._restore(like, reversed([s for s in steps if s < below])):
            return restored
        if steps:
            late = "" if math.isinf(below) else f", or later than the rows before step {below:.0f}"
            raise UserError(
                f"every checkpoint in {self.directory} is damaged, or from another version of this "
                f"code{late}: restore one, or delete the workdir to start again"
            )
        return None

    def restore(self, like: Any, step: int) -> Restored | None:
        """The checkpoint of one step; None if it is missing or damaged."""
        return self.restore_first(like, [step])

    def restore_first(self, like: Any, wanted: Iterable[int]) -> Restored | None:
        """The first undamaged checkpoint of these steps, in the given order; None without one."""
        there = set(self.steps)
        return next(self._restore(like, [step for step in wanted if step in there]), None)

    def entries_of_first(
        self, names: tuple[str, ...], wanted: Iterable[int]
    ) -> tuple[int, dict[str, Any]] | None:
        """Some entries of the saved tree, of the first of these steps that has a whole checkpoint.

        Returns:
          The step and, by name, arrays on the host; None: none has.
        """
        there = set(self.steps)
        found = self._whole(
            lambda path: arrays.load_entries(path, names),
            [step for step in wanted if step in there],
        )
        return next(found, None)

    def _restore(self, like: Any, steps: Iterable[int]) -> Iterator[Restored]:
        for step, (state, metadata) in self._whole(lambda path: arrays.load(path, like), steps):
            yield Restored(arrays.place(state, like), step, metadata["epoch_seconds"])

    def _whole(
        self, read: Callable[[epath.Path], T], steps: Iterable[int]
    ) -> Iterator[tuple[int, T]]:
        """What `read` makes of each whole checkpoint, in this order; says so of the others."""
        for step in steps:
            path = self.directory / str(step)
            fault = seal.broken(path)
            if distributed.all_agree(fault is None):
                loaded = None
                try:
                    loaded = read(path)
                except arrays.OtherLayout as other:
                    raise UserError(
                        f"the checkpoint {path} is of another version of this code, or of another "
                        f"config (they differ in {other}): the run cannot go on with it, so train "
                        "in another --workdir; what reads a finished run still can"
                    ) from other
                except arrays.UNREADABLE as error:
                    fault = type(error).__name__
                if distributed.all_agree(loaded is not None):
                    assert loaded is not None
                    yield step, loaded
                    continue
            reason = fault or "another process cannot read it"
            _log.warning("checkpoint of step %d is damaged (%s): passed over", step, reason)
