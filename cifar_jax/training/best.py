"""Which epoch of a run is tested and used: the best one whose checkpoint can be read."""

import logging
from typing import Any, NamedTuple

from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Reader, layout, place

_log = logging.getLogger(__name__)
# How often the workdir is looked through: a run at work deletes what a glance has found, but then
# it has saved another.
_GLANCES = 3
ENTRIES = ("params", "batch_stats", "ema_params")  # of a checkpoint, that evaluation needs


class Best(NamedTuple):
    epoch: int  # from 1
    variables: dict[str, Any]  # "params", averaged ones where there are any, and "batch_stats"
    lost_epoch: int | None  # the best one, where its checkpoint cannot be read


def in_order(rows: list[dict[str, Any]], restore_best: bool) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`, that of the epoch to test first.

    Validation accuracy falls along them, and ties go to the earliest epoch. Without validation
    images, or with `restore_best` False, the newest comes first.
    """
    validates = all(row["validation_accuracy"] is not None for row in rows)
    if restore_best and validates:
        return sorted(rows, key=lambda row: -row["validation_accuracy"])
    return rows[::-1]


def averaged(saved: dict[str, Any]) -> dict[str, Any]:
    """What evaluation uses of a checkpoint's entries, as `TrainState.variables` has it."""
    params = saved["params"] if saved["ema_params"] is None else saved["ema_params"]
    return {"params": params, "batch_stats": saved["batch_stats"]}


def restore(
    checkpoints: Reader, like: dict[str, Any], workdir: epath.Path, restore_best: bool
) -> Best:
    """The best epoch of the run in `workdir`, which may be at work: a line says if it is not it.

    Only the variables are read, so that a run of an older version will do.

    Args:
      like: shapes, dtypes and shardings of "params" and "batch_stats".

    Raises:
      UserError: there is no whole checkpoint of an epoch, or those are of another network.
    """
    for _ in range(_GLANCES):
        rows = in_order(metrics_writer.read_rows(workdir), restore_best)
        steps = [row["step"] for row in rows]
        found = checkpoints.entries_of_first(ENTRIES, steps)
        if found is not None:
            step, saved = found
            variables = averaged(saved)
            if layout(variables) != layout(like):
                raise UserError(
                    f"the checkpoints in {checkpoints.directory} are of another network than that "
                    f"of {files.CONFIG}: restore the one they belong to"
                )
            best = rows[0]["epoch"]
            epoch = next(row["epoch"] for row in rows if row["step"] == step)
            if epoch != best:
                _log.warning(
                    "the checkpoint of epoch %d, the best, is damaged or not there: taking that of "
                    "epoch %d",
                    best,
                    epoch,
                )
            return Best(epoch, place(variables, like), None if epoch == best else best)
    if not (workdir / files.RESULT).exists():
        raise UserError(
            f"no epoch of the run in {workdir} has a whole checkpoint yet: wait for it, or go on "
            "with --mode=train"
        )
    raise UserError(
        f"every checkpoint of an epoch in {checkpoints.directory} is missing or damaged: restore "
        "one, or train in another --workdir"
    )
