"""Works out what limits the train step on accelerators, for docs/scaling.md.

python -m benchmarks.roofline

It times nothing and needs no accelerator. FLOPs are those of the step as lowered for TPU. The bytes
that it moves, and those that devices exchange, are read from the programs compiled for one and for
eight CPU devices. Writes results/benchmarks/roofline.json.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.sharding import AxisType

from benchmarks import chips, machine, networks
from cifar_jax import models
from cifar_jax.config import files
from cifar_jax.runtime import sharding
from cifar_jax.training import steps
from configs import final, model1, speedrun94, speedrun96

_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "roofline.json"), "where to write")

_CONFIGS = {"model1": model1, "final": final, "speedrun94": speedrun94, "speedrun96": speedrun96}
_DEVICES = 8  # that stand for those of a pod
_TRAIN = 50_000  # images


def _traced(name: str, devices: int):
    """The config, and one train step of it traced for so many devices."""
    config = files.typed(_CONFIGS[name].get_config(), models)
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    exp = dataclasses.replace(networks.on_noise(config, _TRAIN), mesh=mesh)
    everywhere = sharding.replicated(mesh)

    def like(array: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=everywhere)

    step = exp.train_step()
    dispatch: Any = steps.make_dispatch(
        lambda state, arrays, order: step(state, arrays, order, config.seed, exp.statistics), mesh
    )
    order = jax.ShapeDtypeStruct(
        (exp.steps_per_epoch, config.batch_size), jnp.int32, sharding=everywhere
    )
    traced = dispatch.trace(exp.abstract_state(), tuple(map(like, exp.train)), order, 1)
    return config, traced


def _measure(name: str) -> dict[str, Any]:
    config, alone = _traced(name, 1)
    _, shared = _traced(name, _DEVICES)
    exchanged = list(chips.all_reduces(shared.lower().compile().as_text()))
    return {
        "batch_size": config.batch_size,
        "flops": alone.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"],
        "bytes_accessed": alone.lower().compile().cost_analysis()["bytes accessed"],
        "all_reduces": len(exchanged),
        "all_reduce_bytes": sum(exchanged),
    }


def main(arguments: list[str]) -> None:
    del arguments
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", _DEVICES)
    report: dict[str, Any] = {
        **machine.begin(_OUTPUT.value),
        "steps": {name: _measure(name) for name in _CONFIGS},
    }
    for name, figures in report["steps"].items():
        print(name, figures)
    machine.write(_OUTPUT.value, report)


if __name__ == "__main__":
    app.run(main)
