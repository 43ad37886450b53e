"""Measures this project on a GPU or TPU, with one command that needs no network.

python -m benchmarks.accelerator --output=DIR [--minutes=8] [--small] [--parts=speed,...]

The most valuable parts come first. Each figure is written to DIR/<part>.json as soon as it is
measured; if one fails, its error is written. Separate processes do all device work. `TFDS_DATA_DIR`
names the data. `--small` tries every part in a minute or two on a CPU.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent import futures

import jax
import numpy as np
from absl import app, flags

from benchmarks import machine, networks, parts, peers, session
from benchmarks.parts import Figures, Part
from cifar_jax.runtime import workdir as files

_STEPS = 50  # in a dispatch, as in the training loop on an accelerator
_TINY = "tests/configs/tiny.py"
_DTYPES = ("float32", "bfloat16")
_OF_TIME = {"seconds", "images_per_second"}  # keys of a row that differ each time
_EVIDENCE = (
    files.CONFIG, files.DATA, files.ENVIRONMENT, files.METRICS, files.RESULT, files.PREDICTIONS
)  # fmt: skip


def _job(name: str, dtype: str, small: bool) -> Figures:
    # The batch size of the speedrun is that of configs/speedrun94.py, the others' their config's.
    size = 8 if small else {"speedrun": 500}.get(name, 0)
    job = networks.job(name, batch_size=size, width=0.1 if small else 1.0)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"  # PyTorch's name
    images = 20 * job["batch_size"] if small else 50_000
    steps = 1 if small else _STEPS
    return {**job, "dtype": dtype, "device": device, "images": images, "steps_per_dispatch": steps}


def _rates(chosen: dict[str, peers.Peer], job: Figures, small: bool, limit: float) -> Figures:
    """Images per second of the libraries, measured in turn, and the seconds of compilation."""
    jobs: session.Jobs = {name: (peer, job, False) for name, peer in chosen.items()}
    rounds, seconds = (1, 0.02) if small else (3, 0.5)
    found, failures = session.alternate(
        jobs, ("train", "infer"), rounds, seconds, limit, starts=len(jobs)
    )
    for name, row in found.items():
        steps = job["steps_per_dispatch"] if name == "ours" else 1
        row["train"] = [rate * steps for rate in row["train"]]
        pairs = {"train": steps, "infer": 1}
        row["compile_seconds"] = {
            what: row["first_seconds"][what] - 2 * n * job["batch_size"] / max(row[what])
            for what, n in pairs.items()
        }
    if not found:
        raise parts.Failed("; ".join(failures.values()))
    return {"batch_size": job["batch_size"], **found, "missing": failures}


def _speed(part: Part) -> None:
    """Speed and peak memory of each network, in its own process."""
    ours = {"ours": peers.PEERS["ours"]}
    for name in ("model1",) if part.small else ("speedrun", "final", "model1"):
        for dtype in _DTYPES[:1] if part.small else _DTYPES:
            job = _job(name, dtype, part.small)
            work = functools.partial(_rates, ours, job, part.small)
            part.measure(f"{name} {dtype}", work, most=60.0)


def _training(part: Part) -> None:
    """Trains whole runs with main.py and keeps their small files."""

    def train(config: str, dtype: str, limit: float) -> Figures:
        with tempfile.TemporaryDirectory() as home:
            workdir = pathlib.Path(home, "run")
            arguments = [f"--config={config}", f"--config.dtype={dtype}", f"--workdir={workdir}"]
            seconds = parts.train(arguments, limit)
            kept = part.path.parent / "training" / f"{pathlib.Path(config).stem}-{dtype}"
            kept.mkdir(parents=True, exist_ok=True)
            for name in _EVIDENCE:
                shutil.copy(workdir / name, kept)
            result = json.loads((workdir / files.RESULT).read_text())
            epochs = [row["seconds"] for row in parts.rows(workdir)]
        figures = {key: value for key, value in result.items() if isinstance(value, int | float)}
        return figures | {"seconds": seconds, "epoch_seconds": epochs}

    chosen = {
        "speedrun94 float32": ("configs/speedrun94.py", "float32"),
        "final float32": ("configs/final.py", "float32"),
        "speedrun94 bfloat16": ("configs/speedrun94.py", "bfloat16"),
    }
    if part.small:
        chosen = {"tiny float32": (_TINY, "float32")}
    for key, of in chosen.items():
        part.measure(key, lambda limit, of=of: train(*of, limit), most=150.0)


def _resume(part: Part) -> None:
    """Compares a run that was stopped and resumed with one that was not, bit for bit.

    A third run, not stopped either, shows how far the machine alone makes runs differ.
    """
    config = [f"--config={_TINY if part.small else 'configs/final.py'}", "--config.epochs=2"]

    def compare(xla_flags: str, limit: float) -> Figures:
        variables = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()}
        end = time.monotonic() + limit
        with tempfile.TemporaryDirectory() as home:
            one, again, resumed = (pathlib.Path(home, name) for name in ("one", "again", "resumed"))
            stops = ((one, ""), (resumed, "first step done"), (resumed, ""), (again, ""))
            for workdir, stop in stops:
                left = max(1.0, end - time.monotonic())
                parts.train([*config, f"--workdir={workdir}"], left, stop, variables)
            starts = json.loads((resumed / files.ENVIRONMENT).read_text())["starts"]
            return {
                **variables,
                "resumed_at_step": starts[-1]["step"],
                "resumed": _difference(one, resumed),
                "again": _difference(one, again),
            }

    settings = {"as it comes": "", "deterministic": "--xla_gpu_deterministic_ops=true"}
    if part.small:
        del settings["deterministic"]  # exists on GPUs only
    with futures.ThreadPoolExecutor(len(settings)) as pool:  # nothing is timed
        work = [lambda limit, option=option: compare(option, limit) for option in settings.values()]
        list(pool.map(part.measure, settings, work))


def _difference(one: pathlib.Path, other: pathlib.Path) -> Figures:
    """Whether two finished runs have the same rows, and how far their predictions differ."""
    rows = [
        [{key: row[key] for key in row.keys() - _OF_TIME} for row in parts.rows(path)]
        for path in (one, other)
    ]
    with np.load(one / files.PREDICTIONS) as a, np.load(other / files.PREDICTIONS) as b:
        apart = {key: float(np.max(np.abs(a[key] - b[key].astype(float)))) for key in a.files}
    return {"same_rows": rows[0] == rows[1], "largest_differences": apart}


def _seeds(part: Part) -> None:
    """Eight seeds of model1 side by side, and one alone: the median epoch after the first."""

    def rate(number: int, limit: float) -> Figures:
        config = _TINY if part.small else "configs/model1.py"
        last = 3 if part.small else 8
        overrides = ["--config.epochs=40", "--config.checkpoint.every_steps=0"]
        with tempfile.TemporaryDirectory() as home:
            arguments = [f"--config={config}", f"--workdir={home}", f"--config.seeds={number}"]
            seconds = parts.train([*arguments, *overrides], limit, stop=f"epoch {last}/")
            rows = parts.rows(pathlib.Path(home, "seed-0" if number > 1 else "."))
        each = statistics.median(row["images_per_second"] for row in rows[1:])
        return {"seeds": number, "images_per_second": number * each, "seconds": seconds}

    for number in (1, 2 if part.small else 8):
        part.measure(f"{number} side by side", lambda limit, n=number: rate(n, limit))


def _peers(part: Part) -> None:
    """This project and the installed PyTorch, on the same device, in turn."""
    chosen = {"ours": peers.PEERS["ours"]} | {
        name: dataclasses.replace(peers.PEERS[name], requirements=())
        for name in ("torch", "torch-compile")
    }
    for dtype in ("bfloat16",) if part.small else reversed(_DTYPES):
        for name in ("model1",) if part.small else ("speedrun", "final"):
            job = _job(name, dtype, part.small)
            part.measure(f"{name} {dtype}", functools.partial(_rates, chosen, job, part.small))


def _tests(part: Part) -> None:
    """Runs the tests about devices on this one, without tests/conftest.py, which chooses CPUs."""

    def run(limit: float) -> Figures:
        names = ["tests/test_batches.py"] if part.small else [
            "tests/test_steps.py", "tests/test_convolution.py", "tests/test_evaluate.py"
        ]  # fmt: skip
        command = ["-m", "pytest", "-v", "--noconftest", "-p", "no:cacheprovider"]
        command += ["-k", "not eight_devices"]
        # Checks of arrays at run time and warnings as errors are meant for the pinned versions.
        command += ["-o", "addopts=", "-o", "filterwarnings=", *names]
        status, lines, _ = parts.run(command, limit)
        outcomes = [line for line in lines if line.startswith("tests/")]
        failed = [line[:200] for line in outcomes if " FAILED" in line or " ERROR" in line]
        passed = sum(" PASSED" in line for line in outcomes)
        return {"status": status, "passed": passed, "failed": failed, "last": lines[-1][:200]}

    part.measure("devices", run, most=150.0)


PARTS: dict[str, Callable[[Part], None]] = {
    "speed": _speed, "training": _training, "resume": _resume, "seeds": _seeds, "peers": _peers,
    "tests": _tests,
}  # fmt: skip

_FOLDER = flags.DEFINE_string("output", None, "directory to write into", required=True)
_MINUTES = flags.DEFINE_float("minutes", 8.0, "minutes for all parts together", lower_bound=0.1)
_SMALL = flags.DEFINE_bool("small", False, "a small version of every part, for a CPU")
_PARTS = flags.DEFINE_list("parts", list(PARTS), "which parts")


def _about_device() -> Figures:
    """What `environment.collect` leaves out."""
    known: Figures = {"torch": None, "nvidia_smi": None}
    if importlib.util.find_spec("torch"):
        known["torch"] = importlib.metadata.version("torch")
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        known["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return known


def main(arguments: list[str]) -> None:
    del arguments
    end = time.monotonic() + 60 * _MINUTES.value
    folder = pathlib.Path(_FOLDER.value).resolve()
    # This process and the others share the device. And so the memory in use is what is needed.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    begun = machine.begin(str(folder / "speed.json"))
    begun["machine"] |= _about_device()
    with tempfile.TemporaryDirectory() as programs:  # starts empty, so that compilation is measured
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"  # as in main.py
        for name in _PARTS.value:
            PARTS[name](Part(folder / f"{name}.json", begun, end, _SMALL.value))


if __name__ == "__main__":
    app.run(main)
