"""The story of a run, from top to bottom."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from cifar_jax.config import validation as config_lib
from cifar_jax.runtime import checkpoint, distributed, environment, settings
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.interrupt import StopRequest
from cifar_jax.runtime.metrics_writer import whole_epochs
from cifar_jax.runtime.workdir_schema import RESULT
from cifar_jax.terminal import printable, say
from cifar_jax.training import experiment, run_data
from cifar_jax.training import test as evaluate
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.loop import Loop

# Takes the workdir and the experiment of a finished run; returns the page it wrote.
WriteReport = Callable[[epath.Path, Experiment], epath.Path]


@settings.pinned()
def run(
    config: ConfigDict,
    workdir: epath.Path,
    began: float | None = None,
    write_report: WriteReport | None = None,
) -> dict[str, Any]:
    """`--mode=train`: trains a config in `workdir` to its end, from wherever it stands.

    Args:
      began: `time.monotonic()` of the process' start; None: now.
      write_report: what makes a page of the finished run; None: there will be none.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: the config, the data or the workdir will not do, or the loss is not finite.
      Interrupted: a signal came; the state is saved.
    """
    began = time.monotonic() if began is None else began
    config_lib.validate(config)
    checkpoint.check_path(workdir)
    files.check_config(workdir, config)
    writes = distributed.is_writer()
    # ---------------------------------------------------------------- a finished run
    if (workdir / files.RESULT).exists():
        result = read_json(workdir / files.RESULT, RESULT)
        if writes:
            say(f"{printable(workdir)} holds the finished run of this config")
            say(evaluate.describe(result))
            if write_report and not (workdir / files.REPORT).exists():
                exp = experiment.build(config, run_data.load(config, workdir))
                _say_report(workdir, write_report(workdir, exp))
        return result

    with StopRequest() as stop, contextlib.ExitStack() as resources:
        # ------------------------------------------------------------ data, mesh, network
        exp = experiment.build(config, run_data.load(config, workdir))
        if writes:
            resources.enter_context(files.claimed(workdir, config))
            run_data.record(exp, workdir)

        # ------------------------------------------------------------ state, new or restored
        with Checkpoints(workdir / files.CHECKPOINTS) as checkpoints:
            # An epoch whose row was damaged is made again: every step is a function of its number.
            below = (whole_epochs(workdir, exp.steps_per_epoch) + 1) * exp.steps_per_epoch
            restored = checkpoints.restore_latest(exp.abstract_state(), below)
            state = restored.state if restored else exp.initial_state()
            step = restored.step if restored else 0
            checkpoints.forget_after(step)
            if writes:
                environment.record(workdir, " ".join(sys.argv), step)
                say(exp.describe(state))

            # -------------------------------------------------------- the loop
            loop = Loop(exp, checkpoints, stop, workdir)
            state = loop.run(state, restored.epoch_seconds if restored else 0.0)

            # -------------------------------------------------------- the test, once
            epochs = int(state.step) // exp.steps_per_epoch
            result = evaluate.final_test(exp, checkpoints, workdir, epochs)

    # ---------------------------------------------------------------- the report
    if writes:
        say(evaluate.describe(result))
        environment.record_end(workdir, time.monotonic() - began)
        if write_report:
            _say_report(workdir, write_report(workdir, exp))
    distributed.wait("all written")
    return result


def _say_report(workdir: epath.Path, path: epath.Path) -> None:
    say(f"everything is in {printable(workdir)}, for reading in {path.name}")
