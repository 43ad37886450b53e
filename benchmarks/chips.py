"""docs/scaling.md's figures: what bounds a step on accelerators, and seeds side by side."""

import math
import pathlib
import re
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import machine, schema
from tools.results import between

# Of one chip, as published: bfloat16 FLOP/s, bytes/s of its memory, and bytes/s that it sends and
# receives over all its links of one dimension.
_CHIPS = {
    "TPU v5e": {"flops": 197e12, "memory": 819e9, "links": 90e9},
    "H100 SXM": {"flops": 989e12, "memory": 3350e9, "links": 450e9},
}
_HOP_SECONDS = 1e-6  # from a chip to its neighbour, an assumption
_NUMBERS = (1, 8, 32, 256)

_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1, "u8": 1}
_ALL_REDUCE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def all_reduces(program: str) -> Iterator[int]:
    """The bytes of each all-reduce in the text of a compiled program."""
    for shapes in _ALL_REDUCE.findall(program):
        yield sum(
            _BYTES[dtype] * math.prod(map(int, filter(None, dimensions.split(","))))
            for dtype, dimensions in _ARRAY.findall(shapes)
        )


def sentence(report: dict[str, Any]) -> str:
    """The measurement in words."""
    alone, together = (statistics.median(report[key]) for key in ("alone", "together"))
    rounds = len(report["alone"])
    better = "side by side" if together > alone else "one after the other"
    return (
        f"On a CPU {report['seeds']} seeds of model1 side by side train {together / alone:.2f} "
        f"times as many images a second as one (median of {rounds}): there, train them {better}. "
        f"{machine.measured(report)}"
    )


def bounds(step: dict[str, Any], chip: dict[str, float], chips: int) -> dict[str, float]:
    """Lower bounds of a step's time, in seconds: it is at least as long as the longest of them.

    Args:
      step: of `roofline.json`, computing in float32; a chip moves half of its bytes in bfloat16.
      chip: of `_CHIPS`.
    """
    side = math.sqrt(chips)  # of a square torus, whose diameter is a side
    hops = 0 if chips == 1 else max(1, round(side))
    share = 2 * (chips - 1) / chips  # of the bytes: a ring reduces them, then hands them round
    return {
        "compute": step["flops"] / chips / chip["flops"],
        "memory": step["bytes_accessed"] / 2 / chips / chip["memory"],
        "exchange": share * step["all_reduce_bytes"] / chip["links"],
        "latency": step["all_reduces"] * 2 * hops * _HOP_SECONDS,
    }


def table(report: dict[str, Any]) -> str:
    """Markdown tables: the steps, then the bounds of each on more and more chips."""
    lines = [
        f"Compiled, not timed, {machine.origin(report)}.",
        "",
        "| config | batch size | GFLOP a step | GB moved a step | all-reduces | MB exchanged |",
        "|---|---|---|---|---|---|",
    ]
    for name, step in report["steps"].items():
        lines.append(
            f"| {name} | {step['batch_size']} | {step['flops'] / 1e9:.1f} "
            f"| {step['bytes_accessed'] / 1e9:.2f} | {step['all_reduces']} "
            f"| {step['all_reduce_bytes'] / 1e6:.1f} |"
        )
    for title, chip in _CHIPS.items():
        lines += [
            "",
            f"{title}, ms a step at least: compute / memory / exchange / latency",
            "",
            "| config, chips: | " + " | ".join(map(str, _NUMBERS)) + " |",
            "|---|" + "---|" * len(_NUMBERS),
        ]
        for name, step in report["steps"].items():
            cells = []
            for chips in _NUMBERS:
                if chips > step["batch_size"]:
                    cells.append("–")
                    continue
                times = bounds(step, chip, chips)
                longest = max(times, key=lambda key: times[key])
                figures = (
                    f"**{1e3 * value:.3f}**" if key == longest else f"{1e3 * value:.3f}"
                    for key, value in times.items()
                )
                cells.append(" / ".join(figures))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def updated(text: str, results: pathlib.Path) -> str:
    """docs/scaling.md with its tables made anew."""
    compiled, measured = (schema.read(results, f"{name}.json") for name in ("roofline", "seeds"))
    text = between(text, "roofline", table(compiled) if compiled else "")
    return between(text, "seeds", sentence(measured) if measured else "")
