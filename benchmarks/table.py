"""Makes the tables of docs/speed.md and docs/scaling.md from results/benchmarks: `make results`."""

import pathlib
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import chips, machine, schema, session
from benchmarks.peers import PEERS, ROOT
from cifar_jax.errors import UserError
from tools.results import between
from tools.run_tables import markdown

_OTHERS = [name for name in PEERS if name != "ours"]
_TITLES = [PEERS[name].title for name in _OTHERS]


def _bold_least(cells: list[str], values: Sequence[float]) -> list[str]:
    """The cells, with that of the least value in bold."""
    least = values.index(min(values))
    return [f"**{cell}**" if i == least else cell for i, cell in enumerate(cells)]


def _speed(report: dict[str, Any], what: str) -> str:
    """A row for each network and memory setting: our speed, then the ratios to the peers' speed."""
    titles = ["network, batch", "the peers' memory settings", "cifar-jax, images/s"]
    titles += ["share of peak"] * (what == "train")
    rows = []
    for network, row in report["networks"].items():
        for settings in session.SETTINGS:
            measured = row["figures"][settings]
            rate = statistics.median(measured["ours"][what])
            cells, ratios = [f"{rate:,.0f}"], [1.0]
            for name in _OTHERS:
                cells.append("missing")
                ratios.append(float("inf"))
                if name in measured:
                    both = measured["ours"][what], measured[name][what]
                    cells[-1], ratios[-1] = session.in_words(*both), session.ratio(*both)[0]
            cells = _bold_least(cells, ratios)
            if what == "train":
                peak = rate * row["train_flops_per_image"] / 1e9 / report["matmul_gflops"]
                cells.insert(1, f"{peak:.0%}")
            rows.append([f"{network}, {row['batch_size']}", settings, *cells])
    return markdown([*titles, *_TITLES], rows)


def _memory(report: dict[str, Any]) -> str:
    rows = []
    for network, row in report["networks"].items():
        for settings in session.SETTINGS:
            peers = (row["figures"][settings].get(name) for name in PEERS)
            sizes = [peer["peak_bytes"] / 2**30 if peer else float("inf") for peer in peers]
            cells = ["missing" if size == float("inf") else f"{size:.2f}" for size in sizes]
            rows.append([network, settings, *_bold_least(cells, sizes)])
    return markdown(["network", "the peers' memory settings", "cifar-jax", *_TITLES], rows)


def _growth(report: dict[str, Any]) -> str:
    rows = [
        [
            name.replace("_", " "),
            value,
            f"{statistics.median(row['images_per_second']):,.0f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
        ]
        for name, grown in report["growth"].items()
        for value, row in grown.items()
    ]
    return markdown(("what grows", "to", "images/s", "peak memory, GiB"), rows)


def _predict(report: dict[str, Any]) -> str:
    (one, start), (some, part), (number, whole) = (
        (int(number), row) for number, row in report["images"].items()
    )
    first, last = (statistics.median(row["seconds"]) for row in (start, whole))
    memory, before = (row["peak_bytes"] / 2**30 for row in (whole, part))
    return (
        f"`--mode=predict` with the {report['network']} network reads a directory of {number:,} "
        f"JPEGs of {report['size']}x{report['size']} at {(number - one) / (last - first):,.0f} "
        f"images/s after a start of {first:.1f} s. Peak memory is {memory:.2f} GiB ({before:.2f} "
        f"for {some:,} images)."
    )


def _exports(report: dict[str, Any]) -> str:
    rows = []
    for network, row in report["networks"].items():
        forms = [row["forms"].get(form) for form in report["titles"]]
        for title, key, sign in (
            ("latency of one image, p50 / p99, ms", "p50_ms", 1),
            (f"images/s, batch {report['batch_size']}", "images_per_second", -1),
        ):
            values = [sign * form[key] if form else float("inf") for form in forms]
            cells = [_export_cell(form, key) if form else "missing" for form in forms]
            rows.append([network, title, *_bold_least(cells, values)])
    return markdown(["network", "", *report["titles"].values()], rows)


def _export_cell(form: dict[str, Any], key: str) -> str:
    if key == "p50_ms":
        return f"{form['p50_ms']:.2f} / {form['p99_ms']:.2f}"
    return f"{form[key]:,.0f}"


def section(results: pathlib.Path) -> str:
    """The tables of docs/speed.md; empty before the first measurement."""
    names = ("step", "step_transfer", "versions", "startup", "scaling", "predict", "export")
    reports = (schema.read(results, f"{name}.json") for name in names)
    step, transfer, both, startup, scaling, predict, exports = reports
    if step is None:
        return ""
    lines = [
        "## Beside plain Flax, Keras and PyTorch",
        "",
        f"{machine.measured(step)} A float32 matrix product reached "
        f"{step['matmul_gflops']:.0f} GFLOP/s there: the peak.",
        "",
        "The ratios say how many times as fast as the peer cifar-jax is: median of the rounds, in "
        "brackets the least and the greatest. Bold: the fastest of the row.",
        "",
        "### Train step",
        "",
        _speed(step, "train"),
        "",
        "The share of the peak counts the work of a direct convolution. Winograd's algorithm needs "
        "less, so the share can exceed 100%.",
        "",
        "### Forward pass",
        "",
        _speed(step, "infer"),
        "",
        "### Peak memory, GiB",
        "",
        _memory(step),
    ]
    reasons = {
        f"{PEERS[name].title}: {reason}"
        for report in (step, transfer)
        if report
        for row in report["networks"].values()
        for name, reason in row["missing"].items()
    }
    lines += ["", *(f"Missing: {reason}" for reason in sorted(reasons))] if reasons else []
    if transfer:
        lines += [
            "",
            "### Fine-tuning",
            "",
            "EfficientNet-Lite0 with its first four blocks frozen, as `transfer_finetune` has it, "
            "at 128 pixels. Ratios as above, of the train step; plain Flax and Keras on JAX are "
            f"left out, since they need minutes a round. {machine.measured(transfer)}",
            "",
            _speed(transfer, "train"),
        ]
    if both:
        commit = both["other_commit"]
        rows = [
            [name, session.in_words(row["this"], row["other"])]
            for name, row in both["configs"].items()
        ]
        lines += [
            "",
            "## Beside an earlier version",
            "",
            "The time of all train steps of a config as a share of the time that the same config "
            f"took at commit {commit[:7] if commit else 'unknown'}, each as it was then: median of "
            f"the rounds, in brackets the least and the greatest. {machine.measured(both)}",
            "",
            markdown(["config", "share"], rows),
        ]
    if startup:
        seconds = {kind: statistics.median(s) for kind, s in startup["seconds"].items()}
        lines += [
            "",
            "## Start",
            "",
            f"From `python main.py` to the first training step: {seconds['cold']:.1f} s cold, "
            f"{seconds['warm']:.1f} s once the compiled programs are cached. `--help` takes "
            f"{seconds['help']:.2f} s. {machine.measured(startup)}",
        ]
    if scaling:
        lines += [
            "",
            "## Growth",
            "",
            f"The {scaling['network']} network's train step as one thing grows. "
            f"{machine.measured(scaling)}",
            "",
            _growth(scaling),
            "",
            f"Gathering and augmenting a batch takes {scaling['batch_share_of_step']:.1%} of a "
            "step.",
        ]
        if scaling["epoch"]:
            lines[-1] += (
                f" An epoch of `main.py` takes {scaling['epoch']['seconds']:.0f} s, with data, "
                "validation and checkpoint."
            )
    if predict:
        lines += ["", "## Prediction", "", f"{_predict(predict)} {machine.measured(predict)}"]
    if exports:
        lines += [
            "",
            "## Exports",
            "",
            "From a numpy array to a numpy array, with malloc's own settings. Bold: the fastest of "
            f"the row. {machine.measured(exports)}",
            "",
            _exports(exports),
        ]
    return "\n".join(lines)


def updated(text: str, results: pathlib.Path) -> str:
    """docs/speed.md with its tables made anew."""
    return between(text, "benchmarks", section(results))


def search_sentence(report: dict[str, Any]) -> str:
    """What a search adds to its trials, in words."""
    seconds = report["overheads"]
    part = len(seconds) // 4
    first, last = (statistics.median(some) for some in (seconds[:part], seconds[-part:]))
    return (
        f"A trial takes {statistics.median(seconds):.2f} s beyond its training: {first:.2f} s in "
        f"the first quarter of {len(seconds) + 1} trials, {last:.2f} s in the last."
    )


def search_updated(text: str, results: pathlib.Path) -> str:
    """docs/search.md with what a search adds to its trials measured anew."""
    report = schema.read(results, "search.json")
    shown = f"{search_sentence(report)} {machine.measured(report)}" if report else ""
    return between(text, "overhead", shown)


PAGES = {
    "docs/speed.md": updated,
    "docs/scaling.md": chips.updated,
    "docs/search.md": search_updated,
}

if __name__ == "__main__":
    try:
        texts = {
            page: update((ROOT / page).read_text(), machine.RESULTS)
            for page, update in PAGES.items()
        }
    except UserError as error:
        sys.exit(f"error: {error}")
    for page, text in texts.items():
        (ROOT / page).write_text(text)
