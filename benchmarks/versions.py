"""Measures how long this checkout and another one train their configs of one name, in turn.

git worktree add ../before COMMIT
python -m benchmarks.versions --other=../before --configs=speedrun94,speedrun90 [--rounds=5]

Each round is a whole training on a few images by `main.py` of each checkout. Its first epoch does
not count, and the others are scaled to all epochs of the config: what is compared is the time of
the train steps, and the number of epochs. Writes results/benchmarks/versions.json.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from benchmarks import machine, peers, session

_OTHER = flags.DEFINE_string("other", None, "the other checkout", required=True)
_CONFIGS = flags.DEFINE_list("configs", ["speedrun94"], "names of files in configs/")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "trainings of each checkout", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 2500, "images to train on", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "versions.json"), "where to write")


def train(checkout: pathlib.Path, config: str, images: int, workdir: pathlib.Path) -> list[dict]:
    """Trains a config of a checkout on some images, without a test; returns the rows of its epochs.

    Raises:
      SystemExit: it fails, or has one epoch only.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "main.py", f"--config=configs/{config}.py", f"--workdir={workdir}"),
            f"--config.data.train_images={images}",
        ],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics, rows, text = workdir / "metrics.jsonl", [], ""
    assert process.stdout is not None
    for line in process.stdout:  # it prints a line after each epoch
        text += line
        if metrics.exists():
            rows = [json.loads(row) for row in metrics.read_text().splitlines()]
            if len(rows) == json.loads((workdir / "config.json").read_text())["epochs"]:
                break
    process.kill()
    process.communicate()
    if len(rows) < 2:
        raise SystemExit(f"{config} does not train two epochs in {checkout}:\n{text}")
    return rows


def seconds(rows: list[dict], images: int) -> float:
    """The time of a run's train steps, if all of its epochs had been like those after the first."""
    of_epochs = [images / row["images_per_second"] for row in rows[1:]]
    return sum(of_epochs) * len(rows) / len(of_epochs)


def commit(workdir: pathlib.Path) -> str | None:
    """The commit that a run was trained by."""
    return json.loads((workdir / "environment.json").read_text())["starts"][0]["git_commit"]


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
                    rows = train(checkout, config, images, workdir)
                    if i:  # the first round fills the caches
                        figures[name].append(seconds(rows, images))
            configs[config] = figures
            share = session.in_words(figures["this"], figures["other"])
            print(f"{config}: {share} of the other's time", flush=True)
        report = {**begun, "other_commit": commit(workdir), "images": images, "configs": configs}
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
