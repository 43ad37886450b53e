"""Measures speed and peak memory of `--mode=predict` on a directory of generated JPEGs.

python -m benchmarks.predict [--network=final] [--images=10000] [--size=256] [--rounds=3]

The network trains for one epoch on the bundled digits, because its speed does not depend on its
weights. One image, a tenth and all of them separate the start and the growth of memory from the
rest.
Writes results/benchmarks/predict.json.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks import machine, peers

_NETWORK = flags.DEFINE_string("network", "final", "the config to use")
_IMAGES = flags.DEFINE_integer("images", 10_000, "how many", lower_bound=10)
_SIZE = flags.DEFINE_integer("size", 256, "their height and width in pixels", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements of each", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "predict.json"), "where to write")


def _generate(directory: pathlib.Path) -> None:
    """Writes JPEGs with about the detail of photographs: enlarged coarse noise."""
    rng = np.random.default_rng(0)
    size = (_SIZE.value, _SIZE.value)
    for i in range(_IMAGES.value):
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(directory / f"{i:06}.jpg")


def _measure(workdir: pathlib.Path, paths: list[pathlib.Path]) -> tuple[float, int]:
    """Seconds from the start of main.py to its end, and its peak memory in bytes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "main.py", "--mode=predict", f"--workdir={workdir}", "--format=csv"]
        + [str(path) for path in paths],
        cwd=peers.ROOT,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"main.py ended with status {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def main(arguments: list[str]) -> None:
    del arguments
    report: dict[str, Any] = {
        **machine.begin(_OUTPUT.value),
        "network": _NETWORK.value,
        "size": _SIZE.value,
        "images": {},
    }
    with tempfile.TemporaryDirectory() as home:
        root = pathlib.Path(home)
        subprocess.run(
            [
                *(sys.executable, "main.py", f"--config=configs/{_NETWORK.value}.py"),
                *(f"--workdir={root / 'run'}", "--config.data.name=digits", "--config.epochs=1"),
            ],
            cwd=peers.ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (root / "images").mkdir()
        _generate(root / "images")
        some = sorted((root / "images").iterdir())[: _IMAGES.value // 10]
        for paths in (some[:1], some, [root / "images"]):
            number = _IMAGES.value if paths[0].is_dir() else len(paths)
            _measure(root / "run", paths)  # compiles
            seconds, peaks = zip(
                *(_measure(root / "run", paths) for _ in range(_ROUNDS.value)), strict=True
            )
            report["images"][str(number)] = {"seconds": seconds, "peak_bytes": max(peaks)}
            middle, memory = statistics.median(seconds), max(peaks) / 2**30
            print(f"{number} images: {middle:.1f} s, {memory:.2f} GiB", flush=True)
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
