"""Exports StableHLO through `jax.export`: one file for CPU, NVIDIA GPU and TPU, any batch size.

The file holds separate convolutions for each platform, and the weights as constants. JAX can read
it for at least six months after its own release date (docs.jax.dev, "Exporting and serialization").
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
from cifar_jax.kernels.unfused import no_borders

_PLATFORMS = ("cpu", "cuda", "tpu")

# The complete program that calls an export.
CALLER = """
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
    """The network as a serialized `jax.export.Exported`."""
    # Host arrays: arrays on devices would tie the export to the same number of devices.
    variables = jax.device_get(network.variables)

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        with no_borders():  # which would tie the export to the version of jax that compiles it
            return network.apply(variables, images)

    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.image_shape), np.uint8)
    return bytes(jax.export.export(logits, platforms=_PLATFORMS)(images).serialize())


def call_elsewhere(data: bytes, images: Batches) -> Batches:
    """The export's logits, computed on CPU in a new process that has only JAX.

    Raises:
      UserError: the export cannot be called there.
    """
    with tempfile.TemporaryDirectory() as home:
        directory = pathlib.Path(home)
        (directory / "model.stablehlo").write_bytes(data)
        np.savez(directory / "images.npz", allow_pickle=False, **images)
        done = subprocess.run(
            [sys.executable, "-c", CALLER],
            cwd=home,  # so that this package cannot be imported
            env={**os.environ, "JAX_PLATFORMS": "cpu"},  # this process may hold the accelerator
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"nothing was written: JAX cannot call the export ({reason})")
        with np.load(directory / "logits.npz") as logits:
            return dict(logits)
