"""Measures what a search adds to the training of each trial, and whether it grows.

python -m benchmarks.search [--trials=200]

Writes results/benchmarks/search.json: seconds from the end of a trial to the end of the next one,
without the epochs that it trained.
"""

import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import machine, peers, table

_TRIALS = flags.DEFINE_integer("trials", 200, "how many to train", lower_bound=8)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "search.json"), "where to write")


def overheads(number: int) -> list[float]:
    """Seconds that each trial but the first takes beyond its training, in their order."""
    import optuna  # which `make results` does not need

    with tempfile.TemporaryDirectory() as workdir:
        command = ("main.py", "--mode=search", "--config=benchmarks/trivial_search.py")
        options = (f"--workdir={workdir}", f"--config.search.trials={number}")
        subprocess.run(
            [sys.executable, *command, *options], cwd=peers.ROOT, check=True, capture_output=True
        )
        name = pathlib.Path(workdir).name
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{workdir}/search.db")
    trials = study.get_trials()
    ends = [trial.datetime_complete for trial in trials]
    return [
        (after - before).total_seconds() - trial.user_attrs["seconds"]
        for before, after, trial in zip(ends, ends[1:], trials[1:], strict=False)
        if before and after
    ]


def main(arguments: list[str]) -> None:
    del arguments
    begun = machine.begin(_OUTPUT.value)
    report = {**begun, "overheads": overheads(_TRIALS.value)}
    print(table.search_sentence(report))
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
