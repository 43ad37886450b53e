"""Several seeds of one config, trained side by side on one device.

Each is the run that its seed alone would make, but for the rounding of sums in another order, and
has a workdir of its own, `seed-<n>`, that every mode reads like any other. What a small network
leaves idle of a large device, the others use.
"""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from cifar_jax.config import validation as config_lib
from cifar_jax.errors import UserError
from cifar_jax.runtime import checkpoint, compilation, distributed, environment, settings, sharding
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_or_set_aside
from cifar_jax.runtime.checkpoint import Checkpoints
from cifar_jax.runtime.interrupt import Interrupted, StopRequest
from cifar_jax.runtime.metrics_writer import MetricsWriter, Progress, whole_epochs
from cifar_jax.runtime.workdir_schema import SEEDS, SUMMARIZED
from cifar_jax.terminal import printable, say
from cifar_jax.training import experiment, run_data, steps
from cifar_jax.training import test as evaluate
from cifar_jax.training.experiment import Experiment
from cifar_jax.training.loop import Loop
from cifar_jax.training.run import WriteReport
from cifar_jax.training.state import TrainState


@dataclasses.dataclass
class _Member:
    """The run of one seed."""

    exp: Experiment
    workdir: epath.Path
    checkpoints: Checkpoints
    loop: Loop
    state: TrainState
    writer: MetricsWriter

    @property
    def epochs(self) -> int:
        """How many it has made."""
        return int(self.state.step) // self.exp.steps_per_epoch

    @property
    def is_finished(self) -> bool:
        return evaluate.is_finished(self.exp, self.state)


@settings.pinned()
def run(
    config: ConfigDict,
    workdir: epath.Path,
    began: float | None = None,
    write_report: WriteReport | None = None,
) -> dict[str, Any]:
    """`--mode=train` of `config.seeds` seeds from `config.seed` on.

    A signal is answered at the next step; the epoch it falls into is trained again on resume.

    Args:
      began: `time.monotonic()` of the process' start; None: now.
      write_report: what makes a page of each run; None: there will be none.

    Returns:
      The content of `seeds.json`: the seeds, and of each figure its mean, sample standard deviation
      and values.

    Raises:
      UserError: as `train.run`, or there are several processes.
      Interrupted: a signal came; the last whole epoch is saved.
    """
    began = time.monotonic() if began is None else began
    config_lib.validate(config)
    checkpoint.check_path(workdir)
    files.check_config(workdir, config)
    if distributed.several():
        raise UserError("config.seeds is for one process: start a run of its own for each seed")
    summary = read_or_set_aside(workdir / files.SEEDS, SEEDS)
    if summary:
        say(f"{printable(workdir)} holds the finished runs of this config\n{describe(summary)}")
        return summary

    with StopRequest() as stop, contextlib.ExitStack() as resources:
        dataset = run_data.load(config, _home(workdir, config))
        for member in _configs(config):
            run_data.check(member, _home(workdir, member), dataset)
        experiments = [experiment.build(member, dataset) for member in _configs(config)]
        resources.enter_context(files.claimed(workdir, config))
        members = [resources.enter_context(_member(exp, workdir, stop)) for exp in experiments]
        say(members[0].exp.describe(members[0].state))
        _train(members, stop)
        results = [evaluate.final_test(m.exp, m.checkpoints, m.workdir, m.epochs) for m in members]

    summary = {"seeds": [m.exp.config.seed for m in members], **_summarise(results)}
    for member in members:
        environment.record_end(member.workdir, time.monotonic() - began)
        if write_report:
            write_report(member.workdir, member.exp)
    files.write_json(workdir / files.SEEDS, summary)
    say(describe(summary))
    return summary


def _configs(config: ConfigDict) -> Iterator[ConfigDict]:
    for seed in range(config.seed, config.seed + config.seeds):
        member = config.copy_and_resolve_references()
        member.seed, member.seeds = seed, 1
        yield member


def _home(workdir: epath.Path, member: ConfigDict) -> epath.Path:
    return workdir / f"seed-{member.seed}"


@contextlib.contextmanager
def _member(exp: Experiment, parent: epath.Path, stop: StopRequest) -> Iterator[_Member]:
    config = exp.config
    workdir = _home(parent, config)
    with files.claimed(workdir, config), Checkpoints(workdir / files.CHECKPOINTS) as checkpoints:
        run_data.record(exp, workdir)
        per_epoch = exp.steps_per_epoch
        below = (whole_epochs(workdir, per_epoch) + 1) * per_epoch  # as in train.run
        restored = checkpoints.restore_latest(exp.abstract_state(), below)
        state = restored.state if restored else exp.initial_state()
        step = int(state.step)
        checkpoints.forget_after(step)
        environment.record(workdir, " ".join(sys.argv), step)
        with MetricsWriter(workdir, step, per_epoch) as writer:
            loop = Loop(exp, checkpoints, stop, workdir)
            yield _Member(exp, workdir, checkpoints, loop, state, writer)


def _train(members: list[_Member], stop: StopRequest) -> None:
    """Trains all to their ends, those that are behind first."""
    first = members[0].exp
    per_epoch, progress = first.steps_per_epoch, None
    train_epoch = _make_epoch(members)
    while any(not m.is_finished for m in members):
        step = min(int(m.state.step) for m in members if not m.is_finished)
        progress = progress or Progress(first.config.epochs, per_epoch, step)
        began = time.monotonic()
        states = train_epoch(step // per_epoch, stop, progress)
        speed = per_epoch * first.config.batch_size / (time.monotonic() - began)
        rows = []
        for member, state in zip(members, states, strict=True):
            if not member.is_finished and int(member.state.step) == step:
                row, member.state = member.loop.close_epoch(state, began, speed, member.writer)
                rows.append(row)
        progress.close_epoch(_mean(rows))
    if progress:
        progress.close()


def _make_epoch(members: list[_Member]) -> Callable[[int, StopRequest, Progress], list[TrainState]]:
    """Returns a function from an epoch to the states of all members after it.

    Members of another epoch, or at their end, are computed as well, and their states are of no use.
    """
    first = members[0].exp
    step = steps.make_step(first.config, first.model, first.optimizer, first.l2, first.mesh)
    put = first.put
    seeds = put(np.array([m.exp.config.seed for m in members], np.uint32))
    means = [m.exp.statistics for m in members]
    statistics = put(jax.tree.map(lambda *leaves: np.stack(leaves), *means))
    # Each has a training split of its own.
    arrays = put(jax.tree.map(lambda *leaves: np.stack(leaves), *(m.exp.train for m in members)))
    dispatch = steps.dispatch(
        lambda state, arrays, order: jax.vmap(step)(state, arrays, order, seeds, statistics),
        first.mesh,
    )
    stack = compilation.jit(
        lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees),
        out_shardings=sharding.replicated(first.mesh),
    )

    def epoch_of(epoch: int, stop: StopRequest, progress: Progress) -> list[TrainState]:
        began = time.monotonic()
        state = stack([m.state for m in members])
        order = stack([m.exp.epoch_order(epoch) for m in members])
        done = 0
        while done < first.steps_per_epoch:
            size = min(members[0].loop.per_dispatch, first.steps_per_epoch - done)
            state, sums = dispatch(state, arrays, order, size)
            done += size
            sums = jax.device_get(sums)
            images = done * first.config.batch_size
            progress.update(
                epoch * first.steps_per_epoch + done,
                float(np.mean(sums.loss)) / done,
                float(np.mean(sums.correct)) / images,
                images / (time.monotonic() - began),
            )
            if stop.requested:
                raise Interrupted(
                    f"interrupted in epoch {epoch + 1}: those before are saved in "
                    f"{members[0].workdir.parent}; run again to resume"
                )
        return [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(len(members))]

    return epoch_of


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A row whose figures are the means of those of `rows`."""
    means = {
        key: None if rows[0][key] is None else statistics.mean(row[key] for row in rows)
        for key in rows[0]
    }
    return means | {"epoch": rows[0]["epoch"], "step": rows[0]["step"]}


def _summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    summary = {}
    for key in SUMMARIZED:
        values = [result[key] for result in results if result.get(key) is not None]
        if values:
            mean, std = statistics.mean(values), statistics.stdev(values)
            summary[key] = {"mean": mean, "std": std, "values": values}
    return summary


def describe(summary: dict[str, Any]) -> str:
    """A summary in a few lines, for a person."""
    seeds = summary["seeds"]
    spread = "both values" if len(seeds) == 2 else "mean and standard deviation"
    lines = [f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}: {spread}"]
    for key in SUMMARIZED:
        if figures := summary.get(key):
            shown = f"{figures['mean']:.4f} +- {figures['std']:.4f}"
            if len(seeds) == 2:  # of which no spread can be told
                shown = ", ".join(f"{value:.4f}" for value in figures["values"])
            lines.append(f"{key.replace('_', ' ')}: {shown}")
    return "\n".join(lines)
