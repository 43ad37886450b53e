"""Which epoch of a run is tested and used: the best one whose checkpoint can be read."""

import logging
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Reader
from cifar_jax.training.state import TrainState

_log = logging.getLogger(__name__)
# How often the workdir is looked through: a run at work deletes what a glance has found, but then
# it has saved another.
_GLANCES = 3


class Best(NamedTuple):
    epoch: int  # from 1
    state: TrainState
    lost_epoch: int | None  # the best one, where its checkpoint cannot be read


def in_order(rows: list[dict[str, Any]], config: ConfigDict) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`, that of the epoch to test first.

    They fall in validation accuracy, ties to the earliest. Where the config asks for the last
    epoch, or there are no validation images, the newest comes first.
    """
    validates = all(row["validation_accuracy"] is not None for row in rows)
    if config.early_stopping.restore_best and validates:
        return sorted(rows, key=lambda row: -row["validation_accuracy"])
    return rows[::-1]


def restore(checkpoints: Reader, like: TrainState, workdir: epath.Path, config: ConfigDict) -> Best:
    """The best epoch of the run in `workdir`, which may be at work: a line says if it is not it.

    Args:
      like: shapes, dtypes and shardings of the state.

    Raises:
      UserError: there is no whole checkpoint of an epoch.
    """
    for _ in range(_GLANCES):
        rows = in_order(metrics_writer.read_rows(workdir), config)
        restored = checkpoints.restore_first(like, [row["step"] for row in rows])
        if restored is not None:
            best = rows[0]["epoch"]
            epoch = next(row["epoch"] for row in rows if row["step"] == restored.step)
            if epoch != best:
                _log.warning(
                    "the checkpoint of epoch %d, the best, is damaged or not there: taking that of "
                    "epoch %d",
                    best,
                    epoch,
                )
            return Best(epoch, restored.state, None if epoch == best else best)
    if not (workdir / files.RESULT).exists():
        raise UserError(
            f"no epoch of the run in {workdir} has a whole checkpoint yet: wait for it, or go on "
            "with --mode=train"
        )
    raise UserError(
        f"every checkpoint of an epoch in {checkpoints.directory} is missing or damaged, or from "
        "another version of this code: restore one, or train in another --workdir"
    )
