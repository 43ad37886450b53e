"""Measures how long this checkout and another one train their configs of one name, in turn.

git worktree add ../before COMMIT
python -m benchmarks.versions --other=../before --configs=speedrun94,speedrun90 [--rounds=5]

Each round is a whole training on a few images by `main.py` of each checkout. Its first epoch does
not count, and the others are scaled to all epochs of the config: what is compared is the time of
the train steps, and the number of epochs. Writes results/benchmarks/versions.json.
"""

import pathlib
import tempfile

from absl import app, flags

from benchmarks import machine, peers, session, short_runs

_OTHER = flags.DEFINE_string("other", None, "the other checkout", required=True)
_CONFIGS = flags.DEFINE_list("configs", ["speedrun94"], "names of files in configs/")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "trainings of each checkout", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 2500, "images to train on", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "versions.json"), "where to write")


def main(arguments: list[str]) -> None:
    del arguments
    begun, images = machine.begin(_OUTPUT.value), _IMAGES.value
    checkouts = {"this": peers.ROOT, "other": pathlib.Path(_OTHER.value).resolve()}
    configs, workdir = {}, pathlib.Path()
    with tempfile.TemporaryDirectory() as home:
        for config in _CONFIGS.value:
            figures: dict[str, list[float]] = {name: [] for name in checkouts}
            for i in range(1 + _ROUNDS.value):
                for name, checkout in checkouts.items():
                    workdir = pathlib.Path(home) / f"{config}-{name}-{i}"
                    rows = short_runs.train(checkout, config, images, workdir)
                    if i:  # the first round fills the caches
                        figures[name].append(short_runs.seconds(rows, images))
            configs[config] = figures
            share = session.in_words(figures["this"], figures["other"])
            print(f"{config}: {share} of the other's time", flush=True)
        report = {
            **begun,
            "other_commit": short_runs.commit(workdir),
            "images": images,
            "configs": configs,
        }
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
