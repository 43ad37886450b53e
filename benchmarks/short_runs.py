"""Trainings on a few images by `main.py` of any checkout, for their speed."""

import json
import pathlib
import subprocess
import sys


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
