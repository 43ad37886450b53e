"""Where measurements are written, and the machine they ran on."""

import os
import pathlib
import re
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from benchmarks.peers import ROOT
from cifar_jax.runtime import environment, workdir

RESULTS = ROOT / "results" / "benchmarks"


def begin(output: str) -> dict[str, Any]:
    """The beginning of every report: `machine` and `command`.

    Call it before the first measurement, because it records the load of the machine.

    Raises:
      SystemExit: it would write evidence from a tree with uncommitted changes.
    """
    described = environment.collect() | {"load_average": os.getloadavg()[0]}
    if described["git_dirty"] is not False and RESULTS in pathlib.Path(output).resolve().parents:
        raise SystemExit(
            "error: evidence must come from a commit, and there are changes: commit them, or write "
            "somewhere else with --output"
        )
    return {"machine": described, "command": command()}


def origin(report: dict[str, Any]) -> str:
    """Machine, versions, commit and command of a report, in words."""
    machine = report["machine"]
    commit = f"at commit {machine['git_commit'][:7]}" if machine["git_commit"] else "at no commit"
    changes = ", from a tree with changes" if machine["git_dirty"] is not False else ""
    return (
        f"on {machine['cpu_count']}-core {machine['processor']}, Python {machine['python']}, jax "
        f"{machine['jax']}, {machine['time'][:10]}, {commit}{changes}, by `{report['command']}`"
    )


def measured(report: dict[str, Any]) -> str:
    """A sentence with the origin of measured times and the load of the machine, if known."""
    load = report["machine"].get("load_average")
    work = f"one-minute load at the start {load:.1f}" if load is not None else "load not recorded"
    return f"Measured {origin(report)}; {work}."


def command() -> str:
    """The command that started this benchmark, without where it writes.

    An absolute path, which says nothing to others, becomes ../NAME.
    """
    given = [option for option in sys.argv[1:] if not option.startswith("--output")]
    options = [re.sub("=/(.*/)?", "=../", option) for option in given]
    return " ".join(["python -m", f"benchmarks.{pathlib.Path(sys.argv[0]).stem}", *options])


def matmul_gflops(size: int = 2048, repeats: int = 9) -> float:
    """Median speed of a float32 matrix product: the best that this machine can do."""
    square = jnp.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        product(square).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds[1:]) / 1e9


def write(path: str, report: dict[str, Any]) -> None:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    workdir.write_json(epath.Path(path), report)
