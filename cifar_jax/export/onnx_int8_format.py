"""Exports ONNX with int8 weights and activations, by ONNX Runtime's static quantization.

ONNX Runtime recommends static quantization for convolutional networks. The ranges of the
activations come from training images. The accuracy is measured on the test set, and the figures are
written to a .json file beside the model.
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
from cifar_jax.training import experiment

_CALIBRATION_IMAGES = 512
_FIGURES = ".json"

# Smallest share of test images on which the export and the checkpoint must predict the same class.
_AGREEMENT = 0.9


class _Calibration(quantization.CalibrationDataReader):
    """Feeds images to the quantizer in batches of at most 64."""

    def __init__(self, images: np.ndarray):
        self._batches = iter(np.array_split(images, -(-len(images) // 64)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {onnx_format.INPUT: batch}


def check(path: epath.Path, workdir: epath.Path, force: bool) -> None:
    """See `target.check`."""
    if path.suffix == _FIGURES:
        raise UserError(
            f"{path} is reserved for the accuracy figures: choose an --output that ends in .onnx"
        )
    target.check(path, workdir, force)
    target.check(path.with_suffix(_FIGURES), workdir, force)


def write(network: Trained, path: epath.Path) -> str:
    """See `cifar_jax.export.run`; also writes the accuracy figures, as .json beside the file."""
    data_set = experiment.build(network.config, network.dataset())
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
            f"nothing was written: in int8 only {figures['agreement']:.1%} of the test images get "
            f"the same class as from the network of {network.workdir}; use --format=onnx"
        )
    target.write(
        network, path.with_suffix(_FIGURES), (json.dumps(figures, indent=2) + "\n").encode()
    )
    target.write(network, path, data)
    return (
        f"{path}: {len(data) / 1e6:.1f} MB, epoch {network.epoch}; test accuracy "
        f"{figures['test_accuracy']:.4f} on {len(labels):,} images, "
        f"{figures['checkpoint_test_accuracy']:.4f} for the checkpoint; the same class for "
        f"{figures['agreement']:.2%}"
    )


def _batches(images: np.ndarray) -> dict[str, np.ndarray]:
    """Splits the images into batches of 1, 64, 64, ... and the remainder."""
    single, many = verification.BATCH_SIZES
    parts = np.split(images, range(single, len(images), many))
    return {str(i): part for i, part in enumerate(parts)}


def quantize(model: onnx.ModelProto, images: np.ndarray) -> bytes:
    """Returns `model` quantized to int8, as the content of an ONNX file.

    Args:
      images: `[N, H, W, C]` uint8, from which the ranges of the activations are taken.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer logs its advice on the root logger
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
                reduce_range=True,  # without it, sums of products saturate on CPUs that lack VNNI
            )
            return path.read_bytes()
    finally:
        root.setLevel(level)
