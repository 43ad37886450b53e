"""Works out what limits the train step on accelerators, for docs/scaling.md.

python -m benchmarks.roofline

It times nothing and needs no accelerator. FLOPs are those of the step as lowered for TPU. The bytes
that it moves, and those that devices exchange, are read from the programs compiled for one and for
eight CPU devices. Writes results/benchmarks/roofline.json.
"""

from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.sharding import AxisType

from benchmarks import chips, machine
from cifar_jax.optim import chain as optim
from cifar_jax.runtime import sharding
from cifar_jax.training import experiment, state, steps
from configs import final, model1, speedrun94, speedrun96

_OUTPUT = flags.DEFINE_string("output", str(machine.RESULTS / "roofline.json"), "where to write")

_CONFIGS = {"model1": model1, "final": final, "speedrun94": speedrun94, "speedrun96": speedrun96}
_DEVICES = 8  # in place of a pod's
_SHAPE, _CLASSES, _TRAIN = (32, 32, 3), 10, 50_000


def _traced(name: str, devices: int):
    """The config, and its train step traced for this number of devices."""
    config = _CONFIGS[name].get_config()
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    model, l2 = experiment.network(config, _SHAPE, _CLASSES)
    per_epoch = _TRAIN // config.batch_size
    optimizer = optim.make_optimizer(config, optim.make_schedule(config, per_epoch), l2)
    everywhere = sharding.replicated(mesh)

    def like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    train_steps: Any = steps.make_train_step(config, model, optimizer, l2, (None, None), mesh)
    traced = train_steps.trace(
        state.abstract(config, model, optimizer, _SHAPE, everywhere),
        (like((_TRAIN, *_SHAPE), jnp.uint8), like((_TRAIN,), jnp.int32)),
        like((per_epoch, config.batch_size), jnp.int32),
        1,
    )
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
