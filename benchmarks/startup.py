"""Measures the time from `python main.py` to the first training step, cold and warm.

python -m benchmarks.startup [--config=configs/final.py] [--repeats=3]

Cold means without cached programs; the decoded data set is cached either way. It also measures
`--help`. Writes results/benchmarks/startup.json.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import machine, peers

_CONFIG = flags.DEFINE_string("config", "configs/final.py", "what to train")
_REPEATS = flags.DEFINE_integer("repeats", 3, "starts of each kind", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "startup.json"), "where to write")
_MARK = "first step done"


def seconds_to(mark: str | None, arguments: list[str], programs: pathlib.Path) -> float:
    """Seconds until main.py prints `mark`; if that is None, until it ends."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(programs)}
    # As main.py sets it when it chooses the directory.
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "main.py", *arguments],
        cwd=peers.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if mark is not None and mark in line:
            seconds = time.perf_counter() - began
            process.kill()
            process.communicate()
            return seconds
    process.wait()
    if mark is not None:
        raise SystemExit(f"main.py ended before its first step:\n{text}")
    return time.perf_counter() - began


def main(arguments: list[str]) -> None:
    del arguments
    begun = machine.begin(_OUTPUT.value)
    figures: dict[str, list[float]] = {"cold": [], "warm": [], "help": []}
    with tempfile.TemporaryDirectory() as home:
        root = pathlib.Path(home)

        def start(kind: str, programs: pathlib.Path) -> None:
            workdir = root / f"{kind}-{len(figures[kind])}"
            command = [f"--config={_CONFIG.value}", f"--workdir={workdir}"]
            figures[kind].append(seconds_to(_MARK, command, programs))

        seconds_to(_MARK, [f"--config={_CONFIG.value}", f"--workdir={root / 'first'}"], root / "x")
        for i in range(_REPEATS.value):
            start("cold", root / f"programs-{i}")
            start("warm", root / f"programs-{i}")
            figures["help"].append(seconds_to(None, ["--help"], root / "x"))
    for kind, seconds in figures.items():
        print(f"{kind}: {statistics.median(seconds):.2f} s [{min(seconds):.2f} {max(seconds):.2f}]")
    machine.write(_OUTPUT.value, {**begun, "seconds": figures})


if __name__ == "__main__":
    app.run(main)
