"""ONNX in int8, weights and activations, by ONNX Runtime's static quantisation.

Static, as ONNX Runtime advises for convolutional networks. The ranges of the activations come of
training images; what it costs is measured on the test set and kept beside.
"""

import json
import logging
import pathlib
import tempfile

import numpy as np
import onnx
from etils import epath
from onnxruntime import quantization

from cifar_jax import metrics
from cifar_jax.errors import UserError
from cifar_jax.evaluation.trained import Trained
from cifar_jax.export import onnx_format, target, verification
from cifar_jax.training import experiment, run_data

_CALIBRATION_IMAGES = 512
_FIGURES = ".json"

# Least fraction of the test images that get the class which the checkpoint gives them.
_AGREEMENT = 0.9


class _Calibration(quantization.CalibrationDataReader):
    """Feeds images to the quantiser, a batch at a time."""

    def __init__(self, images: np.ndarray):
        self._batches = iter(np.array_split(images, -(-len(images) // 64)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {onnx_format.INPUT: batch}


def check(path: epath.Path, workdir: epath.Path, force: bool) -> None:
    """See `target.check`."""
    if path.suffix == _FIGURES:
        raise UserError(f"{path} is where the figures go: choose an --output that ends in .onnx")
    target.check(path, workdir, force)
    target.check(path.with_suffix(_FIGURES), workdir, force)


def write(network: Trained, path: epath.Path) -> str:
    """See `cifar_jax.export.run`; writes the figures beside the file, as .json."""
    data_set = experiment.build(network.config, run_data.load(network.config, network.workdir))
    images, labels = data_set.test
    network = onnx_format.in_float32(network)
    data = quantize(onnx_format.to_model(network), data_set.train[0][:_CALIBRATION_IMAGES])
    found = np.concatenate(list(onnx_format.call(data, _batches(images)).values()))
    wanted = network.logits(images)
    figures = {
        "test_accuracy": metrics.accuracy(found, labels),
        "checkpoint_test_accuracy": metrics.accuracy(wanted, labels),
        "agreement": float(np.mean(found.argmax(1) == wanted.argmax(1))),
        "test_examples": len(labels),
        "calibration_images": min(_CALIBRATION_IMAGES, len(data_set.train[0])),
    }
    if not figures["agreement"] >= _AGREEMENT:
        raise UserError(
            f"nothing written: in int8 only {figures['agreement']:.1%} of the test images get the "
            f"class that the network of {network.workdir} gives them; use --format=onnx"
        )
    target.write(
        network, path.with_suffix(_FIGURES), (json.dumps(figures, indent=2) + "\n").encode()
    )
    target.write(network, path, data)
    return (
        f"{path}: {len(data) / 1e6:.1f} MB, epoch {network.epoch}; test accuracy "
        f"{figures['test_accuracy']:.4f} on {len(labels):,} images, the checkpoint's "
        f"{figures['checkpoint_test_accuracy']:.4f}; {figures['agreement']:.2%} get the same class"
    )


def _batches(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images in batches of one, of 64, 64, ... and of what is left."""
    single, many = verification.BATCH_SIZES
    parts = np.split(images, range(single, len(images), many))
    return {str(i): part for i, part in enumerate(parts)}


def quantize(model: onnx.ModelProto, images: np.ndarray) -> bytes:
    """`model` in int8.

    Args:
      images: uint8 `[N, H, W, C]` that the ranges of the activations are taken from.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser's advice comes by the root, which is not ours
    try:
        with tempfile.TemporaryDirectory() as home:
            path = pathlib.Path(home, "model.onnx")
            quantization.quantize_static(
                model,
                path,
                _Calibration(images),
                op_types_to_quantize=["Conv", "Gemm", "MaxPool", "Relu"],
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,  # sums of products saturate on CPUs without VNNI otherwise
            )
            return path.read_bytes()
    finally:
        root.setLevel(level)
