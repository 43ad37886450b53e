"""What a run ran on: versions, devices, source. Kept for every start of the run."""

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

from cifar_jax.runtime import checked, memory, settings, workdir_schema
from cifar_jax.runtime import workdir as files

_log = logging.getLogger(__name__)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")
# On the same of these a resumed run is bit for bit the run that was never stopped; on others sums
# are added in another order.
_DECIDING = (
    "jax", "jaxlib", "flax", "optax", "processor", "cores", "backend", "device_kind",
    "device_count", "process_count", *settings.RECORDED,
)  # fmt: skip


def _git(*command: str) -> str | None:
    """The output of a git command on the source tree; None without git or outside a checkout."""
    root = pathlib.Path(__file__).parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> dict[str, str | bool | None]:
    """The commit of this source, and whether files differ from it; None if git does not track it.

    An installed package may lie inside a checkout, as in its .venv: that commit is not its own.
    """
    if _git("ls-files", "--error-unmatch", "--", __file__) is None:
        return {"git_commit": None, "git_dirty": None}
    # Evidence and documents change no run, and those of several runs are committed together.
    status = _git("status", "--porcelain", "--", ".", ":(exclude)results", ":(exclude)*.md")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
    }


def _processor() -> str:
    """The processor's model name where Linux tells it, else what Python knows."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cores() -> int | None:
    """The cores that this process may use: XLA shares a sum between them."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What decides the last bits and differs between two starts, as "name: value, now value"."""
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
    """Notes in `environment.json` how long the newest start has taken, from the process' on."""
    path = workdir / files.ENVIRONMENT
    content = checked.read_if_sound(path, workdir_schema.ENVIRONMENT)
    if content:
        content["starts"][-1]["seconds"] = seconds
        files.write_json(path, content)


def record(workdir: epath.Path, command: str, step: int) -> None:
    """Writes `environment.json`: that of this start, and under "starts" that of each so far.

    Args:
      command: that started the process.
      step: that the run goes on from.
    """
    path = workdir / files.ENVIRONMENT
    known = checked.read_or_set_aside(path, workdir_schema.ENVIRONMENT)
    starts = known["starts"] if known else []
    now = collect()
    changed = changes(starts[-1], now) if starts else []
    if step and changed:
        _log.warning(
            "resumed under other conditions, so the same to rounding and not bit for bit: %s",
            "; ".join(changed),
        )
    files.write_json(path, {**now, "starts": [*starts, {"command": command, "step": step, **now}]})
