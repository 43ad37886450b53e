"""Measures whether seeds train faster side by side (`config.seeds`) than one after the other.

python -m benchmarks.seeds [--seeds=4] [--rounds=3]

`main.py` trains an epoch of model1 with one seed and with several, in turn. Writes
results/benchmarks/seeds.json.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import chips, machine, peers

_SEEDS = flags.DEFINE_integer("seeds", 4, "how many side by side", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements of each", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "seeds.json"), "where to write")


def _images_per_second(number: int) -> float:
    """Images per second of all seeds together, in the second of two epochs."""
    with tempfile.TemporaryDirectory() as workdir:
        subprocess.run(
            [
                *(sys.executable, "main.py", "--config=configs/model1.py", "--config.epochs=2"),
                *(f"--workdir={workdir}", f"--config.seeds={number}"),
            ],
            cwd=peers.ROOT,
            check=True,
            capture_output=True,
        )
        path = next(pathlib.Path(workdir).rglob("metrics.jsonl"))
        return number * json.loads(path.read_text().splitlines()[-1])["images_per_second"]


def main(arguments: list[str]) -> None:
    del arguments
    begun = machine.begin(_OUTPUT.value)
    numbers = {"alone": 1, "together": _SEEDS.value}
    rates: dict[str, list[float]] = {key: [] for key in numbers}
    for _ in range(_ROUNDS.value):
        for key, number in numbers.items():
            rates[key].append(_images_per_second(number))
    report = {
        **begun,
        "seeds": _SEEDS.value,
        **rates,
    }
    print(chips.sentence(report))
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
