"""How this process gets memory from the kernel, which decides a quarter to a half of CPU speed.

XLA takes its temporaries afresh at every step. glibc gives such large blocks back to the kernel,
so that each step pays for millions of page faults, and by default they are small pages. glibc reads
its tunables when a process starts: to set them, the program starts itself once more.
"""

import importlib.util
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
_ACCELERATOR_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
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


def restart() -> None:
    """Starts this program again with the tunables set; returns where that is done or no use."""
    present = os.environ.get(_VARIABLE, "")
    wanted = tunables(present)
    if wanted == present or not applies():
        return
    # The same process goes on with the same arguments: same id, same parent, same terminal.
    os.execve(
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _VARIABLE: wanted}
    )


def describe() -> dict[str, str | None]:
    """What this process runs under, for `environment.json`."""
    pages = _HUGE_PAGES.read_text() if _HUGE_PAGES.exists() else ""
    chosen = pages.partition("[")[2].partition("]")[0]
    return {
        "glibc_tunables": os.environ.get(_VARIABLE),
        "transparent_huge_pages": chosen or None,
    }
