"""The story of a run, from top to bottom."""

import contextlib
import sys
import time
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from cifar_jax import checkpoint, distributed, environment, evaluate, experiment, run_data, settings
from cifar_jax import config as config_lib
from cifar_jax import workdir as files
from cifar_jax.checked import read_json
from cifar_jax.checkpoint import Checkpoints
from cifar_jax.experiment import Experiment
from cifar_jax.interrupt import StopRequest
from cifar_jax.loop import Loop
from cifar_jax.metrics_writer import whole_epochs
from cifar_jax.terminal import printable, say
from cifar_jax.workdir_schema import RESULT


@settings.pinned()
def run(config: ConfigDict, workdir: epath.Path, began: float | None = None) -> dict[str, Any]:
    """`--mode=train`: trains a config in `workdir` to its end, from wherever it stands.

    Args:
      began: `time.monotonic()` of the process' start; None: now.

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
            if not (workdir / files.REPORT).exists():
                _report(workdir, experiment.build(config, run_data.load(config, workdir)))
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
        _report(workdir, exp)
    distributed.wait("all written")
    return result


def _report(workdir: epath.Path, exp: Experiment) -> None:
    from cifar_jax.report import page  # draws with a library that nothing else needs

    page_name = page.write(workdir, exp).name
    say(f"everything is in {printable(workdir)}, for reading in {page_name}")
