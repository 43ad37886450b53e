"""Tunes how this process gets memory from the kernel: worth a quarter to half of the CPU speed.

XLA allocates its temporaries again in every step. By default glibc returns such large blocks to the
kernel and gets small pages for them again, so each step pays for millions of page faults. glibc
reads its tunables when a process starts: to set them, the program restarts itself once.
"""

import importlib.util
import logging
import os
import pathlib
import platform
import sys

# Use huge pages; one arena, since the arenas of other threads would map large blocks again; serve
# blocks up to 8 GiB from the heap, and do not shrink the heap below 16 GiB.
_TUNABLES = {
    "glibc.malloc.hugetlb": "1",
    "glibc.malloc.arena_max": "1",
    "glibc.malloc.mmap_threshold": str(8 << 30),
    "glibc.malloc.trim_threshold": str(16 << 30),
}
_VARIABLE = "GLIBC_TUNABLES"
_MARK = "CIFAR_JAX_RESTARTED"  # holds the id of the process that has restarted itself
_ACCELERATOR_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
_log = logging.getLogger(__name__)
_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables(present: str) -> str:
    """Adds this file's tunables to `present`, a value of $GLIBC_TUNABLES, unless it sets them."""
    entries = [entry for entry in present.split(":") if entry]
    names = {entry.partition("=")[0] for entry in entries}
    missing = [f"{name}={value}" for name, value in _TUNABLES.items() if name not in names]
    return ":".join([*entries, *missing])


def applies() -> bool:
    """Whether the tunables help: the C library is glibc, and there is no accelerator."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(plugin) for plugin in _ACCELERATOR_PLUGINS)


def can_restart() -> bool:
    """Whether the command line of this process runs a file or a module, so that it can be repeated.

    A program read from standard input or a pipe cannot be read again; one given with `-c` may have
    consumed standard input; and inside another program, such as a notebook, that would restart.
    """
    program, *arguments = sys.argv
    end = len(sys.orig_argv) - len(arguments)
    if not sys.executable or end < 2 or sys.orig_argv[end:] != arguments:
        return False
    is_module = sys.orig_argv[end - 2] == "-m"
    return os.path.isfile(program) and (is_module or sys.orig_argv[end - 1] == program)


def restart() -> None:
    """Restarts this program once with the tunables set; returns if that is done or does not help.

    glibc may ignore its environment, for example for a Python with file capabilities.
    """
    present = os.environ.get(_VARIABLE, "")
    wanted = tunables(present)
    # The restarted process keeps its id. A child that only inherits the mark has another id.
    restarted = os.environ.pop(_MARK, None) == str(os.getpid())
    if restarted or wanted == present or not applies() or not can_restart():
        return
    environment = {**os.environ, _VARIABLE: wanted, _MARK: str(os.getpid())}
    try:
        # Keeps the process: same id, same parent, same terminal, same arguments.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError as error:
        _log.warning("cannot restart with huge pages (%s): going on without them", error)


def describe() -> dict[str, str | None]:
    """The memory settings of this process, for `environment.json`."""
    pages = _HUGE_PAGES.read_text() if _HUGE_PAGES.exists() else ""
    chosen = pages.partition("[")[2].partition("]")[0]
    return {
        "glibc_tunables": os.environ.get(_VARIABLE),
        "transparent_huge_pages": chosen or None,
    }
