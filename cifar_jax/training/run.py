"""A training run from start to end: one experiment, or several seeds of it side by side."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from cifar_jax.config.schema import Config
from cifar_jax.errors import UserError
from cifar_jax.runtime import checkpoint, distributed, environment, settings
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json, read_or_set_aside
from cifar_jax.runtime.checkpoint import Checkpoints, Restored
from cifar_jax.runtime.interrupt import StopRequest
from cifar_jax.runtime.metrics_writer import MetricsWriter, whole_epochs
from cifar_jax.runtime.workdir_schema import RESULT, SEEDS
from cifar_jax.terminal import printable, say
from cifar_jax.training import claim, experiment, features, initial, run_data, seeds, test
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.loop import Loop
from cifar_jax.training.member import Member

# Takes the workdir and the experiment of a finished run; returns the path of the page it wrote.
WriteReport = Callable[[epath.Path, Experiment], epath.Path]
OnEpoch = Callable[[dict[str, Any]], None]  # takes a row of metrics.jsonl


@settings.pinned()
def run(
    config: Config,
    workdir: epath.Path,
    began: float | None = None,
    write_report: WriteReport | None = None,
    on_epoch: OnEpoch | None = None,
    tests: bool = True,
) -> dict[str, Any]:
    """`--mode=train`: trains `config` in `workdir` to the end, or resumes it.

    Args:
      began: `time.monotonic()` at the start of the process; None: now.
      write_report: writes the report page of a finished run; None: no page.
      on_epoch: is told the row of each epoch once it is saved. What it raises ends the run there,
        and the run can be resumed. `main.py` passes what `config.wandb` asks for.
      tests: whether the test set is read after training. If not, resuming the run reads it.

    Returns:
      The content of `result.json`, or of `seeds.json` for several seeds; {} without the test.

    Raises:
      UserError: the data or the workdir cannot be used, or the loss is not finite.
      Interrupted: a signal arrived, and the state has been saved.
    """
    began = time.monotonic() if began is None else began
    checkpoint.check_path(workdir)
    claim.check_config(workdir, config)
    several, writes = config.seeds > 1, distributed.is_writer()
    if several and distributed.several():
        raise UserError("config.seeds needs a single process: start a separate run for each seed")
    # ---------------------------------------------------------------- a finished run
    finished = _finished(config, workdir)
    if finished is not None:
        if writes:
            say(f"{printable(workdir)} holds the finished run of this config")
            say(seeds.describe(finished) if several else test.describe(finished))
            if write_report and not several and not (workdir / files.REPORT).exists():
                dataset = run_data.load(config.data, config.seed, workdir)
                _say_report(workdir, write_report(workdir, experiment.build(config, dataset)))
        return finished

    with StopRequest() as stop, contextlib.ExitStack() as resources:
        # ------------------------------------------------------------ data, mesh, network
        runs = seeds.runs(config, workdir)
        is_new = not (workdir / files.CONFIG).exists()
        if is_new:
            initial.check_source(config.init)
        dataset = run_data.load(config.data, runs[0][0].seed, runs[0][1])
        for own, home in runs[1:]:
            run_data.check(own.data, own.seed, home, dataset)
        experiments = [experiment.build(own, dataset) for own, _ in runs]
        for exp in experiments if is_new else ():
            _ = exp.given_values  # refuses an unusable config.init before anything is written
        if several:
            resources.enter_context(claim.claimed(workdir, config))

        # ------------------------------------------------------------ states, new or restored
        homes = [home for _, home in runs]
        saved = [
            resources.enter_context(_home(*one)) for one in zip(experiments, homes, strict=True)
        ]
        restored = _restore(experiments, homes, saved)
        members = [
            resources.enter_context(_member(*one, stop))
            for one in zip(experiments, homes, saved, restored, strict=True)
        ]
        if writes:
            say(experiments[0].describe(members[0].state))

        # ------------------------------------------------------------ the loop
        Loop(members, stop, on_epoch).run()
        if not tests:
            return {}

        # ------------------------------------------------------------ the test, once
        results = [
            test.final_test(m.exp, m.checkpoints, m.workdir, m.step // m.exp.steps_per_epoch)
            for m in members
        ]

    # ---------------------------------------------------------------- the reports
    for member in members if writes else ():
        environment.record_end(member.workdir, time.monotonic() - began)
        if several and write_report:
            write_report(member.workdir, member.exp)
    if several:
        summary = seeds.summarize([m.exp.config.seed for m in members], results)
        files.write_json(workdir / files.SEEDS, summary)
        say(seeds.describe(summary))
        return summary
    if writes:
        say(test.describe(results[0]))
        if write_report:
            _say_report(workdir, write_report(workdir, experiments[0]))
    distributed.wait("all written")
    return results[0]


def _finished(config: Config, workdir: epath.Path) -> dict[str, Any] | None:
    """The result of a finished run; None if the run has not finished."""
    if config.seeds > 1:
        return read_or_set_aside(workdir / files.SEEDS, SEEDS) or None
    path = workdir / files.RESULT
    return read_json(path, RESULT) if path.exists() else None


@contextlib.contextmanager
def _home(exp: Experiment, workdir: epath.Path) -> Iterator[Checkpoints]:
    """Claims the workdir of one run and opens its checkpoints."""
    with contextlib.ExitStack() as resources:
        if distributed.is_writer():
            resources.enter_context(claim.claimed(workdir, exp.config))
            run_data.record(exp, workdir)
        yield resources.enter_context(Checkpoints(workdir / files.CHECKPOINTS))


def _restore(
    experiments: list[Experiment], workdirs: list[epath.Path], saved: list[Checkpoints]
) -> list[Restored | None]:
    """The latest checkpoint of each run, None for a new run.

    Unfinished runs go on together, so all of them get the checkpoint of the latest common step.
    """
    restored: list[Restored | None] = []
    for exp, workdir, checkpoints in zip(experiments, workdirs, saved, strict=True):
        # Epochs without an intact row are trained again; the steps come out the same.
        below = (whole_epochs(workdir, exp.steps_per_epoch) + 1) * exp.steps_per_epoch
        restored.append(checkpoints.restore_latest(exp.abstract_state(), below))
    while True:
        unfinished = [
            i for i, one in enumerate(restored)
            if one is None
            or not experiments[i].is_finished(one.step, bool(one.state.callbacks.should_stop))
        ]  # fmt: skip
        steps = {i: one.step if (one := restored[i]) else 0 for i in unfinished}
        ahead = [i for i, step in steps.items() if step > min(steps.values())]
        if not ahead:
            return restored
        for i in ahead:
            like, lowest = experiments[i].abstract_state(), min(steps.values())
            restored[i] = saved[i].restore_latest(like, lowest + 1) if lowest else None


@contextlib.contextmanager
def _member(
    exp: Experiment,
    workdir: epath.Path,
    checkpoints: Checkpoints,
    restored: Restored | None,
    stop: StopRequest,
) -> Iterator[Member]:
    """A run in its workdir, ready to train."""
    state = restored.state if restored else exp.initial_state()
    step = restored.step if restored else 0
    if not restored and exp.config.init.source and distributed.is_writer():
        file, digest = exp.loaded.file, exp.loaded.sha256
        files.write_json(workdir / files.INIT, {"file": file, "sha256": digest})
    checkpoints.forget_after(step)
    if distributed.is_writer():
        environment.record(workdir, " ".join(sys.argv), step)
    with MetricsWriter(workdir, step, exp.steps_per_epoch) as writer:
        seconds = restored.epoch_seconds if restored else 0.0
        exp = features.replace(exp, state.variables(), stop)
        yield Member(exp, workdir, checkpoints, writer, state, seconds)


def _say_report(workdir: epath.Path, path: epath.Path) -> None:
    say(f"all results are in {printable(workdir)}; open {path.name} for the report")
