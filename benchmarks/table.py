"""The README's benchmark section, from the evidence under results/benchmarks: `make results`."""

import itertools
import pathlib
import statistics
import sys
from typing import Any

from benchmarks import chips, machine, schema, session
from benchmarks.peers import PEERS, ROOT
from cifar_jax.errors import UserError
from tools.results import between

_COME, _SAME = session.SETTINGS


def _ratios(figures: dict[str, Any], peer: str, what: str) -> str:
    cells = []
    for of_settings in (figures[_COME], figures[_SAME]):
        if peer not in of_settings:
            return "missing"
        middle, low, high = session.ratio(of_settings["ours"][what], of_settings[peer][what])
        cells.append(f"**{middle:.2f}** ({low:.2f}–{high:.2f})")
    return " / ".join(cells)


def _speed(report: dict[str, Any], what: str) -> list[str]:
    others = [name for name in PEERS if name != "ours"]
    peak = " | share of matmul peak" if what == "train" else ""
    titles = " | ".join(PEERS[name].title for name in others)
    lines = [f"| network, batch | cifar-jax images/s{peak} | {titles} |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for network, row in report["networks"].items():
        ours = (row["figures"][settings]["ours"][what] for settings in session.SETTINGS)
        rate = statistics.median(itertools.chain(*ours))
        cells = [f"{network}, {row['batch_size']}", f"{rate:,.0f}"]
        if what == "train":
            # Where Winograd does the work of a direct convolution, this counts the latter's.
            flops = rate * row["train_flops_per_image"] / 1e9
            cells.append(f"{flops / report['matmul_gflops']:.0%}")
        cells += [_ratios(row["figures"], name, what) for name in others]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _memory(report: dict[str, Any]) -> list[str]:
    lines = [f"| network | {' | '.join(peer.title for peer in PEERS.values())} |"]
    lines.append("|---" * (len(PEERS) + 1) + "|")
    for network, row in report["networks"].items():
        cells = []
        for name in PEERS:
            both = [row["figures"][settings].get(name) for settings in session.SETTINGS]
            sizes = [f"{figure['peak_bytes'] / 2**30:.2f}" for figure in both if figure]
            cells.append(" / ".join(sizes) or "missing")
        lines.append(f"| {network} | {' | '.join(cells)} |")
    return lines


def _growth(report: dict[str, Any]) -> list[str]:
    lines = []
    for name, rows in report["growth"].items():
        cells = [
            f"{value}: {statistics.median(row['images_per_second']):,.0f} images/s, "
            f"{row['peak_bytes'] / 2**30:.2f} GiB"
            for value, row in rows.items()
        ]
        lines.append(f"- by {name.replace('_', ' ')}: {'; '.join(cells)}")
    return lines


def _predict(report: dict[str, Any]) -> str:
    (one, start), (some, part), (number, whole) = (
        (int(number), row) for number, row in report["images"].items()
    )
    first, last = (statistics.median(row["seconds"]) for row in (start, whole))
    memory, before = (row["peak_bytes"] / 2**30 for row in (whole, part))
    return (
        f"`--mode=predict`, {report['network']} network, a directory of {number:,} JPEGs of "
        f"{report['size']}x{report['size']}: {(number - one) / (last - first):,.0f} images/s "
        f"after a start of {first:.1f} s, peak memory {memory:.2f} GiB ({before:.2f} for {some:,})."
    )


def _exports(report: dict[str, Any]) -> list[str]:
    networks = report["networks"]
    lines = [f"| latency p50 / p99, ms; images/s | {' | '.join(networks)} |"]
    lines.append("|---" * (len(networks) + 1) + "|")
    for form, title in report["titles"].items():
        cells = []
        for network in networks.values():
            row = network["forms"].get(form)
            cells.append(
                f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}; {row['images_per_second']:,.0f}"
                if row
                else "missing"
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def section(results: pathlib.Path) -> str:
    """The section in Markdown; empty before the first measurement."""
    names = ("step.json", "startup.json", "scaling.json", "predict.json", "export.json")
    step, startup, scaling, predict, exports = (schema.read(results, name) for name in names)
    if step is None:
        return ""
    lines = [
        f"{machine.measured(step)} A float32 matrix product reached "
        f"{step['matmul_gflops']:.0f} GFLOP/s.",
        "",
        "Train step: how many times as fast as each peer, by the median of the rounds, with least "
        "and greatest; the peer as it comes / with this project's memory settings. Share of "
        "the peak: of a direct convolution's work, of which Winograd does less.",
        "",
        *_speed(step, "train"),
        "",
        "Forward pass, likewise:",
        "",
        *_speed(step, "infer"),
        "",
        "Peak memory in GiB, peers as they come / with the memory settings:",
        "",
        *_memory(step),
    ]
    reasons = {
        f"{PEERS[name].title}: {reason}"
        for row in step["networks"].values()
        for name, reason in row["missing"].items()
    }
    lines += ["", *(f"Missing: {reason}" for reason in sorted(reasons))] if reasons else []
    if startup:
        seconds = {kind: statistics.median(s) for kind, s in startup["seconds"].items()}
        lines += [
            "",
            f"From `python main.py` to the first training step: {seconds['cold']:.1f} s cold, "
            f"{seconds['warm']:.1f} s with compiled programs kept; `--help` takes "
            f"{seconds['help']:.2f} s. {machine.measured(startup)}",
        ]
    if scaling:
        lines += [
            "",
            f"Growth of the {scaling['network']} network's train step, and its peak memory:",
            "",
            *_growth(scaling),
            "",
            f"Gathering and augmenting a batch is {scaling['batch_share_of_step']:.1%} of a step.",
        ]
        if scaling["epoch"]:
            lines[-1] += (
                f" An epoch of `main.py`, data path, validation and checkpoint included, takes "
                f"{scaling['epoch']['seconds']:.0f} s."
            )
        lines[-1] += f" {machine.measured(scaling)}"
    if predict:
        lines += ["", f"{_predict(predict)} {machine.measured(predict)}"]
    if exports:
        lines += [
            "",
            f"Exports, of one image and of {exports['batch_size']}, from numpy to numpy, malloc "
            f"as it comes. {machine.measured(exports)}",
            "",
            *_exports(exports),
        ]
    return "\n".join(lines)


def updated(readme: str, results: pathlib.Path) -> str:
    """`readme` with the section between its two markers made anew."""
    return between(readme, "benchmarks", section(results))


if __name__ == "__main__":
    try:
        for path, update in {"README.md": updated, "docs/scaling.md": chips.updated}.items():
            text = update((ROOT / path).read_text(), ROOT / "results" / "benchmarks")
            (ROOT / path).write_text(text)
    except UserError as error:
        sys.exit(f"error: {error}")
