"""Starts workers together and measures them in turn, round after round."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

from benchmarks import peers
from cifar_jax.runtime import memory

Figures = dict[str, Any]
Jobs = dict[str, tuple[peers.Peer, Figures, bool]]
SETTINGS = ("as they come", "same memory settings")  # the peers'; ours always has its own


class WorkerFailed(Exception):
    """A worker ended instead of answering; the message is its last line of output."""


class Worker:
    """A process that makes steps of one network with one library, used as a context manager.

    It is killed `limit` seconds after its start.
    """

    def __init__(self, peer: peers.Peer, job: Figures, tuned: bool, limit: float | None = None):
        environment = {**os.environ, **dict(peer.variables)}
        environment.pop("GLIBC_TUNABLES", None)
        if tuned:
            environment["GLIBC_TUNABLES"] = memory.tunables("")
        self.batch_size = job["batch_size"]
        self._errors = tempfile.TemporaryFile("w+")  # an unread pipe would fill up
        self._process = subprocess.Popen(
            [peer.python(), str(peers.WORKERS / peer.worker), *peer.arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._end = threading.Timer(limit or threading.TIMEOUT_MAX, self._process.kill)
        self._end.daemon = True
        if limit:
            self._end.start()
        built = self._ask(job)
        self.build_seconds, self.first_seconds = built["build_seconds"], built["first_seconds"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self._end.cancel()
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _ask(self, question: Figures) -> Figures:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate()
            self._end.cancel()
            self._errors.seek(0)
            errors = self._errors.read()
            self._errors.close()
            killed = "killed: " * (self._process.returncode == -signal.SIGKILL)
            raise WorkerFailed(killed + (errors.strip().splitlines() or ["no message"])[-1])
        # Pause it until the next question: idle threads of some libraries spin.
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def rate(self, what: str, seconds: float) -> Figures:
        """Images per second of one kind of step over about `seconds`, and peak memory."""
        steps = getattr(self, f"_{what}_steps", 0)
        if not steps:
            probe = min(self._ask({"do": what, "steps": 2})["seconds"] for _ in range(2)) / 2
            steps = max(2, round(seconds / probe))
            setattr(self, f"_{what}_steps", steps)
        answer = self._ask({"do": what, "steps": steps})
        rate = steps * self.batch_size / answer["seconds"]
        peaks = {key: answer[key] for key in ("peak_bytes", "peak_device_bytes")}
        return {"images_per_second": rate, **peaks}

    def latencies(self, what: str, steps: int) -> list[float]:
        """Seconds of each of `steps` steps, made one after the other."""
        return self._ask({"do": what, "steps": steps, "each": True})["each"]


def alternate(
    jobs: Jobs,
    whats: Sequence[str],
    rounds: int,
    seconds: float,
    limit: float | None = None,
    starts: int = 1,
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Measures every job in turn, `rounds` times, each time in another order.

    Args:
      jobs: name -> peer, job, whether to use this project's memory settings.
      limit: seconds until workers are killed; None: never.
      starts: how many workers may start at the same time.

    Returns:
      For each name: `build_seconds`, `first_seconds` (of two steps, with compilation), the peak
      memory of host and device, and for each of `whats` the rates of all rounds. And for each
      worker that failed, why.
    """
    with contextlib.ExitStack() as stack:
        workers, failures = start(stack, jobs, whats, limit, starts)
        figures: dict[str, Figures] = {
            name: {"build_seconds": worker.build_seconds, "first_seconds": worker.first_seconds}
            | {what: [] for what in whats}
            for name, worker in workers.items()
        }
        for i in range(rounds):
            for name in rotated(list(workers), i):
                for what in whats:
                    answer = workers[name].rate(what, seconds)
                    figures[name][what].append(answer.pop("images_per_second"))
                    figures[name] |= answer
            print(f"  round {i + 1} of {rounds}", file=sys.stderr)
    return figures, failures


def start(
    stack: contextlib.ExitStack,
    jobs: Jobs,
    whats: Sequence[str],
    limit: float | None = None,
    starts: int = 1,
) -> tuple[dict[str, Worker], dict[str, str]]:
    """The jobs' workers, which live as long as `stack`; and why the others failed."""

    def begin(name: str) -> Worker | str:
        peer, job, tuned = jobs[name]
        try:
            return stack.enter_context(Worker(peer, {**job, "kinds": list(whats)}, tuned, limit))
        except (WorkerFailed, FileNotFoundError) as error:
            return str(error)

    with futures.ThreadPoolExecutor(starts) as pool:
        begun = dict(zip(jobs, pool.map(begin, jobs), strict=True))
    workers = {name: found for name, found in begun.items() if isinstance(found, Worker)}
    return workers, {name: found for name, found in begun.items() if isinstance(found, str)}


def rotated(names: list[str], by: int) -> Iterator[str]:
    for i in range(len(names)):
        yield names[(i + by) % len(names)]


def ratio(ours: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios in each round."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def in_words(ours: Sequence[float], other: Sequence[float]) -> str:
    """`ratio` as a table shows it."""
    middle, least, greatest = ratio(ours, other)
    return f"{middle:.2f} ({least:.2f}–{greatest:.2f})"
