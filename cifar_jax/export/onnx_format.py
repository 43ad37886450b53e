"""Exports ONNX in float32 through jax2onnx (ONNX Runtime has no bfloat16 convolution on CPU)."""

import contextlib
import dataclasses
import io
import json
import logging

import jax
import jax2onnx
import numpy as np
import onnx
import onnxruntime
from etils import epath

from cifar_jax import models
from cifar_jax.evaluation.trained import Trained
from cifar_jax.export import target, verification
from cifar_jax.export.verification import Batches

INPUT, OUTPUT = "images", "logits"

# Opset 13 is the first in which Squeeze takes its axes the way jax2onnx writes them. Gelu needs 20,
# the last one that ONNX Runtime 1.17 supports.
_OPSETS = range(13, 21)
_RUNTIME = ">=1.17"


check = target.check


def write(network: Trained, path: epath.Path) -> str:
    """See `cifar_jax.export.run`."""
    network = in_float32(network)
    data = to_model(network).SerializeToString()
    difference = verification.verify(network, lambda images: call(data, images))
    target.write(network, path, data)
    return verification.describe(network, path, len(data), difference)


def in_float32(network: Trained) -> Trained:
    """The same network with its computations in float32."""
    config = dataclasses.replace(network.config, dtype="float32")
    shape, classes = network.data_shape, len(network.class_names)
    model = models.build(config.model, shape, classes, config.dtype, config.data.resize)
    return dataclasses.replace(network, config=config, model=model)


def to_model(network: Trained) -> onnx.ModelProto:
    """Converts the network to a graph from `INPUT` to `OUTPUT` for any number of images.

    The values of its `metadata_props` are JSON: `class_names`; `scale`, `mean` and `std` of the
    preprocessing, which is part of the graph (null if images are not standardized); and
    `onnxruntime`, the oldest version that it was tested on.
    """
    variables = jax.device_get(network.variables)
    images = jax.ShapeDtypeStruct(("batch", *network.image_shape), np.uint8)
    for name in ("jax2onnx", "onnx_ir"):  # they warn about plugins that we do not need
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # the converter prints its progress there
        model = jax2onnx.to_onnx(
            lambda images: network.apply(variables, images),
            [images],
            model_name="cifar_jax",
            opset=_OPSETS[0],
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    # The recorded shapes of intermediate arrays are channels-last, but the graph is channels-first.
    del model.graph.value_info[:]
    _lower(model)
    model = onnx.shape_inference.infer_shapes(model)
    mean, std = (None if s is None else np.asarray(s).tolist() for s in network.statistics)
    properties = {"class_names": network.class_names, "scale": 1 / 255, "mean": mean, "std": std}
    properties["onnxruntime"] = _RUNTIME
    onnx.helper.set_model_props(
        model, {key: json.dumps(v, allow_nan=False) for key, v in properties.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _lower(model: onnx.ModelProto) -> None:
    """Sets the lowest opset and IR version that support all operations of `model`."""
    for opset in _OPSETS:
        model.opset_import[0].version = opset
        model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
        with contextlib.suppress(onnx.checker.ValidationError):
            return onnx.checker.check_model(model)


def call(data: bytes, images: Batches) -> Batches:
    """The logits that ONNX Runtime computes on CPU; see `verification.verify`."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return {name: session.run([OUTPUT], {INPUT: batch})[0] for name, batch in images.items()}
