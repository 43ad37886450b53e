"""Markdown tables of docs/results.md about how far a network can be trusted."""

import pathlib
import statistics

import numpy as np

from cifar_jax import metrics
from cifar_jax.runtime import workdir as files
from cifar_jax.runtime.checked import read_json
from cifar_jax.runtime.workdir_schema import INT8
from tools import run_tables


def harder_table(results: pathlib.Path) -> str:
    """A row for each run that was tested on harder images."""
    attacks = [(attack, eps) for attack in ("FGSM", "PGD") for eps in ("2/255", "8/255")]
    titles = ["accuracy %", "clean", "corrupted, mean", "severity 1", "severity 5"]
    titles += [*(f"{attack} {eps}" for attack, eps in attacks), "int8 ONNX", "trained on"]
    rows = []
    for name, runs in run_tables.configs(results):
        for run in runs:
            means = run.robustness.get("corruptions", {}).get("mean_accuracy", {})
            attacked = run.robustness.get("adversarial", {}).get("accuracy", {})
            cells = [statistics.mean(means.values()) if means else None]
            cells += [means.get(severity) for severity in ("1", "5")]
            cells += [attacked.get(attack, {}).get(eps) for attack, eps in attacks]
            int8 = run.workdir / files.EXPORT / "model.int8.json"
            exported = read_json(int8, INT8) if int8.exists() else {}
            cells += [exported.get("test_accuracy")]
            if set(cells) != {None}:
                cells = [*run_tables.figures([run], "test_accuracy"), *cells]
                title = f"{run_tables.link(name)}, seed {run.config.seed}"
                rows.append(
                    [title, *(run_tables.spread([cell]) for cell in cells), run_tables.machine(run)]
                )
    return run_tables.markdown(titles, rows)


def calibration_table(results: pathlib.Path) -> str:
    """How sure each config's networks are of their answers, and what several of them say together.

    The seeds of a config are one network with the mean of their logits, if all are kept.
    """
    titles = (
        "config", "seeds", "test accuracy %", "of the mean of the seeds' logits",
        "calibration error %", "temperature", "calibration error % with it",
    )  # fmt: skip
    rows = []
    for name, runs in run_tables.configs(results):
        kept = [run.predictions for run in runs if run.predictions]
        together: list[float | None] = []
        if len(kept) == len(runs) > 1:
            logits = np.mean([logits for logits, _ in kept], axis=0)
            together = [metrics.accuracy(logits, kept[0][1])]
        scaled = [run.result for run in runs if run.result and "temperature" in run.result]
        rows.append(
            [
                run_tables.link(name),
                str(len(runs)),
                run_tables.spread(run_tables.figures(runs, "test_accuracy")),
                run_tables.spread(together),
                run_tables.spread(run_tables.figures(runs, "expected_calibration_error")),
                ", ".join(f"{result['temperature']:.2f}" for result in scaled) or "–",
                run_tables.spread([result["scaled_calibration_error"] for result in scaled]),
            ]
        )
    return run_tables.markdown(titles, rows)
