"""How this process gets memory from the kernel, which decides a quarter to a half of CPU speed.

XLA takes its temporaries afresh at every step. glibc gives such large blocks back to the kernel,
so that each step pays for millions of page faults, and by default they are small pages. glibc reads
its tunables when a process starts: to set them, the program starts itself once more.
"""

import importlib.util
import logging
import os
import pathlib
import platform
import sys

# Huge pages for malloc; one arena, since the arenas of other threads map large blocks afresh;
# blocks up to 8 GiB from its heap, which is never trimmed below 16 GiB.
_TUNABLES = {
    "glibc.malloc.hugetlb": "1",
    "glibc.malloc.arena_max": "1",
    "glibc.malloc.mmap_threshold": str(8 << 30),
    "glibc.malloc.trim_threshold": str(16 << 30),
}
_VARIABLE = "GLIBC_TUNABLES"
_MARK = "CIFAR_JAX_RESTARTED"  # the process that was started again
_ACCELERATOR_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
_log = logging.getLogger(__name__)
_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables(present: str) -> str:
    """`present` (a value of $GLIBC_TUNABLES) with what it leaves open; what it sets stays."""
    entries = [entry for entry in present.split(":") if entry]
    names = {entry.partition("=")[0] for entry in entries}
    missing = [f"{name}={value}" for name, value in _TUNABLES.items() if name not in names]
    return ":".join([*entries, *missing])


def applies() -> bool:
    """True where the tunables are read and computing is done on the CPU: glibc, no accelerator."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(plugin) for plugin in _ACCELERATOR_PLUGINS)


def can_restart() -> bool:
    """True where the command line of this process names a file or a module that is its program.

    What came by standard input or a pipe has been read and will not come again; `-c` may have read
    from it; and where another program calls this one, such as a notebook, that would start again.
    """
    program, *arguments = sys.argv
    end = len(sys.orig_argv) - len(arguments)
    if not sys.executable or end < 2 or sys.orig_argv[end:] != arguments:
        return False
    is_module = sys.orig_argv[end - 2] == "-m"
    return os.path.isfile(program) and (is_module or sys.orig_argv[end - 1] == program)


def restart() -> None:
    """Starts this program again with the tunables set, once; returns where that is done or no use.

    It is no use where glibc does not heed its environment, as in a Python with file capabilities.
    """
    present = os.environ.get(_VARIABLE, "")
    wanted = tunables(present)
    # The process keeps its id: another one that inherits the mark has not been started again.
    restarted = os.environ.pop(_MARK, None) == str(os.getpid())
    if restarted or wanted == present or not applies() or not can_restart():
        return
    environment = {**os.environ, _VARIABLE: wanted, _MARK: str(os.getpid())}
    try:
        # The same process goes on with the same arguments: same id, same parent, same terminal.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError as error:
        _log.warning("cannot start again with huge pages (%s): going on without", error)


def describe() -> dict[str, str | None]:
    """What this process runs under, for `environment.json`."""
    pages = _HUGE_PAGES.read_text() if _HUGE_PAGES.exists() else ""
    chosen = pages.partition("[")[2].partition("]")[0]
    return {
        "glibc_tunables": os.environ.get(_VARIABLE),
        "transparent_huge_pages": chosen or None,
    }
