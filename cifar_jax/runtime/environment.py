"""Records what a run ran on (versions, devices, source code), for each start of the run."""

import datetime
import importlib.metadata
import logging
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax
from etils import epath

from cifar_jax import places
from cifar_jax.runtime import checked, memory, settings, workdir_schema
from cifar_jax.runtime import workdir as files

_log = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")
# If none of these changes, a resumed run is bit for bit the same as an uninterrupted one. If one
# changes, sums may be added up in a different order.
_DECIDING = (
    "jax", "jaxlib", "flax", "optax", "processor", "cores", "backend", "device_kind",
    "device_count", "process_count", *settings.RECORDED,
)  # fmt: skip


def _git(*command: str) -> str | None:
    """The output of a git command in the source tree; None without git or outside a checkout."""
    root = pathlib.Path(__file__).parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> dict[str, str | bool | None]:
    """The commit of this source code and whether files differ from it; None if it is not tracked.

    An installed package may lie inside another checkout, for example in its .venv: the commit of
    that checkout says nothing about the package.
    """
    if _git("ls-files", "--error-unmatch", "--", __file__) is None:
        return {"git_commit": None, "git_dirty": None}
    # Results and documents do not affect a run, and those of several runs are committed together.
    status = _git("status", "--porcelain", "--", ".", ":(exclude)results", ":(exclude)*.md")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
    }


def _processor() -> str:
    """The model name of the processor if Linux reports it, else what Python reports."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cores() -> int | None:
    """The number of cores that this process may use. It affects how XLA splits sums."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences between two starts that may affect rounding, as "name: value, now value"."""
    return [
        f"{name}: {before[name]}, now {now[name]}"
        for name in _DECIDING
        if name in before and before[name] != now[name]
    ]


def collect() -> dict[str, Any]:
    """The environment of this process, JSON-ready."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "cores": _cores(),
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        **{name: os.environ.get(name) for name in settings.RECORDED},
        **memory.describe(),
        **_commit(),
    }


def record_end(workdir: epath.Path, seconds: float) -> None:
    """Adds to `environment.json` the duration of the latest start.

    Args:
      seconds: since the start of the process.
    """
    path = workdir / files.ENVIRONMENT
    content = checked.read_if_sound(path, workdir_schema.ENVIRONMENT)
    if content:
        content["starts"][-1]["seconds"] = seconds
        files.write_json(path, content)


def record(workdir: epath.Path, command: str, step: int) -> None:
    """Writes `environment.json`: the environment of this start, and of all starts under "starts".

    Args:
      command: the command line that started the process; passwords in URLs are left out.
      step: the step that the run continues from; 0 for a new run.
    """
    path = workdir / files.ENVIRONMENT
    known = checked.read_or_set_aside(path, workdir_schema.ENVIRONMENT)
    starts = known["starts"] if known else []
    now = collect()
    changed = changes(starts[-1], now) if starts else []
    if step and changed:
        _log.warning(
            "resumed in a different environment, so equal up to rounding but not bit for bit: %s",
            "; ".join(changed),
        )
    start = {"command": places.without_password(command), "step": step, **now}
    files.write_json(path, {**now, "starts": [*starts, start]})
