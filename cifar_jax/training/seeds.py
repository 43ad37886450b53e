"""Several seeds of one config: one run per seed, and a summary of their results.

Each run has its own workdir, `seed-<n>`, which every mode reads like any other.
"""

import dataclasses
import statistics
from typing import Any

from etils import epath

from cifar_jax.config.schema import Config
from cifar_jax.runtime.workdir_schema import SUMMARIZED


def runs(config: Config, workdir: epath.Path) -> list[tuple[Config, epath.Path]]:
    """The config and the workdir of each seed; unchanged if there is only one."""
    if config.seeds == 1:
        return [(config, workdir)]
    return [
        (dataclasses.replace(config, seed=seed, seeds=1), workdir / f"seed-{seed}")
        for seed in range(config.seed, config.seed + config.seeds)
    ]


def summarize(seeds: list[int], results: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of `seeds.json`: mean, sample standard deviation and values of each figure."""
    summary: dict[str, Any] = {"seeds": seeds}
    for key in SUMMARIZED:
        values = [result[key] for result in results if result.get(key) is not None]
        if values:
            mean, std = statistics.mean(values), statistics.stdev(values)
            summary[key] = {"mean": mean, "std": std, "values": values}
    return summary


def describe(summary: dict[str, Any]) -> str:
    """Describes a summary in a few lines of text."""
    seeds = summary["seeds"]
    spread = "both values" if len(seeds) == 2 else "mean and standard deviation"
    lines = [f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}: {spread}"]
    for key in SUMMARIZED:
        if figures := summary.get(key):
            shown = f"{figures['mean']:.4f} +- {figures['std']:.4f}"
            if len(seeds) == 2:  # too few for a standard deviation
                shown = ", ".join(f"{value:.4f}" for value in figures["values"])
            lines.append(f"{key.replace('_', ' ')}: {shown}")
    return "\n".join(lines)
