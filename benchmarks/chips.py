"""The figures of docs/scaling.md: what bounds a step on accelerators, and seeds side by side."""

import math
import pathlib
import re
import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks import machine, schema
from tools.results import between
from tools.run_tables import markdown

# One chip's published figures: bfloat16 FLOP/s, bytes/s of its memory, and bytes/s that it sends
# and receives over all its links of one dimension.
_CHIPS = {
    "TPU v5e": {"flops": 197e12, "memory": 819e9, "links": 90e9},
    "H100 SXM": {"flops": 989e12, "memory": 3350e9, "links": 450e9},
}
_HOP_SECONDS = 1e-6  # from a chip to its neighbor: an assumption
_NUMBERS = (1, 8, 32, 256)

_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1, "u8": 1}
_ALL_REDUCE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def all_reduces(program: str) -> Iterator[int]:
    """Yields the bytes of each all-reduce in the text of a compiled program."""
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
        f"On a CPU, {report['seeds']} seeds of model1 side by side train {together / alone:.2f} "
        f"times as many images a second as one seed alone (median of {rounds} rounds), so train "
        f"them {better} there. {machine.measured(report)}"
    )


def bounds(step: dict[str, Any], chip: dict[str, float], chips: int) -> dict[str, float]:
    """Lower bounds of a step's time in seconds. The step takes at least as long as the longest.

    Args:
      step: an entry of `roofline.json`, in float32; in bfloat16 a chip moves half of its bytes.
      chip: a value of `_CHIPS`.
    """
    side = math.sqrt(chips)  # of a square torus; its diameter is one side
    hops = 0 if chips == 1 else max(1, round(side))
    # The share of the bytes that a chip sends: a ring sums them up, then passes the sums on.
    share = 2 * (chips - 1) / chips
    return {
        "compute": step["flops"] / chips / chip["flops"],
        "memory": step["bytes_accessed"] / 2 / chips / chip["memory"],
        "exchange": share * step["all_reduce_bytes"] / chip["links"],
        "latency": step["all_reduces"] * 2 * hops * _HOP_SECONDS,
    }


def table(report: dict[str, Any]) -> str:
    """Markdown tables: the steps, then what bounds each on more and more chips."""
    steps = [
        [
            name,
            str(step["batch_size"]),
            f"{step['flops'] / 1e9:.1f}",
            f"{step['bytes_accessed'] / 1e9:.2f}",
            str(step["all_reduces"]),
            f"{step['all_reduce_bytes'] / 1e6:.1f}",
        ]
        for name, step in report["steps"].items()
    ]
    titles = ["config", "batch size", "GFLOP a step", "GB moved a step"]
    titles += ["all-reduces", "MB exchanged"]
    lines = [f"Compiled, not timed, {machine.origin(report)}.", "", markdown(titles, steps)]
    for title, chip in _CHIPS.items():
        rows = []
        for name, step in report["steps"].items():
            rows.append([name, *(_longest(step, chip, chips) for chips in _NUMBERS)])
        lines += ["", f"{title}: ms that a step takes at least, and what takes them", ""]
        lines += [
            markdown(("config", "1 chip", *(f"{chips} chips" for chips in _NUMBERS[1:])), rows)
        ]
    return "\n".join(lines)


def _longest(step: dict[str, Any], chip: dict[str, float], chips: int) -> str:
    """ "0.180 memory"."""
    if chips > step["batch_size"]:
        return "–"
    times = bounds(step, chip, chips)
    cause = max(times, key=lambda key: times[key])
    return f"{1e3 * times[cause]:.3f} {cause}"


def updated(text: str, results: pathlib.Path) -> str:
    """docs/scaling.md with its tables made anew."""
    compiled, measured = (schema.read(results, f"{name}.json") for name in ("roofline", "seeds"))
    text = between(text, "roofline", table(compiled) if compiled else "")
    return between(text, "seeds", sentence(measured) if measured else "")
