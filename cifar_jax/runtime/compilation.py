"""Sets up XLA: caches compiled programs between starts, and uses faster CPU kernels where safe.

On CPU, XLA's library YNNPACK halves the time of reductions and pooling but doubles that of
convolutions. In the pinned versions of jax it also has bugs: a fusion that contains a matrix
product gives wrong numbers (jax issue 39103), and one over seven axes crashes (39257, 40412). So
programs use the library for reductions only, and only if each of their fusions is of a kind whose
results were compared with float64. `jit` below checks this; compile all programs of this package
with it.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cifar_jax import places

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_OPTION = "xla_cpu_experimental_ynn_fusion_type"
_REDUCTIONS: dict[str, str | bool] = {_OPTION: "LIBRARY_FUSION_TYPE_REDUCE"}
_NOTHING: dict[str, str | bool] = {_OPTION: ""}

# The library may get float32 arrays with at most five axes, and these operations.
_SOUND = {"parameter", "constant", "bitcast", "multiply", "reduce", "reduce-window"}
_MAX_AXES = 5

# Two programs in flight hold their temporaries twice, so one with more bytes of them is waited for.
# It runs so long that the time between two programs does not count.
_LARGE = 2**28

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(\S+) \(.*?^}", re.MULTILINE | re.DOTALL)
_LIBRARY_CALL = re.compile(r'calls=%?([^\s,]+).*"__ynn_fusion"')
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (\S+) ([\w-]+)\((.*)", re.MULTILINE)
_FLOAT32 = re.compile(r"f32\[([\d,]*)\]")


def set_up() -> None:
    """Sets up XLA for this process. Call before JAX looks for devices.

    Compiled programs are cached in `JAX_COMPILATION_CACHE_DIR` or else in the user's cache
    directory; `JAX_ENABLE_COMPILATION_CACHE=0` turns this off. Everything that is not compiled by
    `jit`, such as single operations, does not use the library.

    Raises:
      UserError: an environment variable names a cache directory that cannot be used.
    """
    flags, without_library = os.environ.get("XLA_FLAGS", ""), f"--{_OPTION}="
    if not flags.endswith(without_library):  # the last flag wins
        os.environ["XLA_FLAGS"] = f"{flags} {without_library}".strip()
    named = jax.config.values["jax_compilation_cache_dir"]
    if named is not None:
        places.anywhere(named, "JAX_COMPILATION_CACHE_DIR")
        return
    # Machines may share a home directory, and a program compiled for one CPU may crash on another.
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    machine = hashlib.blake2b(features.encode(), digest_size=4).hexdigest()
    jax.config.update("jax_compilation_cache_dir", str(places.user_cache() / f"xla-{machine}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def is_sound(program: str) -> bool:
    """Whether the library computes everything correctly that a compiled program leaves to it.

    Args:
      program: the optimized HLO, as returned by `jax.stages.Compiled.as_text`.
    """
    called = set(_LIBRARY_CALL.findall(program))
    bodies = {m[1]: m[0] for m in _COMPUTATION.finditer(program) if m[1] in called}
    instructions = [found for body in bodies.values() for found in _INSTRUCTION.findall(body)]
    return called == bodies.keys() and all(
        operation in _SOUND
        and (shape := _FLOAT32.match(kind)) is not None
        and shape[1].count(",") < _MAX_AXES
        and "dilate" not in arguments
        for kind, operation, arguments in instructions
    )


class jit:  # noqa: N801 (it replaces jax.jit)
    """Like `jax.jit`, but on CPU it uses the library for reductions if `is_sound` allows it.

    Args:
      function, static_argnums, options: as for `jax.jit`. Calls must pass arguments by position.
    """

    def __init__(
        self, function: Callable[..., Any], static_argnums: tuple[int, ...] = (), **options: Any
    ):
        self._static = static_argnums
        self._jitted = jax.jit(function, static_argnums=static_argnums, **options)
        self._programs: dict[Any, tuple[jax.stages.Compiled, bool]] = {}

    def __call__(self, *arguments: Any) -> Any:
        if jax.default_backend() != "cpu":
            return self._jitted(*arguments)
        static = tuple(arguments[i] for i in self._static)
        dynamic = [a for i, a in enumerate(arguments) if i not in self._static]
        leaves, tree = jax.tree.flatten(dynamic)
        kind = static, tree, tuple(map(_kind, leaves))
        if kind not in self._programs:
            program = self.compile(*arguments)
            memory = program.memory_analysis()
            is_large = memory is not None and memory.temp_size_in_bytes > _LARGE
            self._programs[kind] = program, is_large
        program, is_large = self._programs[kind]
        results = program(*dynamic)
        return jax.block_until_ready(results) if is_large else results

    def compile(self, *arguments: Any) -> jax.stages.Compiled:
        """Compiles the program for arguments like these, which may be `jax.ShapeDtypeStruct`s."""
        lowered = self._jitted.lower(*arguments)
        if jax.default_backend() != "cpu":
            return lowered.compile()
        compiled = lowered.compile(_REDUCTIONS)
        program = compiled.as_text()
        if program is not None and is_sound(program):
            return compiled
        return lowered.compile(_NOTHING)

    def trace(self, *arguments: Any) -> jax.stages.Traced:
        """Like `trace` of a function returned by `jax.jit`."""
        return self._jitted.trace(*arguments)


def _kind(leaf: Any) -> Any:
    """The properties of an argument that need a program of their own."""
    return np.shape(leaf), getattr(leaf, "dtype", type(leaf)), getattr(leaf, "sharding", None)
