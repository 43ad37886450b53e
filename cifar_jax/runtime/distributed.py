"""The processes of one run: how they find each other, who writes, what they agree on.

The only file that starts `jax.distributed` or asks for process indices.
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
    """What `jax.distributed.initialize` is to be called with; None: a process on its own.

    - `JAX_COORDINATOR_ADDRESS` (host:port), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, if set;
    - SLURM's variables in a step of several tasks (`srun`; a batch script is one process);
    - on a TPU, of one host or many, jax asks the machine.

    Raises:
      UserError: some of the variables are missing or are no numbers that fit.
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
    """True where jax will use a TPU: the machine has one, and its library is installed."""
    device = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    wanted = os.environ.get("JAX_PLATFORMS") or "tpu"  # empty: whatever there is
    return bool(device and importlib.util.find_spec("libtpu") and "tpu" in wanted)


def start(timeout: float) -> None:
    """Joins the processes of this run, if the surroundings say that there are several.

    A process that does not find the others within `timeout` seconds ends with status 75, as what
    may succeed later, after one line: jax itself would abort with a stack trace. Call before
    anything asks for devices.

    Raises:
      UserError: the surroundings contradict themselves.
    """
    found = arguments(os.environ, _has_tpu())
    if found is None:
        return

    def give_up() -> None:
        whom = found.get("coordinator_address", "the other processes")
        say(
            f"error: no answer from {printable(whom)} within {timeout:g} s: start all processes of "
            "the run at once, let them reach each other, or raise --join_timeout",
            sys.stderr,
        )
        os._exit(TRY_AGAIN)

    patience = threading.Timer(timeout, give_up)
    patience.daemon = True
    patience.start()
    # A process that fails waits for the others before it ends, while they may wait for it: briefly.
    jax.distributed.initialize(
        **found,
        initialization_timeout=round(2 * timeout) + 10,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    patience.cancel()


def device_count() -> int:
    """The devices of all processes.

    Raises:
      UserError: JAX has none of those that JAX_PLATFORMS asks for.
    """
    try:
        return jax.device_count()
    except (RuntimeError, AssertionError) as error:  # for want of a plugin, and of a device
        raise UserError(
            f"JAX has no device for JAX_PLATFORMS={jax.config.values['jax_platforms']}: unset it, "
            "or install requirements-cuda.txt or requirements-tpu.txt"
        ) from error


def several() -> bool:
    """True in a run of more than one process.

    Raises:
      UserError: as `device_count`.
    """
    device_count()
    return jax.process_count() > 1


def is_writer() -> bool:
    """True in the one process that writes files and prints.

    Raises:
      UserError: as `device_count`.
    """
    device_count()
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all processes have come to the point of this name."""
    multihost_utils.sync_global_devices(name)


def all_agree(flag: bool) -> bool:
    """True in every process if `flag` is true in each. All of them must call."""
    return bool(np.all(multihost_utils.process_allgather(np.int32(flag))))


def all_same(value: bytes) -> bool:
    """True in every process if `value` is the same in each, as its length is. All must call."""
    values = multihost_utils.process_allgather(np.frombuffer(value, np.uint8))
    return bool((values == values[0]).all())


def stop_agreed(poll: int) -> bool:
    """True in every process at one and the same poll after a SIGTERM came to any of them.

    Args:
      poll: the number of this call, from 1; each process makes the same calls.
    """
    return multihost_utils.reached_preemption_sync_point(poll)
