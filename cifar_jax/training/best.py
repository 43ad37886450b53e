"""Finds the epoch of a run to test and use: the best one with a readable checkpoint."""

import logging
from typing import Any, NamedTuple

from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.runtime import metrics_writer
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checkpoint import Reader, layout, place

_log = logging.getLogger(__name__)
# How often to look for a checkpoint: a run in progress may delete the one just found, but only
# after it has saved another.
_ATTEMPTS = 3
_ENTRIES = ("params", "batch_stats", "ema_params")  # of a checkpoint, for evaluation


class Best(NamedTuple):
    """The epoch to use."""

    epoch: int  # from 1
    variables: dict[str, Any]  # "params", averaged if the run averages them, and "batch_stats"
    lost_epoch: int | None  # a better epoch whose checkpoint cannot be read


def in_order(rows: list[dict[str, Any]], restore_best: bool) -> list[dict[str, Any]]:
    """Sorts rows of `metrics.jsonl`, the best epoch first.

    The best epoch has the highest validation accuracy; ties go to the earliest. Without validation
    images, or if `restore_best` is False, the newest epoch comes first.
    """
    validates = all(row["validation_accuracy"] is not None for row in rows)
    if restore_best and validates:
        return sorted(rows, key=lambda row: -row["validation_accuracy"])
    return rows[::-1]


def restore(
    checkpoints: Reader, like: dict[str, Any], workdir: epath.Path, restore_best: bool
) -> Best:
    """Restores the best epoch of the run in `workdir` to the devices; see `find`.

    Args:
      like: shapes, dtypes and shardings of "params" and "batch_stats".

    Raises:
      UserError: no epoch has an intact checkpoint, or the checkpoints belong to another network.
    """
    found = find(checkpoints, workdir, restore_best)
    if layout(found.variables) != layout(like):
        raise UserError(
            f"the checkpoints in {checkpoints.directory} do not fit the network of "
            f"{files.CONFIG}: restore the {files.CONFIG} that they belong to"
        )
    return found._replace(variables=place(found.variables, like))


def find(checkpoints: Reader, workdir: epath.Path, restore_best: bool) -> Best:
    """Reads the best epoch of the run in `workdir`, which may be in progress, to the host.

    Logs a warning if it has to take another epoch. Reads only the variables, so runs of older
    versions work.

    Raises:
      UserError: no epoch has an intact checkpoint.
    """
    for _ in range(_ATTEMPTS):
        rows = in_order(metrics_writer.read_rows(workdir), restore_best)
        steps = [row["step"] for row in rows]
        found = checkpoints.entries_of_first(_ENTRIES, steps)
        if found is not None:
            step, saved = found
            # What `TrainState.variables` gives.
            params = saved["params"] if saved["ema_params"] is None else saved["ema_params"]
            variables = {"params": params, "batch_stats": saved["batch_stats"]}
            best = rows[0]["epoch"]
            epoch = next(row["epoch"] for row in rows if row["step"] == step)
            if epoch != best:
                _log.warning(
                    "the checkpoint of the best epoch, %d, is damaged or missing: using epoch %d",
                    best,
                    epoch,
                )
            return Best(epoch, variables, None if epoch == best else best)
    if not (workdir / files.RESULT).exists():
        raise UserError(
            f"no epoch of the run in {workdir} has an intact checkpoint yet: wait for one, or "
            "resume with --mode=train"
        )
    raise UserError(
        f"every checkpoint of an epoch in {checkpoints.directory} is missing or damaged: restore "
        "one, or train in another --workdir"
    )
