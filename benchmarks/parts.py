"""Writes parts of a report figure by figure, and runs main.py as a process to measure."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine, peers, session
from cifar_jax.errors import TRY_AGAIN
from cifar_jax.runtime import workdir as files

Figures = dict[str, Any]
_LEAST = 10.0  # seconds; with less time left, nothing new starts


class Failed(Exception):
    """A figure could not be measured; the message is one line."""


@dataclasses.dataclass
class Part:
    """One file of figures, written again after each figure."""

    path: pathlib.Path
    begun: Figures
    end: float  # when all parts must be done, by time.monotonic()
    small: bool
    figures: Figures = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)  # protects `figures`

    def measure(self, key: str, work: Callable[[float], Figures], most: float = 90.0) -> None:
        """Records what `work(limit)` returns; it should take at most `limit` seconds."""
        began = time.monotonic()
        try:
            if self.end - began < _LEAST:
                raise Failed("no time left")
            found = work(min(self.end - began, most))
        except (Failed, session.WorkerFailed, OSError) as error:
            found = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
        with self._lock:
            self.figures[key] = found | {"wall_seconds": round(time.monotonic() - began, 1)}
            report = {**self.begun, "small": self.small, "figures": self.figures}
            machine.write(str(self.path), report)
            print(f"{self.path.stem}, {key}: {json.dumps(self.figures[key])[:600]}", flush=True)


def run(
    command: list[str], limit: float, stop: str = "", variables: dict[str, str] | None = None
) -> tuple[int, list[str], dict[str, float]]:
    """Runs Python in a new process and kills it after `limit` seconds.

    Args:
      stop: SIGTERM is sent once a line contains this; "": never.

    Returns:
      Exit status, lines of both outputs, and the seconds to the first step and to the end.
    """
    began, lines, seconds = time.monotonic(), [], {}
    with subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=peers.ROOT,
        env={**os.environ, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if "first step done" in line:
                seconds["to_first_step"] = time.monotonic() - began
            if stop and stop in line:
                process.send_signal(signal.SIGTERM)
        status = process.wait()
        timer.cancel()
    return status, lines, seconds | {"whole_command": time.monotonic() - began}


def train(
    arguments: list[str], limit: float, stop: str = "", variables: dict[str, str] | None = None
) -> dict[str, float]:
    """The seconds of main.py, as `run` returns them; raises Failed if it does not succeed."""
    status, lines, seconds = run(["main.py", *arguments], limit, stop, variables)
    if status == -signal.SIGKILL:
        raise Failed(f"main.py was killed after {seconds['whole_command']:.0f} s")
    if status != (TRY_AGAIN if stop else 0):
        raise Failed(f"main.py ended with {status}: {(lines or ['no message'])[-1]}")
    return seconds


def rows(workdir: pathlib.Path) -> list[Figures]:
    return [json.loads(line) for line in (workdir / files.METRICS).read_text().splitlines()]
