"""Workers side by side: started together, then measured in turn, round after round."""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import peers
from cifar_jax import memory

Figures = dict[str, Any]
Jobs = dict[str, tuple[peers.Peer, Figures, bool]]
SETTINGS = ("as they come", "same memory settings")  # of the peers; ours has its own either way


class WorkerFailed(Exception):
    """A worker ended instead of answering; the message is its last line."""


class Worker:
    """A process that makes steps of one network with one library. Use as a context manager."""

    def __init__(self, peer: peers.Peer, job: Figures, tuned: bool):
        environment = {**os.environ, **dict(peer.variables)}
        environment.pop("GLIBC_TUNABLES", None)
        if tuned:
            environment["GLIBC_TUNABLES"] = memory.tunables("")
        self.batch_size = job["batch_size"]
        self._process = subprocess.Popen(
            [peer.python(), str(peers.WORKERS / peer.worker), *peer.arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.build_seconds = self._ask(job)["build_seconds"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, question: Figures) -> Figures:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise WorkerFailed((errors.strip().splitlines() or ["no message"])[-1])
        # Until it is asked again it must not disturb: some libraries' idle threads spin.
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def rate(self, what: str, seconds: float) -> Figures:
        """Images per second of a kind of step over about so many seconds, and peak memory."""
        steps = getattr(self, f"_{what}_steps", 0)
        if not steps:
            probe = min(self._ask({"do": what, "steps": 2})["seconds"] for _ in range(2)) / 2
            steps = max(2, round(seconds / probe))
            setattr(self, f"_{what}_steps", steps)
        answer = self._ask({"do": what, "steps": steps})
        rate = steps * self.batch_size / answer["seconds"]
        return {"images_per_second": rate, "peak_bytes": answer["peak_bytes"]}

    def latencies(self, what: str, steps: int) -> list[float]:
        """Seconds that each of so many steps takes, one after the other."""
        return self._ask({"do": what, "steps": steps, "each": True})["each"]


def alternate(
    jobs: Jobs,
    whats: Sequence[str],
    rounds: int,
    seconds: float,
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Measures every job in turn, `rounds` times, each time in another order.

    Args:
      jobs: name -> peer, job, whether with this project's memory settings.

    Returns:
      For each name `build_seconds`, `peak_bytes` and, of each of `whats`, the rates of the rounds;
      and, of those that failed, why.
    """
    with contextlib.ExitStack() as stack:
        workers, failures = start(stack, jobs, whats)
        figures: dict[str, Figures] = {
            name: {"build_seconds": worker.build_seconds} | {what: [] for what in whats}
            for name, worker in workers.items()
        }
        for i in range(rounds):
            for name in rotated(list(workers), i):
                for what in whats:
                    answer = workers[name].rate(what, seconds)
                    figures[name][what].append(answer["images_per_second"])
                    figures[name]["peak_bytes"] = answer["peak_bytes"]
            print(f"  round {i + 1} of {rounds}", file=sys.stderr)
    return figures, failures


def start(
    stack: contextlib.ExitStack, jobs: Jobs, whats: Sequence[str]
) -> tuple[dict[str, Worker], dict[str, str]]:
    """The jobs' workers, which live as long as `stack`; and, of those that failed, why."""
    workers: dict[str, Worker] = {}
    failures: dict[str, str] = {}
    for name, (peer, job, tuned) in jobs.items():
        try:
            worker = Worker(peer, {**job, "kinds": list(whats)}, tuned)
            workers[name] = stack.enter_context(worker)
        except (WorkerFailed, FileNotFoundError) as error:
            failures[name] = str(error)
    return workers, failures


def rotated(names: list[str], by: int) -> Iterator[str]:
    for i in range(len(names)):
        yield names[(i + by) % len(names)]


def ratio(ours: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios round by round."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
