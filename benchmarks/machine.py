"""What the measurements ran on, and where they are kept."""

import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from benchmarks.peers import ROOT
from cifar_jax import environment, workdir

RESULTS = ROOT / "results" / "benchmarks"


def describe() -> dict[str, Any]:
    """Versions, processor, cores; see `environment.json`."""
    return environment.collect()


def command() -> str:
    """What was typed to start this benchmark."""
    return " ".join(["python -m", f"benchmarks.{pathlib.Path(sys.argv[0]).stem}", *sys.argv[1:]])


def matmul_gflops(size: int = 2048, repeats: int = 9) -> float:
    """The median of a float32 matrix product's speed: what this machine can do at best."""
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
