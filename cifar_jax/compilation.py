"""How XLA compiles here: kept from one start to the next, and on CPU with the faster kernels."""

import hashlib
import pathlib

import jax
from jax.sharding import Mesh

from cifar_jax import places

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def keep() -> None:
    """Keeps compiled programs in the user's cache directory, unless JAX is told another.

    `JAX_COMPILATION_CACHE_DIR` names another; `JAX_ENABLE_COMPILATION_CACHE=0` keeps none.

    Raises:
      UserError: the environment names no place that can be one.
    """
    named = jax.config.values["jax_compilation_cache_dir"]
    if named is not None:
        places.anywhere(named, "JAX_COMPILATION_CACHE_DIR")
        return
    # A home directory may be shared by machines, and a program for one's CPU may crash another's.
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    machine = hashlib.blake2b(features.encode(), digest_size=4).hexdigest()
    jax.config.update("jax_compilation_cache_dir", str(places.user_cache() / f"xla-{machine}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def options(mesh: Mesh) -> dict[str, str]:
    """`compiler_options` of a step for `mesh`: on CPU, the library YNNPACK for reductions only.

    By default XLA hands it convolutions and matrix products as well. Its convolutions take twice
    as long as XLA's own; reductions and pooling take XLA two to eight times as long.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
