"""Runs with several processes: how they find each other, which one writes, how they agree.

This is the only file that starts `jax.distributed` or asks for process indices.
"""

import glob
import importlib.util
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cifar_jax.errors import TRY_AGAIN, UserError
from cifar_jax.terminal import printable, say

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_SHUTDOWN_SECONDS = 20


def arguments(environment: Mapping[str, str], has_tpu: bool) -> dict[str, Any] | None:
    """The arguments for `jax.distributed.initialize`; None for a run with a single process.

    They come from
    - `JAX_COORDINATOR_ADDRESS` (host:port), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, if set;
    - else SLURM's variables, in a job step with several tasks (`srun`, not a batch script);
    - else the TPU machine itself, with one host or many: jax asks it.

    Raises:
      UserError: some of the three variables are missing or invalid.
    """
    given = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    if given:
        missing = [name for name in _VARIABLES if name not in given]
        if missing:
            raise UserError(f"{' and '.join(given)} without {' and '.join(missing)}: set all three")
        address, number, index = given.values()
        fits = number.isdigit() and index.isdigit() and int(index) < int(number)
        if not fits or not address.rpartition(":")[2].isdigit():
            raise UserError(
                f"{', '.join(f'{name}={value}' for name, value in given.items())}: set host:port, "
                "a number of processes, and an index from 0 below that number"
            )
        return {
            "coordinator_address": address,
            "num_processes": int(number),
            "process_id": int(index),
        }
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return {"cluster_detection_method": "slurm"}
    return {} if has_tpu else None


def _has_tpu() -> bool:
    """Whether jax will use a TPU: the machine has one, and libtpu is installed."""
    device = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    wanted = os.environ.get("JAX_PLATFORMS") or "tpu"  # empty means the best one available
    return bool(device and importlib.util.find_spec("libtpu") and "tpu" in wanted)


def start(timeout: float) -> None:
    """Joins the other processes of this run, if the environment says that there are any.

    If they do not answer within `timeout` seconds, this process prints one line and exits with
    status 75 (try again later); jax itself would abort with a stack trace. Call before anything
    asks for devices.

    Raises:
      UserError: see `arguments`.
    """
    found = arguments(os.environ, _has_tpu())
    if found is None:
        return

    def give_up() -> None:
        whom = found.get("coordinator_address", "the other processes")
        say(
            f"error: no answer from {printable(whom)} within {timeout:g} s: start all processes of "
            "the run at once, make sure they can reach each other, or raise --join_timeout",
            sys.stderr,
        )
        os._exit(TRY_AGAIN)

    patience = threading.Timer(timeout, give_up)
    patience.daemon = True
    patience.start()
    # A failing process waits for the others at shutdown, and they may be waiting for it: keep it
    # short.
    jax.distributed.initialize(
        **found,
        initialization_timeout=round(2 * timeout) + 10,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    patience.cancel()


def device_count() -> int:
    """The number of devices of all processes together.

    Raises:
      UserError: JAX has no device of the kind that JAX_PLATFORMS asks for.
    """
    try:
        return jax.device_count()
    except (RuntimeError, AssertionError) as error:  # no plugin, or no device
        raise UserError(
            f"JAX has no device for JAX_PLATFORMS={jax.config.values['jax_platforms']}: unset it, "
            "or install requirements-cuda.txt or requirements-tpu.txt"
        ) from error


def several() -> bool:
    """Whether the run has more than one process.

    Raises:
      UserError: see `device_count`.
    """
    device_count()
    return jax.process_count() > 1


def is_writer() -> bool:
    """Whether this is the one process that writes files and prints.

    Raises:
      UserError: see `device_count`.
    """
    device_count()
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all processes have made this call with this name."""
    multihost_utils.sync_global_devices(name)


def all_agree(flag: bool) -> bool:
    """Whether `flag` is true in every process. All processes must call this."""
    return bool(np.all(multihost_utils.process_allgather(np.int32(flag))))


def all_same(value: bytes) -> bool:
    """Whether `value` is the same in every process. All must call this, with equal lengths."""
    values = multihost_utils.process_allgather(np.frombuffer(value, np.uint8))
    return bool((values == values[0]).all())


def stop_agreed(poll: int) -> bool:
    """Whether to stop: True in all processes at the same poll, after any of them got a SIGTERM.

    Args:
      poll: the number of this call, from 1; all processes must make the same calls.
    """
    return multihost_utils.reached_preemption_sync_point(poll)
