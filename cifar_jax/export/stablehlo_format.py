"""StableHLO through `jax.export`: one file for CPU, NVIDIA GPU and TPU, and any batch size.

It holds each platform's own convolutions, weights as constants. JAX reads it for at least six
months after the version that wrote it (docs.jax.dev, "Exporting and serialization").
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
from etils import epath

from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from cifar_jax.export import target, verification
from cifar_jax.export.verification import Batches

_PLATFORMS = ("cpu", "cuda", "tpu")

# All that another program needs.
_CALLER = """
import jax.export
import numpy as np

network = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
images = np.load("images.npz")
np.savez("logits.npz", **{name: network.call(images[name]) for name in images})
"""


check = target.check


def write(network: Trained, path: epath.Path) -> str:
    """See `cifar_jax.export.run`."""
    data = to_bytes(network)
    difference = verification.verify(network, lambda images: call_elsewhere(data, images))
    target.write(network, path, data)
    line = verification.describe(network, path, len(data), difference)
    return f"{line}; for {', '.join(_PLATFORMS)}"


def to_bytes(network: Trained) -> bytes:
    """The network as a serialised `jax.export.Exported`."""
    # On the host: arrays on devices would tie the export to as many devices.
    variables = jax.device_get(network.variables)

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        return network.apply(variables, images)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.image_shape), np.uint8)
    return bytes(jax.export.export(logits, platforms=_PLATFORMS)(images).serialize())


def call_elsewhere(data: bytes, images: Batches) -> Batches:
    """The logits of the export in a process that knows JAX only, on its CPU.

    Raises:
      UserError: it cannot be called there.
    """
    with tempfile.TemporaryDirectory() as home:
        directory = pathlib.Path(home)
        (directory / "model.stablehlo").write_bytes(data)
        np.savez(directory / "images.npz", allow_pickle=False, **images)
        done = subprocess.run(
            [sys.executable, "-c", _CALLER],
            cwd=home,  # from where this package is not found
            env={**os.environ, "JAX_PLATFORMS": "cpu"},  # an accelerator may belong to this process
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"nothing written: JAX cannot call the export ({reason})")
        with np.load(directory / "logits.npz") as logits:
            return dict(logits)
