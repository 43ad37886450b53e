"""Measures the exports of a network beside the package itself and the peers' networks.

python -m benchmarks.export [--networks=final,...] [--rounds=5] [--images=400] [--batch_size=128]

It measures from numpy to numpy: the latency of one image, and images per second in a batch. Ours
and the exports take uint8 and standardize it themselves; the peers take float32. Everything runs
with malloc's own settings, as in somebody else's server. The weights are fresh, because speed does
not depend on them. Writes results/benchmarks/export.json; `make results` puts it in docs/speed.md.
"""

import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
from typing import Any

import jax
import numpy as np
from absl import app, flags
from etils import epath

from benchmarks import machine, networks, peers, session
from cifar_jax import models
from cifar_jax.config import migration
from cifar_jax.evaluation import trained
from cifar_jax.export import onnx_format, onnx_int8_format, stablehlo_format
from cifar_jax.runtime import weights, workdir_schema
from cifar_jax.runtime import workdir as files
from cifar_jax.training import state

_NETWORKS = flags.DEFINE_list("networks", ["model1", "final", "speedrun"], "which networks")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "measurements of each", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 400, "images in a measurement", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "images in a batch", lower_bound=2)
_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "export.json"), "where to write")

_CLASSES = [f"class {i}" for i in range(10)]
_IMAGE_SHAPE = (32, 32, 3)

# These run in this environment, from the package or from a file.
FORMS = {
    "ours": peers.Peer("cifar-jax", "export_worker.py", ("ours",)),
    "stablehlo": peers.Peer("StableHLO", "export_worker.py", ("stablehlo",)),
    "onnx": peers.Peer("ONNX Runtime", "export_worker.py", ("onnx",)),
    "onnx-int8": peers.Peer("ONNX Runtime, int8", "export_worker.py", ("onnx",)),
}
OTHERS = ("torch", "torch-compile", "keras-jax", "keras-tensorflow")
ALL = FORMS | {name: peers.PEERS[name] for name in OTHERS}


def exported(name: str, home: pathlib.Path) -> dict[str, str]:
    """Writes a network with fresh weights into `home` in each form; returns form -> path."""
    config = networks.scaled(name, 1.0)
    model = models.build(config.model, _IMAGE_SHAPE, len(_CLASSES))
    variables = jax.jit(lambda: state.init_variables(model, 0, _IMAGE_SHAPE))()
    workdir = epath.Path(home)
    row = dict.fromkeys(workdir_schema.FIGURES, 0.0) | {"epoch": 1, "step": 1}
    data = {"image_shape": _IMAGE_SHAPE, "class_names": _CLASSES, "mean": None, "std": None}
    files.write_json(workdir / files.CONFIG, migration.to_json(config))
    files.write_json(workdir / files.DATA, data)
    files.write_bytes(workdir / files.METRICS, json.dumps(row, allow_nan=False).encode())
    files.write_bytes(workdir / files.WEIGHTS, weights.to_bytes(variables))
    network = trained.load(workdir)
    graph = onnx_format.to_model(network)
    images = np.random.default_rng(0).integers(0, 256, (64, *_IMAGE_SHAPE), np.uint8)
    contents = {
        "stablehlo": stablehlo_format.to_bytes(network),
        "onnx": graph.SerializeToString(),
        "onnx-int8": onnx_int8_format.quantize(graph, images),
    }
    for form, content in contents.items():
        (home / form).write_bytes(content)
    return {"ours": str(home), **{form: str(home / form) for form in contents}}


def measure(name: str, batch_size: int, paths: dict[str, str], missing: dict[str, str]) -> tuple:
    """Seconds of each call with `batch_size` images by form and peer; and why others failed."""
    job = networks.job(name, batch_size=batch_size)
    jobs: session.Jobs = {
        form: (peer, job | {"path": paths.get(form)}, False)
        for form, peer in ALL.items()
        if form not in missing
    }
    calls = -(-_IMAGES.value // batch_size)
    with contextlib.ExitStack() as stack:
        workers, failures = session.start(stack, jobs, ["serve"])
        seconds: dict[str, list[float]] = {form: [] for form in workers}
        for i in range(_ROUNDS.value):
            for form in session.rotated(list(workers), i):
                seconds[form] += workers[form].latencies("serve", calls)
            print(f"  round {i + 1} of {_ROUNDS.value}", file=sys.stderr)
    return seconds, failures


def figures(single: list[float], batched: list[float], batch_size: int) -> dict[str, float]:
    """The figures for the table, from the seconds of each call."""
    p50, p99 = np.percentile(single, [50, 99])
    return {
        "p50_ms": 1e3 * p50,
        "p99_ms": 1e3 * p99,
        "images_per_second": batch_size / statistics.median(batched),
    }


def main(arguments: list[str]) -> None:
    del arguments
    report: dict[str, Any] = {
        **machine.begin(_OUTPUT.value),
        "batch_size": _BATCH_SIZE.value,
        "titles": {form: peer.title for form, peer in ALL.items()},
        "networks": {},
    }
    missing = peers.install()
    for name in _NETWORKS.value:
        print(name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as home:
            paths = exported(name, pathlib.Path(home))
            single, failed = measure(name, 1, paths, missing)
            batched, failed_too = measure(name, _BATCH_SIZE.value, paths, missing | failed)
        entry = {"forms": {}, "missing": missing | failed | failed_too}
        for form in batched:
            entry["forms"][form] = figures(single[form], batched[form], _BATCH_SIZE.value)
            row = entry["forms"][form]
            print(
                f"  {ALL[form].title:24} p50 {row['p50_ms']:7.2f} ms, p99 {row['p99_ms']:7.2f} ms, "
                f"{row['images_per_second']:7.0f} images/s"
            )
        for form, reason in entry["missing"].items():
            print(f"  {form} is missing: {reason}")
        sys.stdout.flush()
        report["networks"][name] = entry
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
