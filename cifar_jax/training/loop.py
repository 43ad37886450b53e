"""The training loop: steps in dispatches, dispatches in epochs, and what happens in between.

It trains one run, or several seeds of one config side by side: these share one program, with a lane
and a workdir for each.
"""

import collections
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.interrupt import Interrupted, StopRequest
from cifar_jax.runtime.metrics_writer import Progress
from cifar_jax.training import progressive
from cifar_jax.training.lanes import make_lanes
from cifar_jax.training.member import Member
from cifar_jax.training.state import EpochSums, TrainState

# Dispatches in flight before the loop reads the sums of the oldest: enough that the device never
# waits for the host, few enough that the loop reacts to a signal or a NaN within a few steps.
_AHEAD = 2
_PROFILED = range(3, 8)  # dispatches of this process to trace, after compilation


class Loop:
    """Trains runs until each has ended."""

    def __init__(
        self,
        members: list[Member],
        stop: StopRequest,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ):
        """Takes runs whose configs differ only in the seed; unfinished ones are at one step."""
        self.members, self.stop, self.on_epoch = members, stop, on_epoch
        self.lanes = make_lanes([member.exp for member in members])
        config = members[0].exp.config
        self.batch_size = config.batch_size
        self.costs = progressive.costs(config.augment.sides, config.epochs)
        self.save_every, self.profiles = config.checkpoint.every_steps, config.profile
        self.per_epoch = members[0].exp.steps_per_epoch
        by_default = 1 if jax.default_backend() == "cpu" else 50
        self.per_dispatch = config.steps_per_dispatch or by_default
        self.dispatches = 0

    @property
    def running(self) -> list[Member]:
        """The members that have not finished."""
        return [member for member in self.members if not member.is_finished]

    def run(self) -> None:
        """Trains all members to the end.

        Raises:
          UserError: the loss is not finite.
          Interrupted: a signal arrived, and the state has been saved.
        """
        if not self.running:
            return
        progress = Progress(self.costs, self.per_epoch, self.running[0].step)
        try:
            while running := self.running:
                began = time.monotonic() - max(member.epoch_seconds for member in running)
                speed = self._train_epoch(began, progress)
                rows = [member.close_epoch(began, speed) for member in running]
                progress.close_epoch(_mean(rows))
                for member, row in zip(running, rows, strict=True):
                    member.epoch_seconds = 0.0
                    if self.on_epoch:
                        self.on_epoch(row)
                if self.stop.requested and self.running:
                    self._leave(rows[0]["step"])
        finally:
            progress.close()

    def _train_epoch(self, began: float, progress: Progress) -> float:
        """Trains the rest of the current epoch; returns images per second."""
        running = self.running
        first = step = running[0].step
        end = (step // self.per_epoch + 1) * self.per_epoch
        epoch = step // self.per_epoch
        dispatch, order = self.lanes.dispatch(epoch), self.lanes.order(epoch)
        state = self.lanes.join([member.state for member in self.members])
        under_way: collections.deque[tuple[int, EpochSums]] = collections.deque()
        start = time.monotonic() - 1e-6  # never zero seconds, even with a coarse clock
        while step < end:
            # Dispatches start at multiples of their size, so that a resumed run has the same ones.
            position = step % self.per_epoch
            size = min(self.per_dispatch - position % self.per_dispatch, end - step)
            self._profile()
            self.stop.poll()
            state, sums = dispatch(state, self.lanes.arrays, order, size)
            if self.dispatches == 1:
                jax.block_until_ready(sums)
                progress.say("first step done")
            every = self.save_every
            passed = every and step // every != (step + size) // every
            step += size
            under_way.append((step, sums))
            if len(under_way) > _AHEAD:
                done, sums = under_way.popleft()
                speed = (done - first) * self.batch_size / (time.monotonic() - start)
                self._read(running, done, sums, speed, progress)
            if step < end and (passed or self.stop.requested):
                self._hand_out(running, state)
                for member in running:
                    member.check_finite()
                    member.checkpoints.save(step, member.state, time.monotonic() - began)
                if self.stop.requested:
                    self._leave(step)
        jax.block_until_ready(state.sums)
        speed = (end - first) * self.batch_size / (time.monotonic() - start)
        self._hand_out(running, state)
        return speed

    def _hand_out(self, running: list[Member], state: TrainState) -> None:
        """Gives each running member its new state. A finished one keeps its own."""
        for member, own in zip(self.members, self.lanes.split(state), strict=True):
            if member in running:
                member.state = own

    def _read(
        self,
        running: list[Member],
        step: int,
        sums: EpochSums,
        images_per_second: float,
        progress: Progress,
    ) -> None:
        """Reads and shows the sums of a dispatch that has most likely ended."""
        every = zip(self.members, self.lanes.split(jax.device_get(sums)), strict=True)
        known = [(member, own) for member, own in every if member in running]
        for member, own in known:
            if own.nonfinite_step >= 0:
                member.diverged(int(own.nonfinite_step))
        loss = statistics.fmean(float(own.loss / own.steps) for _, own in known)
        right = statistics.fmean(int(own.correct) / int(own.steps) for _, own in known)
        progress.update(step, loss, right / self.batch_size, images_per_second)

    def _leave(self, step: int) -> None:
        first = self.members[0].workdir
        where = first.parent if self.members[1:] else first
        raise Interrupted(f"interrupted: saved step {step} in {where}; run again to resume")

    def _profile(self) -> None:
        """Starts or stops the profiler; called before each dispatch."""
        self.dispatches += 1
        if self.profiles and self.dispatches == _PROFILED.start:
            jax.profiler.start_trace(str(self.members[0].workdir / files.PROFILE))
        elif self.profiles and self.dispatches == _PROFILED.stop:
            jax.profiler.stop_trace()


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A row with the means of the figures of all rows."""
    means = {
        key: None if rows[0][key] is None else statistics.fmean(row[key] for row in rows)
        for key in rows[0]
    }
    return means | {"epoch": rows[0]["epoch"], "step": rows[0]["step"]}
