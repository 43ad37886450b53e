"""Measures how time and memory grow with batch, width and data set, and how long an epoch takes.

python -m benchmarks.scaling [--network=final] [--rounds=3] [--seconds=2]

One worker at a time makes train steps. Then `main.py` trains an epoch as a user would, with data,
validation and checkpoint. Writes results/benchmarks/scaling.json.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags

from benchmarks import machine, networks, peers, session

_NETWORK = flags.DEFINE_string("network", "final", "which network")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements of each", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 2.0, "length of a measurement", lower_bound=0.01)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "scaling.json"), "where to write")

_VARIED: dict[str, tuple[Any, ...]] = {
    "batch_size": (32, 64, 128, 256, 512, 1024),
    "width": (0.25, 0.5, 1.0, 2.0),
    "images": (5_000, 50_000, 200_000),
}


def _step(**varied: Any) -> dict[str, Any]:
    """Images per second and peak memory of our train step with one property changed."""
    images = varied.pop("images", None)
    job = networks.job(_NETWORK.value, **varied)
    if images:
        job["images"] = images
    with session.Worker(peers.PEERS["ours"], job, tuned=True) as worker:
        answers = [worker.rate("train", _SECONDS.value) for _ in range(_ROUNDS.value)]
    rates = [answer["images_per_second"] for answer in answers]
    return {"images_per_second": rates, "peak_bytes": answers[-1]["peak_bytes"]}


def _batch_share() -> float:
    """The time to gather and augment a batch on the device, as a fraction of a train step's."""
    with session.Worker(peers.PEERS["ours"], networks.job(_NETWORK.value), tuned=True) as worker:
        shares = []
        for _ in range(_ROUNDS.value):
            rates = [
                worker.rate(what, _SECONDS.value)["images_per_second"]
                for what in ("train", "batch")
            ]
            shares.append(rates[0] / rates[1])
    return statistics.median(shares)


def _epoch() -> dict[str, Any] | None:
    """Trains an epoch with `main.py`; its row of `metrics.jsonl`, or None without the data set."""
    with tempfile.TemporaryDirectory() as workdir:
        done = subprocess.run(
            [
                *(sys.executable, "main.py", f"--config=configs/{_NETWORK.value}.py"),
                *(f"--workdir={workdir}", "--config.epochs=1", "--config.data.download=False"),
            ],
            cwd=peers.ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"no epoch was measured: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
        return json.loads((pathlib.Path(workdir) / "metrics.jsonl").read_text())


def main(arguments: list[str]) -> None:
    del arguments
    report: dict[str, Any] = {
        **machine.begin(_OUTPUT.value),
        "network": _NETWORK.value,
        "growth": {},
    }
    for name, values in _VARIED.items():
        report["growth"][name] = {str(value): _step(**{name: value}) for value in values}
        for value, row in report["growth"][name].items():
            rate, memory = statistics.median(row["images_per_second"]), row["peak_bytes"] / 2**30
            print(f"{name} {value}: {rate:.0f} images/s, {memory:.2f} GiB", flush=True)
    report["batch_share_of_step"] = _batch_share()
    print(f"getting a batch is {report['batch_share_of_step']:.2%} of a train step")
    report["epoch"] = _epoch()
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
