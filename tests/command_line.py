"""Runs `main.py` as a user does: in a new process, on one device."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).parent.parent
HANGS = 600  # seconds until a process counts as hanging; a busy machine needs minutes for little
# LLVM optimizes nothing: compiling takes most of the time of these tests, and half of it that way.
# What XLA itself does with a program stays the same. test_compilation.py compiles at the usual
# level, as users do.
QUICK = "--xla_backend_optimization_level=0"
TINY = "--config=tests/configs/tiny.py"


def tiny_config() -> ConfigDict:
    """The config of `TINY`, for tests that call the package."""
    return runpy.run_path(str(ROOT / TINY.partition("=")[2]))["get_config"]()


def start(*arguments: str) -> subprocess.Popen:
    """Starts main.py with standard output and error in one pipe."""
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": QUICK},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*arguments: str) -> tuple[int, str]:
    """Runs main.py to completion; returns its exit status and its output."""
    return finish(start(*arguments))


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Waits for the end of a process; returns its exit status and its output.

    Raises:
      subprocess.TimeoutExpired: it hangs, and was killed.
    """
    with process:
        try:
            output, _ = process.communicate(timeout=HANGS)
        finally:
            process.kill()
    return process.returncode, output


def rows(workdir: pathlib.Path) -> list[dict]:
    """The rows of `metrics.jsonl` without the times."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def without_times(figures: dict) -> dict:
    times = {"seconds", "images_per_second", "train_seconds"}
    return {key: value for key, value in figures.items() if key not in times}
