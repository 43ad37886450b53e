"""Pins the settings of JAX and Flax that affect the results of a run.

The environment or a calling program may have changed them. But a run must depend on its config
alone: other random numbers or dtypes would make a different run of the same config. Settings that
say where and how to compute (platforms, devices, caches, logs) are left alone.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

_log = logging.getLogger(__name__)

# Named as in `jax.config`; environment variables are the same in capitals. Values: JAX's defaults.
PINNED: dict[str, Any] = {
    # Dtypes and promotion.
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_allow_f16_reductions": True,
    # Random numbers.
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_threefry_partitionable": True,
    # Precision and formulas.
    "jax_default_matmul_precision": None,
    "jax_softmax_custom_jvp": False,
    # Checks that may stop correct programs, and debugging modes.
    "jax_check_tracer_leaks": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_debug_nans": False,
    "jax_disable_jit": False,
    "jax_enable_checks": False,
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_transfer_guard_host_to_device": "allow",
}
# The additional ones are those of JAX without a context manager, and Flax's. They are read once, at
# import.
IGNORED = [name.upper() for name in PINNED] + [
    "EAGER_CONSTANT_FOLDING",
    "JAX_ACCURATE_ERF_INV",
    "JAX_COMPILER_ENABLE_REMAT_PASS",
    "JAX_CUSTOM_JVP3",
    "JAX_CUSTOM_VJP3",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_ERROR_CHECKING_BEHAVIOR_DIVIDE",
    "JAX_ERROR_CHECKING_BEHAVIOR_NAN",
    "JAX_ERROR_CHECKING_BEHAVIOR_OOB",
    "JAX_EXEC_TIME_OPTIMIZATION_EFFORT",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL",
    "JAX_OPTIMIZATION_LEVEL",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_REMAT3",
    "JAX_SCAN3",
    "JAX_THREEFRY_GPU_KERNEL_LOWERING",
    "JAX_USE_DIRECT_LINEARIZE",
    "JAX_USE_HLO_LOGISTIC_LOWERING",
    "JAX_USE_SHARDY_PARTITIONER",
    "FLAX_ALWAYS_SHARD_VARIABLE",
    "FLAX_FIX_RNG_SEPARATOR",
    "FLAX_PRESERVE_ADOPTED_NAMES",
    "FLAX_RETURN_FROZENDICT",
]
# These may also affect rounding. They belong to the machine, so they are recorded but not set.
RECORDED = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")


def ignore_environment() -> None:
    """Removes these variables from the environment. Call before JAX is imported."""
    found = [name for name in IGNORED if os.environ.pop(name, None) is not None]
    if found:
        _log.warning("ignoring %s: a run depends on its config alone", ", ".join(found))


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """A context manager and decorator that pins the settings in this thread.

    For functions that other programs call: their own settings are restored at the end.
    """
    import jax

    with contextlib.ExitStack() as stack:
        for name, value in PINNED.items():
            stack.enter_context(getattr(jax, name.removeprefix("jax_"))(value))
        yield
